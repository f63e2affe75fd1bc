//! Runs all processes of one installation.

mod builder;
mod containers;
mod disks;
mod folder;
mod https;
mod kind;
mod layout;
mod pooler;
pub mod postgres_group;
pub mod redis_cluster;
pub mod redis_group;
mod redis_servers;
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
    certificates::Certificates,
    client::Client,
    expected::metric,
    metrics::Metrics,
    process::{Process, Signal},
    redis_proxy::RedisProxy,
    services::{Database, binary},
    wait::within,
};

pub use builder::{BASE_URL, Builder};
pub use containers::{
    CONTAINER_LIMITS, CONTAINER_NGINX, CONTAINER_NGINX_TLS, CONTAINER_SETTINGS, MemoryLimits,
};
pub use folder::short_folder;
pub use https::HttpsServer;
pub use layout::Postgres;
pub use pooler::Pooler;
pub use postgres_group::PostgresGroup;
pub use redis_cluster::RedisCluster;
pub use redis_group::RedisGroup;
use servers::redis_responds;

const START_TIMEOUT: Duration = Duration::from_secs(30);

/// A running installation. Dropping it stops all processes and deletes its folder, unless
/// `LINNET_TEST_KEEP` is set.
#[derive(Debug)]
pub struct Stack {
    // The fields are dropped in this order, after `Drop::drop` has stopped the processes.
    /// nginx, which accepts all public requests.
    pub nginx: Process,
    /// The gateways.
    pub gateways: Vec<Process>,
    /// The shorteners.
    pub shorteners: Vec<Process>,
    /// The workers.
    pub workers: Vec<Process>,
    /// Redis; with [`Builder::sentinels`] the first master, with [`Builder::redis_cluster`] the first node.
    pub redis: Process,
    /// With [`Builder::sentinels`]: the replicas and the sentinels.
    pub redis_group: Option<RedisGroup>,
    /// With [`Builder::redis_cluster`]: the other nodes.
    pub redis_cluster: Option<RedisCluster>,
    /// PostgreSQL, with [`Postgres::Own`] or without `DATABASE_URL`.
    pub postgres: Option<Process>,
    /// With [`Builder::standbys`]: the standbys, and the proxies of all servers.
    pub postgres_group: Option<PostgresGroup>,
    /// With [`Builder::pooler`].
    pooler: Option<Pooler>,
    /// With [`Builder::proxied_redis`]: the proxy between each shortener and Redis.
    pub shortener_redis: Vec<RedisProxy>,
    /// With [`Builder::proxied_redis`]: the proxy between each gateway and Redis.
    pub gateway_redis: Vec<RedisProxy>,
    /// With [`Builder::proxied_redis`]: the proxy between each worker and Redis.
    pub worker_redis: Vec<RedisProxy>,
    /// An API key with the scope `admin`.
    pub admin_key: String,
    /// The id of that key's user.
    pub admin_id: i64,
    client: Client,
    redis_port: u16,
    /// With [`Builder::tls`].
    tls: Option<Certificates>,
    database_url: String,
    env: BTreeMap<String, String>,
    _database: Option<Database>,
    folder: TempDir,
}

impl Stack {
    /// Configures a stack. The default is one process of each kind, but no worker.
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// Starts one process of each kind, but no worker.
    pub async fn start() -> Self {
        Builder::default().start().await
    }

    /// A client that sends requests through nginx with [`Self::admin_key`].
    pub fn client(&self) -> Client {
        self.client.clone()
    }

    /// The folder with the stack's files.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The URL of the database.
    pub fn database_url(&self) -> &str {
        &self.database_url
    }

    /// Connects to the database.
    pub async fn database(&self) -> PgConnection {
        PgConnection::connect(&self.database_url).await.expect("a connection to the database")
    }

    /// The port of Redis, not of a proxy in front of it.
    pub fn redis_port(&self) -> u16 {
        self.redis_port
    }

    /// The URL of Redis for a role of `scripts/redis-acl.sh`.
    pub fn redis_url(&self, role: &str) -> String {
        kind::RedisAt::server("redis", self.redis_port).url(self.folder(), role)
    }

    /// With [`Builder::tls`]: the certificates of PostgreSQL and Redis.
    pub fn certificates(&self) -> &Certificates {
        self.tls.as_ref().expect("Builder::tls")
    }

    /// The variables of all processes.
    pub fn env(&self) -> &BTreeMap<String, String> {
        &self.env
    }

    /// Waits until every process is ready and nginx forwards requests.
    pub async fn wait_until_ready(&self) {
        within(START_TIMEOUT, "every process to be ready", || async {
            for process in self.shorteners.iter().chain(&self.gateways).chain(&self.workers) {
                if !process.is_ready().await {
                    return false;
                }
            }
            self.client.get("/health").try_send().await.is_ok_and(|health| health.status == 200)
        })
        .await;
    }

    /// Creates a user and a key with these scopes. Returns the user's id and a client with the key.
    pub async fn create_user(&self, name: &str, scopes: &[&str]) -> (i64, Client) {
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

    /// Sends `GET /{code}` to one shortener's resolve listener, without nginx.
    pub async fn resolve_at(&self, shortener: usize, code: &str) -> (u16, Option<String>) {
        let socket = self.folder().join(format!("r{shortener}"));
        let response = crate::client::get_unix(&socket, &format!("/{code}")).await;
        let response = response.expect("a response of the resolve listener");
        (response.status, response.header("location").map(ToOwned::to_owned))
    }

    /// The metrics of one shortener.
    pub async fn shortener_metrics(&self, number: usize) -> Metrics {
        self.shorteners[number].metrics().await
    }

    /// The number of lookups in PostgreSQL by all shorteners.
    pub async fn database_lookups(&self) -> f64 {
        let mut sum = 0.0;
        for shortener in &self.shorteners {
            sum += shortener.metrics().await.sum(metric::CACHE_LOOKUPS, &[("tier", "database")]);
        }
        sum
    }

    /// Runs `linnet-shortener` with this stack's settings. Returns the exit code, standard output and
    /// standard error.
    pub async fn cli(&self, args: &[&str]) -> (i32, String, String) {
        run_with(&self.env, args).await
    }

    /// The same as [`Self::cli`], in a task of its own.
    pub fn spawn_cli(&self, args: &[&str]) -> tokio::task::JoinHandle<(i32, String, String)> {
        let args: Vec<String> = args.iter().map(|&argument| argument.to_owned()).collect();
        let env = self.env.clone();
        tokio::spawn(async move {
            let args: Vec<&str> = args.iter().map(String::as_str).collect();
            run_with(&env, &args).await
        })
    }

    /// The same as [`Self::cli`], with other values of some variables.
    pub async fn cli_with(&self, env: &[(&str, &str)], args: &[&str]) -> (i32, String, String) {
        let mut all = self.env.clone();
        all.extend(env.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())));
        run_with(&all, args).await
    }

    /// Kills PostgreSQL, like a crash.
    pub async fn kill_postgres(&mut self) {
        self.postgres.as_mut().expect("Postgres::Own").kill().await;
    }

    /// Starts PostgreSQL again and waits until it accepts connections.
    pub async fn start_postgres(&mut self) {
        let url = self.database_url.clone();
        let server = self.postgres.as_mut().expect("Postgres::Own");
        let end = Instant::now() + START_TIMEOUT;
        server.start();
        // After a crash, the old backends may still hold the shared memory for a moment.
        while PgConnection::connect(&url).await.is_err() {
            assert!(Instant::now() < end, "PostgreSQL did not restart");
            if !server.is_running() {
                server.start();
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Leaves the folder with all logs and data, and prints its path.
    pub fn keep_folder(&mut self) {
        self.folder.disable_cleanup(true);
        eprintln!("--- kept: {}", self.folder.path().display());
    }

    /// Starts Redis again and waits until it responds.
    pub async fn start_redis(&mut self) {
        self.redis.start();
        let port = self.redis_port;
        within(START_TIMEOUT, "Redis to respond", || redis_responds(port)).await;
    }

    fn processes(&mut self) -> impl Iterator<Item = &mut Process> {
        std::iter::once(&mut self.nginx)
            .chain(&mut self.gateways)
            .chain(&mut self.shorteners)
            .chain(&mut self.workers)
            .chain(self.redis_group.iter_mut().flat_map(RedisGroup::processes))
            .chain(self.redis_cluster.iter_mut().flat_map(RedisCluster::processes))
            .chain(std::iter::once(&mut self.redis))
            .chain(self.pooler.iter_mut().map(|pooler| &mut pooler.process))
            .chain(self.postgres_group.iter_mut().flat_map(PostgresGroup::processes))
            .chain(&mut self.postgres)
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        let failed = std::thread::panicking();
        let mut panicked = Vec::new();
        for process in self.processes() {
            let state = if process.is_running() { "running" } else { "ended" };
            if failed {
                let tail = process.log_tail(40);
                eprintln!("--- {} ({state}), last lines of its log:\n{tail}", process.name());
            }
            if process.log().contains("panicked at") {
                panicked.push(process.name().to_owned());
            }
        }
        if std::env::var_os("LINNET_TEST_KEEP").is_some() {
            self.keep_folder();
        }
        // nginx stops first and the stores last, each kind together. A graceful stop of nginx would
        // wait 10 s for the first request on a connection that a client opened in advance.
        self.nginx.signal(Signal::TERM);
        self.gateways.iter_mut().chain(&mut self.shorteners).for_each(Process::begin_stop);
        let end = Instant::now() + Duration::from_secs(10);
        let mut killed = Vec::new();
        let mut finish = |process: &mut Process| {
            if process.finish_stop(end) {
                killed.push(process.name().to_owned());
            }
        };
        self.gateways.iter_mut().chain(&mut self.shorteners).for_each(&mut finish);
        // Workers stop after the shorteners, because they may still process the last batches.
        self.workers.iter_mut().for_each(Process::begin_stop);
        self.workers.iter_mut().for_each(&mut finish);
        finish(&mut self.nginx);
        // Sentinels first, so that they begin no failover.
        let group = self.redis_group.iter_mut().flat_map(RedisGroup::processes);
        let nodes = self.redis_cluster.iter_mut().flat_map(RedisCluster::processes);
        // The primary stops after its standbys, for which its end would wait.
        let standbys = self.postgres_group.iter_mut().flat_map(PostgresGroup::processes);
        let pooler = self.pooler.iter_mut().map(|pooler| &mut pooler.process);
        let stores = group
            .chain(nodes)
            .chain(std::iter::once(&mut self.redis))
            .chain(pooler)
            .chain(standbys)
            .chain(&mut self.postgres);
        for process in stores {
            process.begin_stop();
            process.finish_stop(end);
        }
        if !failed {
            assert!(
                panicked.is_empty(),
                "processes that panicked (see their logs above): {panicked:?}"
            );
            assert!(killed.is_empty(), "processes that did not stop in time: {killed:?}");
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
    let output = tokio::time::timeout(Duration::from_secs(120), command.output()).await;
    let output = output.expect("an exit within two minutes").expect("a started program");
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    (output.status.code().unwrap_or(-1), text(output.stdout), text(output.stderr))
}

/// The addresses and credentials of a running stack, which `linnet-stack` prints.
pub fn describe(stack: &Stack) -> Value {
    serde_json::json!({
        "address": format!("http://{}", stack.client.address()),
        "admin_key": stack.admin_key,
        "admin_id": stack.admin_id,
        "database_url": stack.database_url,
        "redis_url": kind::open_redis_url(stack.redis_port),
        "folder": stack.folder().display().to_string(),
    })
}
