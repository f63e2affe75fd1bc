//! All processes of one installation.

use std::{
    collections::BTreeMap,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Stdio,
    time::{Duration, Instant},
};

use serde_json::Value;
use sqlx::{Connection, PgConnection};
use tempfile::TempDir;

use crate::{
    client::Client,
    metrics::Metrics,
    process::{Process, Signal, Spec},
    redis_proxy::RedisProxy,
    services::{self, Database, binary, free_port, local, path_text},
    wait::within,
};

/// The origin of short URLs in tests. Nothing listens there: it only appears in answers.
pub const BASE_URL: &str = "http://lnt.test";

const START_WITHIN: Duration = Duration::from_secs(30);
const STARTS: usize = 5;
/// Waits that are longer here than in the product, see [`Builder::default`].
const PATIENCE: [&str; 4] = [
    "LINNET__POSTGRES__ACQUIRE_TIMEOUT_MS",
    "LINNET__POSTGRES__LOCK_TIMEOUT_MS",
    "LINNET__POSTGRES__STATEMENT_TIMEOUT_MS",
    "LINNET__RESOLVE__DATABASE_TIMEOUT_MS",
];

/// Where the database is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Postgres {
    /// In the server of `DATABASE_URL`, or in an own one when that is not set.
    #[default]
    Shared,
    /// In an own server, which the test may stop.
    Own,
}

/// What a stack is made of.
#[derive(Debug, Clone)]
pub struct Builder {
    shorteners: usize,
    gateways: usize,
    postgres: Postgres,
    proxied_redis: bool,
    import: Option<PathBuf>,
    env: BTreeMap<String, String>,
    nginx_env: BTreeMap<String, String>,
}

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
    /// Redis.
    pub redis: Process,
    /// PostgreSQL, when it is the stack's own.
    pub postgres: Option<Process>,
    /// With [`Builder::proxied_redis`]: what stands between Redis and each shortener.
    pub shortener_redis: Vec<RedisProxy>,
    /// With [`Builder::proxied_redis`]: what stands between Redis and each gateway.
    pub gateway_redis: Vec<RedisProxy>,
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

impl Default for Builder {
    fn default() -> Self {
        let env = [
            ("LINNET__PUBLIC__BASE_URL", BASE_URL),
            ("LINNET__SERVICE__TOKEN", "system-tests-0123456789abcdef0123456789"),
            ("LINNET__SHORTENER__WORKERS", "2"),
            ("LINNET__GATEWAY__WORKERS", "2"),
            // Tests of limits set their own; the others are not to meet any.
            ("LINNET__LIMITS__KEY_PER_MINUTE", "60000000"),
            ("LINNET__LIMITS__KEY_BURST", "1000000"),
            ("LINNET__LIMITS__ADDRESS_PER_MINUTE", "60000000"),
            ("LINNET__LIMITS__ADDRESS_BURST", "1000000"),
            ("LINNET__RESOLVE__MISSES_PER_MINUTE", "60000000"),
            ("LINNET__RESOLVE__MISSES_BURST", "1000000"),
            // Many stacks share one server.
            ("LINNET__POSTGRES__MAX_CONNECTIONS", "16"),
            // Unoptimised processes, several stacks at once, two cores: waits that the product would
            // rightly give up are allowed to end. Tests of faults keep the product's own.
            ("LINNET__POSTGRES__ACQUIRE_TIMEOUT_MS", "4000"),
            ("LINNET__POSTGRES__LOCK_TIMEOUT_MS", "4000"),
            ("LINNET__POSTGRES__STATEMENT_TIMEOUT_MS", "4000"),
            ("LINNET__RESOLVE__DATABASE_TIMEOUT_MS", "4500"),
            // Tests of stopping set the real one.
            ("LINNET__SHUTDOWN__DRAIN_MS", "100"),
            ("LINNET__SHUTDOWN__GRACE_S", "5"),
            ("LINNET__TELEMETRY__LOG_LEVEL", "info"),
        ];
        Self {
            shorteners: 1,
            gateways: 1,
            postgres: Postgres::Shared,
            proxied_redis: false,
            import: None,
            env: env.into_iter().map(|(k, v)| (k.to_owned(), v.to_owned())).collect(),
            nginx_env: BTreeMap::new(),
        }
    }
}

impl Builder {
    /// How many shorteners.
    #[must_use]
    pub fn shorteners(mut self, count: usize) -> Self {
        self.shorteners = count;
        self
    }

    /// How many gateways.
    #[must_use]
    pub fn gateways(mut self, count: usize) -> Self {
        self.gateways = count;
        self
    }

    /// Where the database is. With one of its own the product's own timeouts hold.
    #[must_use]
    pub fn postgres(mut self, postgres: Postgres) -> Self {
        self.postgres = postgres;
        if postgres == Postgres::Own {
            for wait in PATIENCE {
                self.env.remove(wait);
            }
        }
        self
    }

    /// Puts a proxy between Redis and each process, so that one alone can be cut off.
    #[must_use]
    pub fn proxied_redis(mut self) -> Self {
        self.proxied_redis = true;
        self
    }

    /// Imports `users.csv`, `urls.csv` and `events.csv` of a folder before anything else is made.
    #[must_use]
    pub fn import(mut self, folder: &Path) -> Self {
        self.import = Some(folder.to_owned());
        self
    }

    /// Sets a variable for shorteners and gateways.
    #[must_use]
    pub fn env(mut self, key: &str, value: impl ToString) -> Self {
        self.env.insert(key.into(), value.to_string());
        self
    }

    /// Sets a variable for nginx.
    #[must_use]
    pub fn nginx_env(mut self, key: &str, value: impl ToString) -> Self {
        self.nginx_env.insert(key.into(), value.to_string());
        self
    }

    /// Starts everything and waits until all is ready.
    pub async fn start(self) -> Stack {
        let folder = folder();
        let (postgres, database, database_url) = self.start_postgres(folder.path()).await;
        let mut env = self.env.clone();
        env.insert("LINNET__POSTGRES__URL".into(), database_url.clone());

        let (redis, redis_port) = start_redis(folder.path()).await;
        run(&env, &["migrate"]).await;
        if let Some(data) = &self.import {
            let file = |name: &str| path_text(&data.join(name));
            let (users, urls, events) = (file("users.csv"), file("urls.csv"), file("events.csv"));
            let files = ["--users", &users, "--urls", &urls, "--events", &events];
            run(&env, &[&["admin", "import"][..], &files].concat()).await;
        }
        let create_key =
            ["admin", "create-key", "--username", "root", "--email", "root@example.test"];
        let admin_key = run(&env, &create_key).await.trim().to_owned();

        let mut shortener_redis = Vec::new();
        let mut gateway_redis = Vec::new();
        let redis_url = |proxies: &mut Vec<RedisProxy>| {
            let port = if self.proxied_redis {
                proxies.push(RedisProxy::start(local(redis_port)));
                proxies.last().map_or(redis_port, RedisProxy::port)
            } else {
                redis_port
            };
            format!("redis://127.0.0.1:{port}/0")
        };
        let path = folder.path();
        let socket = |name: String| format!("unix:{}", path_text(&path.join(name)));
        let numbers = 0..self.shorteners;
        let resolve: Vec<_> = numbers.clone().map(|n| socket(format!("r{n}"))).collect();
        let api: Vec<_> = numbers.clone().map(|n| socket(format!("a{n}"))).collect();
        let listen: Vec<_> = (0..self.gateways).map(|n| socket(format!("g{n}"))).collect();
        env.insert("LINNET__UPSTREAM__SHORTENERS".into(), api.join(","));
        // For the command line; each process has its own below.
        env.insert("LINNET__REDIS__URL".into(), format!("redis://127.0.0.1:{redis_port}/0"));

        let shorteners: Vec<_> = numbers
            .map(|n| {
                let own = [
                    ("LINNET__SHORTENER__PUBLIC_LISTEN", resolve[n].clone()),
                    ("LINNET__SHORTENER__API_LISTEN", api[n].clone()),
                    ("LINNET__SHORTENER__ADMIN_LISTEN", socket(format!("sa{n}"))),
                    ("LINNET__REDIS__URL", redis_url(&mut shortener_redis)),
                ];
                let admin = path.join(format!("sa{n}"));
                spawn(path, "linnet-shortener", n, &env, &own, admin)
            })
            .collect();
        let gateways: Vec<_> = (0..self.gateways)
            .map(|n| {
                let own = [
                    ("LINNET__GATEWAY__LISTEN", listen[n].clone()),
                    ("LINNET__GATEWAY__ADMIN_LISTEN", socket(format!("ga{n}"))),
                    ("LINNET__REDIS__URL", redis_url(&mut gateway_redis)),
                ];
                let admin = path.join(format!("ga{n}"));
                spawn(path, "linnet-gateway", n, &env, &own, admin)
            })
            .collect();
        let (nginx, port) = start_nginx(path, &resolve, &listen, &self.nginx_env).await;

        let client = Client::new(local(port)).with_key(&admin_key);
        let mut stack = Stack {
            nginx,
            gateways,
            shorteners,
            redis,
            postgres,
            shortener_redis,
            gateway_redis,
            admin_key,
            admin_id: 0,
            client,
            redis_port,
            database_url,
            env,
            _database: database,
            folder,
        };
        stack.ready().await;
        let id = "SELECT user_id FROM api_keys ORDER BY created_at LIMIT 1";
        stack.admin_id = sqlx::query_scalar(id)
            .fetch_one(&mut stack.database().await)
            .await
            .expect("the administrator's id");
        stack
    }

    async fn start_postgres(&self, folder: &Path) -> (Option<Process>, Option<Database>, String) {
        match std::env::var("DATABASE_URL") {
            Ok(url) if self.postgres == Postgres::Shared => {
                let database = Database::create(&url).await;
                let url = database.url();
                (None, Some(database), url)
            }
            _ => {
                let (server, url) = start_own_postgres(folder).await;
                (Some(server), None, url)
            }
        }
    }
}

impl Stack {
    /// What a stack is made of: one process of each kind unless told otherwise.
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// One process of each kind.
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
            for process in self.shorteners.iter().chain(&self.gateways) {
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
        self.nginx.begin_end();
        self.gateways.iter_mut().chain(&mut self.shorteners).for_each(Process::begin_end);
        let end = Instant::now() + Duration::from_secs(10);
        let mut killed = Vec::new();
        let front = std::iter::once(&mut self.nginx).chain(&mut self.gateways);
        for process in front.chain(&mut self.shorteners) {
            if process.finish_end(end) {
                killed.push(process.name().to_owned());
            }
        }
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

/// A folder that servers of other users can reach, with a path short enough for unix sockets.
fn folder() -> TempDir {
    let parent = std::env::temp_dir();
    let parent = if parent.as_os_str().len() < 60 { parent } else { PathBuf::from("/tmp") };
    let folder = tempfile::Builder::new().prefix("lnt-").tempdir_in(parent).expect("a folder");
    std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o711))
        .expect("the folder's permissions");
    folder
}

fn spawn(
    folder: &Path,
    program: &str,
    number: usize,
    env: &BTreeMap<String, String>,
    own: &[(&str, String)],
    admin: PathBuf,
) -> Process {
    let name = format!("{program}-{number}");
    let mut env = env.clone();
    env.extend(own.iter().map(|(key, value)| ((*key).to_owned(), value.clone())));
    Process::spawn(Spec {
        log: folder.join(format!("{name}.log")),
        name,
        program: binary(program),
        args: vec!["serve".into()],
        env,
        stop_signal: Signal::TERM,
        admin: Some(admin),
    })
}

async fn redis_answers(port: u16) -> bool {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let ping = async {
        let mut stream = tokio::net::TcpStream::connect(local(port)).await.ok()?;
        stream.write_all(b"PING\r\n").await.ok()?;
        let mut reply = [0; 5];
        stream.read_exact(&mut reply).await.ok()?;
        (&reply == b"+PONG").then_some(())
    };
    tokio::time::timeout(Duration::from_secs(1), ping).await.ok().flatten().is_some()
}

/// Starts a server on a free port and waits for it; on another port when it ended instead.
macro_rules! on_free_port {
    ($what:literal, $start:expr, $answers:expr) => {{
        let mut started = None;
        'starts: for _ in 0..STARTS {
            let port = free_port();
            let mut process: Process = $start(port);
            let end = Instant::now() + START_WITHIN;
            while process.is_running() {
                if $answers(port).await {
                    // What answers may be another stack's server on the port that both chose.
                    if process.is_running() {
                        started = Some((process, port));
                        break 'starts;
                    }
                    break;
                }
                assert!(Instant::now() < end, "{} did not start:\n{}", $what, process.log_tail(20));
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
        started.unwrap_or_else(|| panic!("{} ended at each start", $what))
    }};
}

async fn start_redis(folder: &Path) -> (Process, u16) {
    on_free_port!("Redis", |port| services::redis(folder, port), redis_answers)
}

async fn start_own_postgres(folder: &Path) -> (Process, String) {
    let answers = |_| async {
        match services::postgres_url(folder) {
            Some(url) => PgConnection::connect(&url).await.is_ok(),
            None => false,
        }
    };
    let (server, _) = on_free_port!("PostgreSQL", |port| services::postgres(folder, port), answers);
    (server, services::postgres_url(folder).expect("the URL"))
}

async fn start_nginx(
    folder: &Path,
    resolve: &[String],
    gateways: &[String],
    env: &BTreeMap<String, String>,
) -> (Process, u16) {
    let start = |port| services::nginx(folder, port, resolve, gateways, env);
    on_free_port!("nginx", start, |port| async move {
        Client::new(local(port)).get("/metrics").try_send().await.is_ok()
    })
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
