//! Pebble, the test server of Let's Encrypt: a CA that implements ACME, with a name server for which every name is
//! 127.0.0.1.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    time::Duration,
};

use serde_json::{Value, json};

use crate::{
    certificates::Certificates,
    process::{Process, Signal, Spec},
    services::{free_port, path_text},
    within,
};

/// The name that Pebble refuses.
pub const BLOCKED: &str = "blocked.example.com";

/// Pebble's name server.
const NAME_SERVER: &str = "pebble-challtestsrv";

/// Longest wait for Pebble to accept connections.
const START_TIMEOUT: Duration = Duration::from_secs(20);

/// A running Pebble with its name server. Its accounts and certificates are lost when it stops.
#[derive(Debug)]
pub struct Pebble {
    folder: PathBuf,
    port: u16,
    process: Process,
    _names: Process,
    certificates: Certificates,
}

/// How Pebble behaves.
#[derive(Debug, Clone, Copy)]
pub struct PebbleOptions {
    /// Life of its certificates, in seconds.
    pub life_s: u64,
    /// Whether it rejects nonces and delays validations at random, as it does by default.
    pub is_moody: bool,
}

impl Pebble {
    /// Starts Pebble with its files in `folder`. It validates names at this port of 127.0.0.1.
    pub async fn start(folder: &Path, http_port: u16, options: PebbleOptions) -> Self {
        let folder = folder.join("pebble");
        std::fs::create_dir_all(&folder).expect("a folder");
        let certificates = Certificates::create(folder.join("tls"));
        let (port, dns) = (free_port(), free_port());
        let names = spawn(&folder, NAME_SERVER, &name_server_arguments(dns), &BTreeMap::new());
        let tls = certificates.folder();
        let profile = json!({"description": "a test", "validityPeriod": options.life_s});
        let config = json!({"pebble": {
            "listenAddress": format!("127.0.0.1:{port}"),
            "managementListenAddress": format!("127.0.0.1:{}", free_port()),
            "certificate": path_text(&tls.join("server.crt")),
            "privateKey": path_text(&tls.join("server.key")),
            "httpPort": http_port,
            "tlsPort": free_port(),
            "ocspResponderURL": "",
            "externalAccountBindingRequired": false,
            "domainBlocklist": [BLOCKED],
            "retryAfter": {"authz": 1, "order": 1},
            "certificateValidityPeriod": options.life_s,
            "profiles": {"default": profile, "tlsserver": profile},
        }});
        let file = folder.join("pebble.json");
        std::fs::write(&file, config.to_string()).expect("Pebble's configuration");
        let mut env = BTreeMap::new();
        if !options.is_moody {
            env.insert("PEBBLE_VA_NOSLEEP".to_owned(), "1".to_owned());
            env.insert("PEBBLE_WFE_NONCEREJECT".to_owned(), "0".to_owned());
        }
        let arguments = [("-config", path_text(&file)), ("-dnsserver", format!("127.0.0.1:{dns}"))];
        let process = spawn(&folder, "pebble", &arguments, &env);
        let pebble = Self { folder, port, process, _names: names, certificates };
        pebble.wait_until_ready().await;
        pebble
    }

    /// The URL of the directory.
    pub fn directory(&self) -> String {
        format!("https://localhost:{}/dir", self.port)
    }

    /// The CA file of its server.
    pub fn ca_file(&self) -> String {
        self.certificates.ca_file()
    }

    /// Stops it. Requests to it fail then.
    pub async fn stop(&mut self) {
        self.process.stop().await;
    }

    /// Starts it again, without its accounts.
    pub async fn start_again(&mut self) {
        self.process.start();
        self.wait_until_ready().await;
    }

    /// The directory's object, which lists what this version supports.
    pub async fn features(&self) -> Option<Value> {
        let output = tokio::process::Command::new("curl")
            .args(["-fsS", "-m", "2", "--noproxy", "*", "--cacert", &self.ca_file()])
            .arg(self.directory())
            .output()
            .await
            .expect("curl");
        serde_json::from_slice(&output.stdout).ok()
    }

    /// Whether this version suggests renewal times (2.6 and later).
    pub async fn has_renewal_info(&self) -> bool {
        self.features().await.is_some_and(|directory| directory["renewalInfo"].is_string())
    }

    /// Its log so far, of all starts.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.folder.join("pebble.log")).unwrap_or_default()
    }

    async fn wait_until_ready(&self) {
        within(START_TIMEOUT, "Pebble to respond", || async { self.features().await.is_some() })
            .await;
    }
}

/// The arguments of a name server for which every name is 127.0.0.1, and which serves nothing else.
fn name_server_arguments(dns: u16) -> Vec<(&'static str, String)> {
    let help = std::process::Command::new(program(NAME_SERVER)).arg("-h").output();
    let help = help.expect("the package pebble: scripts/install-packages pebble");
    let help = String::from_utf8_lossy(&help.stderr).into_owned();
    // Version 2.10 renamed it.
    let listen = if help.contains("-dns01 ") { "-dns01" } else { "-dnsserver" };
    let all = [
        (listen, format!("127.0.0.1:{dns}")),
        ("-management", format!("127.0.0.1:{}", free_port())),
        ("-defaultIPv4", "127.0.0.1".to_owned()),
        ("-defaultIPv6", String::new()),
        ("-http01", String::new()),
        ("-https01", String::new()),
        ("-tlsalpn01", String::new()),
        ("-doh", String::new()),
    ];
    all.into_iter().filter(|(flag, _)| help.contains(&format!("{flag} "))).collect()
}

/// The path of a program of Pebble. `LINNET_PEBBLE_DIR` is the folder of another version than that in `PATH`.
fn program(name: &str) -> PathBuf {
    let folder = std::env::var_os("LINNET_PEBBLE_DIR");
    folder.map_or_else(|| PathBuf::from(name), |folder| PathBuf::from(folder).join(name))
}

fn spawn(
    folder: &Path,
    name: &str,
    arguments: &[(&str, String)],
    env: &BTreeMap<String, String>,
) -> Process {
    Process::spawn(Spec {
        name: name.to_owned(),
        program: program(name),
        args: arguments
            .iter()
            .flat_map(|(name, value)| [(*name).to_owned(), value.clone()])
            .collect(),
        env: env.clone(),
        stop_signal: Signal::TERM,
        log: folder.join(format!("{name}.log")),
        admin: None,
        memory_limit: None,
    })
}
