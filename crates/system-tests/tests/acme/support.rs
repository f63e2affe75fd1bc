//! An nginx with TLS, a CA, and `linnet-acme` between them.

use std::{
    collections::BTreeMap,
    fs,
    net::SocketAddr,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    time::Duration,
};

use linnet_acme::{Certificate, DnsName, Names};
use linnet_system_tests::{
    Metrics, Process, Signal, eventually,
    https::{self, HttpsConnection},
    pebble::{Pebble, PebbleOptions},
    process::Spec,
    services::{binary, free_port, local, nginx, path_text},
    stack::short_folder,
    within,
};
use tempfile::TempDir;

/// Longest wait for an order, with Pebble's delays of up to 15 s.
pub(crate) const WAIT: Duration = Duration::from_secs(60);
pub(crate) const DAY_S: u64 = 86_400;
/// The name that most tests order.
pub(crate) const NAME: &str = "go.example.com";

/// The parts of an installation that HTTPS needs.
pub(crate) struct Site {
    folder: TempDir,
    pub(crate) http: SocketAddr,
    pub(crate) https: SocketAddr,
    pub(crate) nginx: Process,
    pub(crate) pebble: Pebble,
}

impl Site {
    /// Starts nginx and Pebble, which signs for `life_s` seconds.
    pub(crate) async fn start(life_s: u64) -> Self {
        Self::start_with(PebbleOptions { life_s, is_moody: false }).await
    }

    pub(crate) async fn start_with(options: PebbleOptions) -> Self {
        let folder = short_folder();
        let (http, https) = (local(free_port()), local(free_port()));
        let site = folder.path();
        // As in the image: files in it belong to the group of nginx's worker processes.
        for name in ["certificates", "challenges"] {
            let folder = site.join(name);
            fs::create_dir(&folder).unwrap();
            fs::set_permissions(&folder, fs::Permissions::from_mode(0o2750)).unwrap();
        }
        let env = BTreeMap::from(
            [
                ("TLS", "on".to_owned()),
                ("TLS_LISTEN", https.to_string()),
                ("TLS_PORT", https.port().to_string()),
                ("CERTIFICATE", path_text(&site.join("certificates/live"))),
                ("CHALLENGES", path_text(&site.join("challenges"))),
            ]
            .map(|(name, value)| (format!("LINNET_NGINX_{name}"), value)),
        );
        let unused = ["127.0.0.1:1".to_owned()];
        let nginx = nginx(site, http.port(), &unused, &unused, &env, None);
        let pebble = Pebble::start(site, http.port(), options).await;
        within(WAIT, "nginx to respond", || async {
            tokio::net::TcpStream::connect(http).await.is_ok()
        })
        .await;
        Self { folder, http, https, nginx, pebble }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The variables of `linnet-acme`.
    pub(crate) fn env(&self, names: &str) -> BTreeMap<String, String> {
        BTreeMap::from(
            [
                ("NAMES", names.to_owned()),
                ("DIRECTORY", self.pebble.directory()),
                ("CA_FILE", self.pebble.ca_file()),
                ("CERTIFICATES", path_text(&self.path("certificates"))),
                ("CHALLENGES", path_text(&self.path("challenges"))),
                ("PROBE_ADDRESS", self.http.to_string()),
                ("ADMIN_LISTEN", format!("unix:{}", path_text(&self.path("admin")))),
                ("RENEWAL_INFO_S", "1".to_owned()),
                ("RETRY_S", "1".to_owned()),
            ]
            .map(|(name, value)| (format!("LINNET__ACME__{name}"), value)),
        )
    }

    /// Starts `linnet-acme`, and waits until it is ready.
    pub(crate) async fn acme(&self, env: BTreeMap<String, String>) -> Process {
        self.acme_through(env, "", &[]).await
    }

    /// The same through another program, such as a shell that sets a limit.
    pub(crate) async fn acme_through(
        &self,
        env: BTreeMap<String, String>,
        program: &str,
        arguments: &[&str],
    ) -> Process {
        let acme = path_text(&binary("linnet-acme"));
        let mut args: Vec<String> = arguments.iter().map(|text| (*text).to_owned()).collect();
        let program = if program.is_empty() {
            PathBuf::from(acme)
        } else {
            args.push(acme);
            PathBuf::from(program)
        };
        let process = Process::spawn(Spec {
            name: "linnet-acme".to_owned(),
            program,
            args,
            env,
            stop_signal: Signal::TERM,
            log: self.path("acme.log"),
            admin: Some(self.path("admin")),
            memory_limit: None,
        });
        within(WAIT, "linnet-acme to be ready", || process.is_ready()).await;
        process
    }

    /// Runs `linnet-acme status` and returns whether it succeeds, and its output.
    pub(crate) async fn status(&self, env: &BTreeMap<String, String>) -> (bool, String) {
        let output = tokio::process::Command::new(binary("linnet-acme"))
            .arg("status")
            .envs(env)
            .output()
            .await
            .unwrap();
        let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        (output.status.success(), text)
    }

    pub(crate) async fn connect(&self) -> HttpsConnection {
        https::connect(self.https, NAME, &[]).await.unwrap()
    }

    /// The certificate in the folder; `None` for a placeholder.
    pub(crate) fn installed(&self) -> Option<(PathBuf, Certificate)> {
        let live = fs::read_link(self.path("certificates/live")).ok()?;
        let folder = self.path("certificates").join(&live);
        folder.join("directory").exists().then_some(())?;
        let chain = fs::read(folder.join("cert.pem")).ok()?;
        Some((live, Certificate::parse(&chain).ok()?))
    }

    /// Waits until another certificate than that of `previous` is installed.
    pub(crate) async fn next_certificate(&self, previous: Option<&Path>) -> (PathBuf, Certificate) {
        eventually(WAIT, "a new certificate", || async {
            self.installed().filter(|(live, _)| Some(live.as_path()) != previous)
        })
        .await
    }
}

pub(crate) fn names(list: &[&str]) -> Names {
    list.iter().map(|name| name.parse::<DnsName>().unwrap()).collect()
}

/// A metric of `linnet-acme` without labels.
pub(crate) fn value(metrics: &Metrics, name: &str) -> Option<f64> {
    let name = format!("linnet_acme_{name}");
    metrics.samples().iter().find(|sample| sample.name == name).map(|sample| sample.value)
}

/// Waits until so many attempts failed for this reason, and returns the log's text about it.
pub(crate) async fn wait_for_failure(acme: &Process, reason: &str) -> String {
    let line = eventually(WAIT, reason, || async {
        acme.log_lines()
            .into_iter()
            .find(|line| line["message"] == "certificate not ordered" && line["reason"] == reason)
    })
    .await;
    let failures = acme.metrics().await.sum("linnet_acme_failures_total", &[("reason", reason)]);
    assert!(failures >= 1.0, "{failures}");
    line["error"].as_str().unwrap_or_default().to_owned()
}
