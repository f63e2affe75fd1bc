//! All processes of one installation.

mod builder;
mod disks;
mod servers;

use std::{
    collections::BTreeMap,
    path::Path,
    process::Stdio,
    time::{Duration, Instant},
};

use serde_json::Value;
use sqlx::{Connection, PgConnection};
use tempfile::TempDir;

use crate::{
    client::Client,
    metrics::Metrics,
    process::{Process, Signal},
    redis_proxy::RedisProxy,
    services::{Database, binary},
    wait::within,
};

pub use builder::{BASE_URL, Builder, Postgres};
use servers::redis_answers;

const START_WITHIN: Duration = Duration::from_secs(30);

/// A running installation; dropped, it stops. With `LINNET_TEST_KEEP` set its folder stays.
#[derive(Debug)]
pub struct Stack {
    // Dropped in this order, after `Drop::drop` has stopped the processes.
    /// The public front.
    pub nginx: Process,
    /// The gateways.
    pub gateways: Vec<Process>,
    /// The shorteners.
    pub shorteners: Vec<Process>,
    /// The workers.
    pub workers: Vec<Process>,
    /// Redis.
    pub redis: Process,
    /// PostgreSQL, when it is the stack's own.
    pub postgres: Option<Process>,
    /// With [`Builder::proxied_redis`]: what stands between Redis and each shortener.
    pub shortener_redis: Vec<RedisProxy>,
    /// With [`Builder::proxied_redis`]: what stands between Redis and each gateway.
    pub gateway_redis: Vec<RedisProxy>,
    /// With [`Builder::proxied_redis`]: what stands between Redis and each worker.
    pub worker_redis: Vec<RedisProxy>,
    /// A key that may do everything.
    pub admin_key: String,
    /// The user of that key.
    pub admin_id: i64,
    client: Client,
    redis_port: u16,
    database_url: String,
    env: BTreeMap<String, String>,
    _database: Option<Database>,
    folder: TempDir,
}

impl Stack {
    /// What a stack is made of: one process of each kind, but no worker, unless told otherwise.
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// One process of each kind, but no worker.
    pub async fn start() -> Self {
        Builder::default().start().await
    }

    /// A client of nginx with the administrator's key.
    pub fn client(&self) -> Client {
        self.client.clone()
    }

    /// The folder of the stack's files.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The URL of the database.
    pub fn database_url(&self) -> &str {
        &self.database_url
    }

    /// A connection to the database.
    pub async fn database(&self) -> PgConnection {
        PgConnection::connect(&self.database_url).await.expect("a connection to the database")
    }

    /// The port of Redis itself, behind the proxies.
    pub fn redis_port(&self) -> u16 {
        self.redis_port
    }

    /// Waits until every process is ready and nginx passes requests on.
    pub async fn ready(&self) {
        within(START_WITHIN, "every process ready", || async {
            for process in self.shorteners.iter().chain(&self.gateways).chain(&self.workers) {
                if !process.is_ready().await {
                    return false;
                }
            }
            self.client.get("/health").try_send().await.is_ok_and(|health| health.status == 200)
        })
        .await;
    }

    /// Makes a user with a key of these scopes; its id and a client with the key.
    pub async fn user(&self, name: &str, scopes: &[&str]) -> (i64, Client) {
        let email = format!("{name}@example.test");
        let body = serde_json::json!({"username": name, "email": email});
        let user = self.client.post("/api/v1/users", &body).send().await;
        assert_eq!(user.status, 201, "{}", user.text());
        let id = user.json()["id"].as_i64().expect("an id");
        let body = serde_json::json!({"name": "test", "scopes": scopes, "user_id": id});
        let key = self.client.post("/api/v1/api-keys", &body).send().await;
        assert_eq!(key.status, 201, "{}", key.text());
        let key = key.json()["key"].as_str().expect("a key").to_owned();
        (id, self.client.with_key(&key))
    }

    /// `GET /{code}` at one shortener's public listener, without nginx.
    pub async fn resolve_at(&self, shortener: usize, code: &str) -> (u16, Option<String>) {
        let socket = self.folder().join(format!("r{shortener}"));
        let answer = crate::client::get_unix(&socket, &format!("/{code}")).await;
        let answer = answer.expect("an answer of the public listener");
        (answer.status, answer.header("location").map(ToOwned::to_owned))
    }

    /// A shortener's metrics.
    pub async fn shortener_metrics(&self, number: usize) -> Metrics {
        self.shorteners[number].metrics().await
    }

    /// Look-ups in PostgreSQL, of all shorteners together.
    pub async fn database_lookups(&self) -> f64 {
        let mut sum = 0.0;
        for shortener in &self.shorteners {
            sum += shortener.metrics().await.sum("linnet_cache_lookups", &[("tier", "database")]);
        }
        sum
    }

    /// Runs `linnet-shortener` with this stack's settings; its exit code, standard output and error.
    pub async fn cli(&self, args: &[&str]) -> (i32, String, String) {
        run_with(&self.env, args).await
    }

    /// Stops PostgreSQL at once, as a crash would.
    pub async fn kill_postgres(&mut self) {
        self.postgres.as_mut().expect("Postgres::Own").kill().await;
    }

    /// Starts PostgreSQL again and waits until it answers.
    pub async fn start_postgres(&mut self) {
        let url = self.database_url.clone();
        let server = self.postgres.as_mut().expect("Postgres::Own");
        let end = Instant::now() + START_WITHIN;
        server.start();
        // After a crash the old backends may still hold the shared memory for a moment.
        while PgConnection::connect(&url).await.is_err() {
            assert!(Instant::now() < end, "PostgreSQL did not come back");
            if !server.is_running() {
                server.start();
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Starts Redis again and waits until it answers.
    pub async fn start_redis(&mut self) {
        self.redis.start();
        let port = self.redis_port;
        within(START_WITHIN, "Redis", || redis_answers(port)).await;
    }

    fn processes(&mut self) -> impl Iterator<Item = &mut Process> {
        std::iter::once(&mut self.nginx)
            .chain(&mut self.gateways)
            .chain(&mut self.shorteners)
            .chain(&mut self.workers)
            .chain(std::iter::once(&mut self.redis))
            .chain(&mut self.postgres)
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        let failed = std::thread::panicking();
        let mut panicked = Vec::new();
        for process in self.processes() {
            let state = if process.is_running() { "runs" } else { "has ended" };
            if failed {
                let tail = process.log_tail(40);
                eprintln!("--- {} ({state}), last lines of its log:\n{tail}", process.name());
            }
            if process.log().contains("panicked at") {
                panicked.push(process.name().to_owned());
            }
        }
        if std::env::var_os("LINNET_TEST_KEEP").is_some() {
            self.folder.disable_cleanup(true);
            eprintln!("--- kept: {}", self.folder.path().display());
        }
        // The front first and the stores last, each kind together.
        // Not gracefully: it would wait 10 s for the first request of a connection that a client opened
        // in reserve.
        self.nginx.signal(Signal::TERM);
        self.gateways.iter_mut().chain(&mut self.shorteners).for_each(Process::begin_end);
        let end = Instant::now() + Duration::from_secs(10);
        let mut killed = Vec::new();
        let mut finish = |process: &mut Process| {
            if process.finish_end(end) {
                killed.push(process.name().to_owned());
            }
        };
        self.gateways.iter_mut().chain(&mut self.shorteners).for_each(&mut finish);
        // After the shorteners, whose last work they may still take.
        self.workers.iter_mut().for_each(Process::begin_end);
        self.workers.iter_mut().for_each(&mut finish);
        finish(&mut self.nginx);
        let stores = std::iter::once(&mut self.redis).chain(&mut self.postgres);
        for process in stores {
            process.begin_end();
            process.finish_end(end);
        }
        if !failed {
            assert!(panicked.is_empty(), "these panicked, see above: {panicked:?}");
            assert!(killed.is_empty(), "these did not stop in time: {killed:?}");
        }
    }
}

async fn run(env: &BTreeMap<String, String>, args: &[&str]) -> String {
    let (status, out, error) = run_with(env, args).await;
    assert_eq!(status, 0, "linnet-shortener {args:?}: {out}{error}");
    out
}

async fn run_with(env: &BTreeMap<String, String>, args: &[&str]) -> (i32, String, String) {
    let mut command = tokio::process::Command::new(binary("linnet-shortener"));
    for (name, _) in std::env::vars_os() {
        if name.to_str().is_some_and(|name| name.starts_with("LINNET_")) {
            command.env_remove(&name);
        }
    }
    command.args(args).envs(env).stdin(Stdio::null()).kill_on_drop(true);
    let output = tokio::time::timeout(Duration::from_secs(60), command.output()).await;
    let output = output.expect("an end within a minute").expect("the program runs");
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    (output.status.code().unwrap_or(-1), text(output.stdout), text(output.stderr))
}

/// What `linnet-stack` prints about a running stack.
pub fn describe(stack: &Stack) -> Value {
    serde_json::json!({
        "address": format!("http://{}", stack.client.address()),
        "admin_key": stack.admin_key,
        "admin_id": stack.admin_id,
        "database_url": stack.database_url,
        "redis_url": format!("redis://127.0.0.1:{}/0", stack.redis_port),
        "folder": stack.folder().display().to_string(),
    })
}
