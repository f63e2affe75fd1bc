//! A Redis with two replicas and three sentinels, as processes on free ports.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use crate::{
    process::{Process, Signal, Spec},
    raw,
    services::{free_port, local, path_text},
    wait::{eventually, within},
};

use super::servers::{redis_responds, start_redis};

/// The name under which the sentinels monitor the master.
pub const MASTER_NAME: &str = "linnet";

const START_TIMEOUT: Duration = Duration::from_secs(30);
/// Time after which the sentinels consider a silent server down.
const DOWN_AFTER_MS: u64 = 1_000;

/// The replicas and sentinels of a stack's Redis. The stack holds the first master.
#[derive(Debug)]
pub struct RedisGroup {
    /// The servers that begin as replicas, each with its port.
    pub replicas: Vec<(Process, u16)>,
    /// The sentinels, each with its port.
    pub sentinels: Vec<(Process, u16)>,
}

impl RedisGroup {
    /// Starts replicas and sentinels of the master on `port`, whose files are in `folder`.
    pub(super) async fn start(folder: &Path, port: u16, env: &BTreeMap<String, String>) -> Self {
        let mut replicas = Vec::new();
        for number in 0..2 {
            let replica = folder.join(format!("replica{number}"));
            copy_passwords(folder, &replica);
            let (process, replica_port, _) = start_redis(&replica, env).await;
            let reply = command(replica_port, &["REPLICAOF", "127.0.0.1", &port.to_string()]).await;
            assert!(reply.starts_with("+OK"), "{reply}");
            replicas.push((process, replica_port));
        }
        let mut group = Self { replicas, sentinels: Vec::new() };
        within(START_TIMEOUT, "both replicas to be in sync", || async {
            command(port, &["INFO", "replication"]).await.matches("state=online").count() == 2
        })
        .await;
        for number in 0..3 {
            group.sentinels.push(start_sentinel(folder, number, port).await);
        }
        within(START_TIMEOUT, "the sentinels to know all servers", || group.is_known()).await;
        group
    }

    /// Whether each sentinel knows the replicas and the other sentinels.
    async fn is_known(&self) -> bool {
        for (_, port) in &self.sentinels {
            let reply = command(*port, &["SENTINEL", "MASTER", MASTER_NAME]).await;
            let value = |name: &str| {
                let mut lines = reply.lines().skip_while(|line| *line != name);
                lines.nth(2).map(ToOwned::to_owned)
            };
            let known = (value("num-slaves"), value("num-other-sentinels"));
            if known != (Some("2".to_owned()), Some("2".to_owned())) {
                return false;
            }
        }
        true
    }

    /// Waits until every running sentinel names another master than `old`, and returns its port.
    pub async fn wait_for_other_master(&mut self, old: u16) -> u16 {
        let mut ports = Vec::new();
        for (sentinel, port) in &mut self.sentinels {
            if sentinel.is_running() {
                ports.push(*port);
            }
        }
        eventually(START_TIMEOUT, "another master", || async {
            let mut masters = Vec::new();
            for port in &ports {
                let ask = ["SENTINEL", "get-master-addr-by-name", MASTER_NAME];
                let reply = command(*port, &ask).await;
                masters.push(reply.lines().nth(4)?.parse::<u16>().ok()?);
            }
            masters.dedup();
            (masters.len() == 1 && masters[0] != old).then(|| masters[0])
        })
        .await
    }

    /// All processes.
    pub(super) fn processes(&mut self) -> impl Iterator<Item = &mut Process> {
        let sentinels = self.sentinels.iter_mut();
        sentinels.chain(&mut self.replicas).map(|(process, _)| process)
    }
}

/// Sends a command to a server or sentinel without a password, and returns its reply in the protocol of Redis; an empty
/// text if it cannot be reached.
pub async fn command(port: u16, words: &[&str]) -> String {
    if tokio::net::TcpStream::connect(local(port)).await.is_err() {
        return String::new();
    }
    let encode = |words: &[&str]| {
        let arguments = words.iter().map(|word| format!("${}\r\n{word}\r\n", word.len()));
        format!("*{}\r\n{}", words.len(), arguments.collect::<String>())
    };
    let request = encode(words) + &encode(&["QUIT"]);
    raw::exchange(local(port), request.as_bytes()).await.text
}

/// Lets a replica use the master's users.
pub(super) fn copy_passwords(folder: &Path, replica: &Path) {
    let (from, to) = (folder.join("redis"), replica.join("redis"));
    fs::create_dir_all(&to).expect("a folder");
    for file in fs::read_dir(from).expect("the master's folder").flatten() {
        let name = file.file_name();
        if name.to_string_lossy().ends_with("-password") {
            fs::copy(file.path(), to.join(name)).expect("a copied password");
        }
    }
}

async fn start_sentinel(folder: &Path, number: usize, master: u16) -> (Process, u16) {
    let home = folder.join(format!("sentinel{number}"));
    fs::create_dir_all(&home).expect("a folder");
    let port = free_port();
    let configuration = home.join("sentinel.conf");
    let text = format!(
        "port {port}\nbind 127.0.0.1\ndir {}\nlogfile \"\"\n\
         sentinel monitor {MASTER_NAME} 127.0.0.1 {master} 2\n\
         sentinel down-after-milliseconds {MASTER_NAME} {DOWN_AFTER_MS}\n\
         sentinel failover-timeout {MASTER_NAME} 5000\n",
        path_text(&home)
    );
    fs::write(&configuration, text).expect("the configuration of a sentinel");
    let sentinel = Process::spawn(Spec {
        name: format!("sentinel-{number}"),
        program: server_program(),
        args: vec![path_text(&configuration), "--sentinel".into()],
        env: BTreeMap::new(),
        stop_signal: Signal::TERM,
        log: folder.join(format!("sentinel{number}.log")),
        admin: None,
        memory_limit: None,
    });
    within(START_TIMEOUT, "a sentinel to respond", || redis_responds(port)).await;
    (sentinel, port)
}

/// The program of Redis, which is also that of its sentinels.
fn server_program() -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let programs = ["redis-server", "valkey-server"];
    let mut found = programs.iter().flat_map(|name| {
        std::env::split_paths(&path).map(move |folder| folder.join(name)).filter(|at| at.exists())
    });
    found.next().expect("redis-server in PATH: scripts/install-packages redis")
}
