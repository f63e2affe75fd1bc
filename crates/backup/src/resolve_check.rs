//! Visits links of a restored database through a throw-away shortener: what visitors would get.

use std::{
    fs,
    io::{Read, Write},
    os::unix::net::UnixStream,
    path::Path,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use crate::{BackupError, instance::Instance, settings::Settings};

/// Longest start of the shortener.
const START_LIMIT: Duration = Duration::from_mins(1);
const REQUEST_LIMIT: Duration = Duration::from_secs(5);
/// Links to visit.
const LINKS: u32 = 100;

/// Stops the shortener when it is dropped.
struct Shortener(Child);

impl Drop for Shortener {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// Visits up to 100 random links, and returns how many led to their target. One that does not is an error.
pub(crate) fn run(settings: &Settings, instance: &Instance<'_>) -> Result<u64, BackupError> {
    // Links whose redirect does not depend on the time or on clicks.
    let links = instance.query(&format!(
        "SELECT short_code, original_url FROM urls WHERE is_active AND max_clicks IS NULL \
         AND (expires_at IS NULL OR expires_at > now() + interval '1 hour') ORDER BY random() LIMIT {LINKS}"
    ))?;
    if links.is_empty() {
        return Ok(0);
    }
    let folder = &instance.socket;
    let listener = folder.join("resolve.sock");
    let mut shortener = start(settings, folder, &listener)?;
    let deadline = Instant::now() + START_LIMIT;
    while visit(&listener, "-").is_err() {
        if let Ok(Some(status)) = shortener.0.try_wait() {
            let log = fs::read_to_string(folder.join("shortener.log")).unwrap_or_default();
            let last = log.lines().last().unwrap_or("no output").to_owned();
            return Err(BackupError::Check(format!(
                "the shortener did not start on the restored database: {status}, {last}"
            )));
        }
        if Instant::now() > deadline {
            return Err(BackupError::TimedOut {
                program: "the shortener's start".to_owned(),
                limit: START_LIMIT,
            });
        }
        // A new process gives no signal when it listens; the deadline bounds this.
        thread::sleep(Duration::from_millis(100));
    }
    let mut resolved = 0;
    for link in &links {
        let (code, target) = link.split_once('\t').unwrap_or((link, ""));
        let (status, location) = visit(&listener, code)?;
        if !(300..400).contains(&status) || location != target {
            return Err(BackupError::Check(format!(
                "a restored link did not resolve: status {status} instead of a redirect to its target"
            )));
        }
        resolved += 1;
    }
    Ok(resolved)
}

fn start(settings: &Settings, folder: &Path, listener: &Path) -> Result<Shortener, BackupError> {
    let log = fs::File::create(folder.join("shortener.log")).map_err(BackupError::file(folder))?;
    let errors = log.try_clone().map_err(BackupError::file(folder))?;
    let unix = |name: &str| format!("unix:{}", folder.join(name).display());
    for name in ["spool", "uploads"] {
        fs::create_dir_all(folder.join(name)).map_err(BackupError::file(folder))?;
    }
    let child = Command::new(&settings.shortener)
        .arg("serve")
        .env_clear()
        .env("LINNET__SHORTENER__RESOLVE_LISTEN", format!("unix:{}", listener.display()))
        .env("LINNET__SHORTENER__API_LISTEN", unix("api.sock"))
        .env("LINNET__SHORTENER__ADMIN_LISTEN", unix("admin.sock"))
        .env("LINNET__SHORTENER__SERVER_THREADS", "1")
        .env(
            "LINNET__POSTGRES__URL",
            format!("postgres://postgres@localhost/linnet?host={}", folder.display()),
        )
        .env("LINNET__POSTGRES__MAX_CONNECTIONS", "8")
        // No Redis: what the caches of the live service hold must not answer, and nothing may be written to them.
        .env("LINNET__REDIS__URL", "redis://127.0.0.1:1/0")
        .env("LINNET__SERVICE__TOKEN", "only-for-this-restore-test-0123456789")
        .env("LINNET__CLICKS__ENABLED", "false")
        .env("LINNET__CLICKS__SPOOL_DIR", folder.join("spool"))
        .env("LINNET__JOBS__UPLOAD_DIR", folder.join("uploads"))
        // The bound of all that clients could cause exceeds the sidecar's memory. This check is the only client.
        .env("LINNET__SHORTENER__MEMORY_BYTES", "2147483648")
        .env("LINNET__CACHE__L1_BYTES", "1048576")
        .env("LINNET__CACHE__WARMUP_LINKS", "0")
        .stdin(Stdio::null())
        .stdout(log)
        .stderr(errors)
        .spawn()
        .map_err(|source| BackupError::Start {
            program: settings.shortener.display().to_string(),
            source,
        })?;
    Ok(Shortener(child))
}

/// Requests `/code` and returns the status and the target.
fn visit(listener: &Path, code: &str) -> Result<(u16, String), BackupError> {
    let request = || -> std::io::Result<String> {
        let mut stream = UnixStream::connect(listener)?;
        stream.set_read_timeout(Some(REQUEST_LIMIT))?;
        stream.set_write_timeout(Some(REQUEST_LIMIT))?;
        write!(stream, "GET /{code} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
        let mut text = String::new();
        stream.take(1 << 20).read_to_string(&mut text)?;
        Ok(text)
    };
    let text = request().map_err(BackupError::file(listener))?;
    Ok(read_head(&text))
}

fn read_head(text: &str) -> (u16, String) {
    let mut lines = text.lines();
    let status = lines
        .next()
        .and_then(|line| line.split(' ').nth(1))
        .and_then(|code| code.parse().ok())
        .unwrap_or(0);
    let location = lines
        .take_while(|line| !line.is_empty())
        .filter_map(|line| line.split_once(':'))
        .find(|(name, _)| name.eq_ignore_ascii_case("location"))
        .map_or_else(String::new, |(_, value)| value.trim().to_owned());
    (status, location)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_status_and_location_of_the_head_only() {
        let text = "HTTP/1.1 302 Found\r\nlocation: https://a.example/?b=c:d\r\n\r\nLocation: x";
        assert_eq!(read_head(text), (302, "https://a.example/?b=c:d".to_owned()));
        assert_eq!(read_head("HTTP/1.1 404 Not Found\r\n\r\nLocation: x"), (404, String::new()));
        assert_eq!(read_head(""), (0, String::new()));
    }
}
