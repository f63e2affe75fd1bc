//! Reads what a color reports about itself, and tries it through its sockets.

use std::{path::PathBuf, thread, time::Duration, time::Instant};

use serde_json::Value;

use crate::{
    color::Color,
    command::run,
    counters::{Counters, Process},
    docker::{self, Container},
    error::HostError,
    fisher::Sample,
    http::{self, Response},
    output::say,
};

/// Ports of the admin listeners.
const GATEWAY_ADMIN: u16 = 9081;
const SHORTENER_ADMIN: u16 = 9082;
const WORKER_ADMIN: u16 = 9083;
/// How many times in a row a process must report the expected release.
const READY_IN_A_ROW: u32 = 5;
const READY_POLL: Duration = Duration::from_millis(200);
/// Links that both colors must resolve to the same target.
const SAMPLE_LINKS: &str = "20";

/// A process that is observed.
#[derive(Debug, Clone)]
pub struct Observed {
    service: String,
    container: Container,
    address: String,
    process: Process,
}

/// Both processes of a color, by their addresses, which do not change while they run.
pub fn observe(color: Color) -> Result<Vec<Observed>, HostError> {
    let [gateway, shortener] = color.services();
    [(gateway, Process::Gateway, GATEWAY_ADMIN), (shortener, Process::Shortener, SHORTENER_ADMIN)]
        .into_iter()
        .map(|(service, process, port)| {
            let container = docker::container(&service)?
                .ok_or_else(|| HostError::Unhealthy(format!("{service} has no container")))?;
            let address = address_of(&service, &container, port)?;
            Ok(Observed { service, container, address, process })
        })
        .collect()
}

fn address_of(service: &str, container: &Container, port: u16) -> Result<String, HostError> {
    let address = container
        .address
        .as_deref()
        .ok_or_else(|| HostError::Unhealthy(format!("{service} is not running")))?;
    Ok(format!("{address}:{port}"))
}

/// The counters of a color, and the largest used share of a memory limit; `None` if a process does not respond.
pub fn counters(observed: &[Observed]) -> Option<(Counters, f64)> {
    let mut counters = Counters::default();
    let mut memory_share = 0.0_f64;
    for process in observed {
        let response = http::get(&process.address, "/metrics").ok()?;
        if response.status != 200 {
            return None;
        }
        counters.add(&response.body, process.process);
        if let Some(resident) = gauge(&response.body, "process_resident_memory_bytes")
            && process.container.memory_limit > 0
        {
            #[expect(clippy::cast_precision_loss, reason = "memory is below 2^53 bytes")]
            let share = resident / process.container.memory_limit as f64;
            memory_share = memory_share.max(share);
        }
    }
    Some((counters, memory_share))
}

fn gauge(metrics: &str, name: &str) -> Option<f64> {
    metrics.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok())
}

/// How often processes ended since `observed`, and whether one was killed for its memory.
pub fn ends(observed: &[Observed]) -> Result<(u64, bool), HostError> {
    let (mut restarts, mut is_out_of_memory) = (0, false);
    let ids: Vec<&str> = observed.iter().map(|process| process.container.id.as_str()).collect();
    let mut found = docker::containers(&ids).unwrap_or_default().into_iter();
    for process in observed {
        let before = &process.container;
        let now = match found.next() {
            Some(now) => Some(now),
            None => docker::container(&process.service)?,
        };
        match now {
            Some(now) if now.id == before.id => {
                restarts += now.restarts.saturating_sub(before.restarts);
                restarts += u64::from(!now.is_running || now.started_at != before.started_at);
                is_out_of_memory |= now.is_out_of_memory && !before.is_out_of_memory;
            }
            _ => restarts += 1,
        }
    }
    Ok((restarts, is_out_of_memory))
}

/// Waits until each service reports the release several times in a row.
pub fn wait_ready(services: &[&str], release: &str, seconds: u64) -> Result<(), HostError> {
    let deadline = Instant::now() + Duration::from_secs(seconds);
    for service in services {
        let mut in_a_row = 0;
        let mut last = "it has not responded".to_owned();
        while in_a_row < READY_IN_A_ROW {
            match is_ready(service, release)? {
                Ok(()) => in_a_row += 1,
                Err(reason) => {
                    in_a_row = 0;
                    last = reason;
                }
            }
            if Instant::now() >= deadline {
                let logs = last_lines(service);
                return Err(HostError::Unhealthy(format!(
                    "{service} was not ready after {seconds} s: {last}{logs}"
                )));
            }
            thread::sleep(READY_POLL);
        }
    }
    Ok(())
}

/// Whether the service is ready with the release; otherwise what is missing. Fails if it ended, which waiting does not
/// mend.
fn is_ready(service: &str, release: &str) -> Result<Result<(), String>, HostError> {
    let container = match docker::container(service) {
        Ok(Some(container)) => container,
        Ok(None) => return Ok(Err("it has no container".to_owned())),
        // Docker may restart meanwhile.
        Err(error) => return Ok(Err(error.to_string())),
    };
    if container.restarts > 1 {
        return Err(HostError::Unhealthy(format!(
            "{service} ended {} times while starting{}",
            container.restarts,
            last_lines(service)
        )));
    }
    let port = match service {
        _ if service.starts_with("gateway") => GATEWAY_ADMIN,
        "worker" => WORKER_ADMIN,
        _ => SHORTENER_ADMIN,
    };
    let Ok(address) = address_of(service, &container, port) else {
        return Ok(Err("it is not running".to_owned()));
    };
    Ok(match http::get(&address, "/readyz") {
        Err(error) => Err(format!("it does not respond ({error})")),
        Ok(response) => compare(&response, release),
    })
}

fn compare(response: &Response, release: &str) -> Result<(), String> {
    let report: Value = serde_json::from_str(&response.body).unwrap_or_default();
    let found = report.get("release").and_then(Value::as_str).unwrap_or("none");
    if found != release {
        return Err(format!("it reports the release {found} instead of {release}"));
    }
    if response.status != 200 {
        return Err(format!("it is not ready: {}", response.body.trim()));
    }
    Ok(())
}

/// The last log lines of a service, for an error.
fn last_lines(service: &str) -> String {
    let Ok(Some(container)) = docker::container(service) else { return String::new() };
    // Programs log to the standard error; `run` returns that only for a failure, so both are merged.
    run("sh", &["-c", "docker logs --tail 5 \"$0\" 2>&1", &container.id], 15)
        .map_or_else(|_| String::new(), |text| format!("\n{text}"))
}

/// Whether the color's processes report that they are ready, whatever their release.
pub fn is_color_ready(color: Color) -> bool {
    observe(color).is_ok_and(|observed| {
        observed.iter().all(|process| {
            http::get(&process.address, "/readyz").is_ok_and(|answer| answer.status == 200)
        })
    })
}

/// Tries both sockets of the color from within nginx's container: this program is root and may enter folders that nginx
/// may not.
pub fn reach_from_nginx(color: Color, host: &str) -> Result<(), HostError> {
    let nginx = docker::container("nginx")?.filter(|nginx| nginx.is_running).ok_or_else(|| {
        HostError::Unhealthy("nginx is not running; start it with `deploy.sh apply`".to_owned())
    })?;
    // curl reports a refused connection as the status 000, so an error of the command is one of Docker.
    let script = "for path in web/$0.sock:health redirects/$0.sock:linnet-host-unknown-code; do \
                  curl -s -A linnet-host-bot -o /dev/null -m 5 -w '%{http_code} ' --unix-socket \"/run/linnet/${path%:*}\" \
                  \"http://$1/${path#*:}\" || true; done";
    let statuses = run("docker", &["exec", &nginx.id, "sh", "-c", script, color.name(), host], 30)?;
    reachable(color, &statuses)
}

/// Waits until nginx reaches both sockets of the color. The error has the end of nginx's log.
pub fn wait_for_nginx(color: Color, host: &str, seconds: u64) -> Result<(), HostError> {
    let deadline = Instant::now() + Duration::from_secs(seconds);
    loop {
        match reach_from_nginx(color, host) {
            Err(error) if Instant::now() >= deadline => {
                let logs = last_lines("nginx");
                return Err(HostError::Unhealthy(format!("{error}{logs}")));
            }
            Err(_) => thread::sleep(READY_POLL),
            Ok(()) => return Ok(()),
        }
    }
}

fn reachable(color: Color, statuses: &str) -> Result<(), HostError> {
    if statuses.split_whitespace().eq(["200", "404"]) {
        return Ok(());
    }
    Err(HostError::Unhealthy(format!(
        "through nginx's container, {color} returned '{statuses}' instead of '200 404' (000: nginx cannot connect); compare \
         the owners and modes of the sockets with those of the release before"
    )))
}

/// Requests through a color's sockets, as nginx sends them.
pub struct Sockets {
    web: PathBuf,
    redirects: PathBuf,
    host: String,
}

impl Sockets {
    /// The sockets of the color.
    pub fn of(color: Color, host: &str) -> Result<Self, HostError> {
        let socket = |volume| Ok(docker::volume(volume)?.join(format!("{color}.sock")));
        Ok(Self { web: socket("web")?, redirects: socket("redirects")?, host: host.to_owned() })
    }

    fn redirect(&self, code: &str) -> Result<(u16, Option<String>), HostError> {
        let response = http::get_from_socket(&self.redirects, &format!("/{code}"), &self.host)
            .map_err(|error| {
                HostError::Unhealthy(format!(
                    "{} does not respond: {error}",
                    self.redirects.display()
                ))
            })?;
        Ok((response.status, response.location))
    }

    fn api(&self, path: &str) -> Result<u16, HostError> {
        let response = http::get_from_socket(&self.web, path, &self.host).map_err(|error| {
            HostError::Unhealthy(format!("{} does not respond: {error}", self.web.display()))
        })?;
        Ok(response.status)
    }

    /// Tries the API, an unknown code, and links of the database, which `other` must resolve to the same targets. Returns
    /// how many requests passed. A failure is tried once more: a server without processor time loses single requests, and
    /// a wrong release fails again.
    pub fn smoke_test(&self, other: Option<&Self>) -> Result<usize, HostError> {
        self.try_smoke_test(other).or_else(|error| {
            say!("trying once more: {error}");
            self.try_smoke_test(other)
        })
    }

    fn try_smoke_test(&self, other: Option<&Self>) -> Result<usize, HostError> {
        for path in ["/health", "/api/v1/urls", "/docs/"] {
            expected(path, self.api(path)?)?;
        }
        // Both colors get it: otherwise the canary would have more 404s than the old color.
        for sockets in std::iter::once(self).chain(other) {
            let (status, _) = sockets.redirect("linnet-host-unknown-code")?;
            if status != 404 {
                return Err(HostError::Unhealthy(format!(
                    "an unknown code returned {status} instead of 404"
                )));
            }
        }
        let codes = some_codes();
        for code in &codes {
            let found = self.redirect(code)?;
            let wanted = match other {
                Some(other) => other.redirect(code)?,
                None => continue,
            };
            if found != wanted {
                return Err(HostError::Unhealthy(format!(
                    "a link returned {} with another target than the old color, which returned {}",
                    found.0, wanted.0
                )));
            }
        }
        Ok(4 + codes.len())
    }

    /// Sends rounds of the smoke test, for a color that gets too few requests; counts the failed rounds, with the reason of
    /// the first one.
    pub fn synthetic(&self, other: &Self, rounds: u64) -> (Sample, Option<String>) {
        let mut failed = (0..rounds).filter_map(|_| self.smoke_test(Some(other)).err());
        let first = failed.next().map(|error| error.to_string());
        let bad = u64::from(first.is_some()) + failed.count() as u64;
        (Sample { bad, all: rounds }, first)
    }
}

/// Without a key, the API refuses requests, unless the operator has opened it (`gateway.anonymous`).
pub(crate) fn expected(path: &str, status: u16) -> Result<(), HostError> {
    let is_api = path == "/api/v1/urls";
    if status == 200 || (is_api && status == 401) {
        return Ok(());
    }
    Err(HostError::Unhealthy(format!(
        "{path} returned {status} instead of {}",
        if is_api { 401 } else { 200 }
    )))
}

/// Random links without a limit of clicks, from the included PostgreSQL; none with one elsewhere.
fn some_codes() -> Vec<String> {
    let query = format!(
        "SELECT short_code FROM urls WHERE max_clicks IS NULL AND id >= (SELECT floor(random() * COALESCE(max(id), 0)) \
         FROM urls) ORDER BY id LIMIT {SAMPLE_LINKS}"
    );
    let Ok(Some(postgres)) = docker::container("postgres") else { return Vec::new() };
    let arguments = [
        "exec",
        postgres.id.as_str(),
        "psql",
        "-U",
        "postgres",
        "-d",
        "linnet",
        "-Atc",
        query.as_str(),
    ];
    run("docker", &arguments, 15)
        .map(|text| text.lines().map(str::to_owned).collect())
        .unwrap_or_default()
}

#[cfg(test)]
#[path = "probe_tests.rs"]
mod tests;
