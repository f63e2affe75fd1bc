//! Starts PostgreSQL, Redis and nginx with `scripts/service`, and finds binaries and ports.

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::{Path, PathBuf},
};

use rand::RngExt;
use sqlx::{Connection, PgConnection};

use crate::process::{Process, Signal, Spec};

/// The root folder of the workspace.
pub fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().expect("the workspace")
}

/// The path of a built binary: in `LINNET_BIN_DIR`, or in the folder where this program was built.
pub fn binary(name: &str) -> PathBuf {
    let folder = std::env::var_os("LINNET_BIN_DIR").map_or_else(
        || {
            let this = std::env::current_exe().expect("this program's path");
            let folder = this.parent().expect("a folder");
            if folder.ends_with("deps") { folder.parent().expect("a folder") } else { folder }
                .to_path_buf()
        },
        PathBuf::from,
    );
    let path = folder.join(name);
    assert!(
        path.exists(),
        "{} is missing: run `cargo build -p linnet-shortener -p linnet-gateway`",
        path.display()
    );
    path
}

/// The folder with the sample data set, if `LINNET_SAMPLE_DATA` names one.
pub fn sample_data() -> Option<PathBuf> {
    let folder = PathBuf::from(std::env::var_os("LINNET_SAMPLE_DATA")?);
    assert!(folder.join("urls.csv").exists(), "LINNET_SAMPLE_DATA: no urls.csv");
    Some(folder)
}

/// A port that is free now, below the range of outgoing connections. Another process may still take
/// it first; a server that fails to bind is started again on another port.
pub fn free_port() -> u16 {
    loop {
        let port = rand::rng().random_range(10_000..32_000);
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return port;
        }
    }
}

/// A socket address on 127.0.0.1.
pub fn local(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}

/// 16 random hexadecimal digits for unique names.
pub fn nonce() -> String {
    format!("{:016x}", rand::rng().random::<u64>())
}

fn service(
    name: &str,
    args: Vec<String>,
    env: BTreeMap<String, String>,
    stop_signal: Signal,
    log: PathBuf,
    memory_limit: Option<u64>,
) -> Process {
    Process::spawn(Spec {
        name: name.to_owned(),
        program: workspace().join("scripts/service"),
        args,
        env,
        stop_signal,
        log,
        admin: None,
        memory_limit,
    })
}

/// Starts a Redis with its files in `folder`. Besides the users of `scripts/redis-acl.sh` it accepts clients without a
/// password, which are the tests themselves.
pub fn redis(folder: &Path, port: u16, env: &BTreeMap<String, String>) -> Process {
    let home = folder.join("redis");
    let args = vec!["redis".into(), path_text(&home), port.to_string()];
    let mut all = BTreeMap::from([
        ("LINNET_REDIS_MAXMEMORY".to_owned(), "128mb".to_owned()),
        ("LINNET_REDIS_OPEN".to_owned(), "1".to_owned()),
    ]);
    all.extend(env.clone());
    service("redis", args, all, Signal::TERM, folder.join("redis.log"), None)
}

/// Starts a PostgreSQL with its files in `folder`.
pub fn postgres(folder: &Path, port: u16, more: &BTreeMap<String, String>) -> Process {
    let home = folder.join("postgres");
    let args = vec!["postgres".into(), path_text(&home), port.to_string()];
    let mut env = BTreeMap::from([
        ("LINNET_PG_UNSAFE".into(), "1".into()),
        ("LINNET_PG_SHARED_BUFFERS".into(), "32MB".into()),
        // Tests kill it and expect every acknowledged commit afterwards.
        ("LINNET_PG_OPTIONS".into(), "synchronous_commit=on full_page_writes=on".into()),
    ]);
    env.extend(more.clone());
    // `SIGINT` ends open sessions; `SIGTERM` would wait for them.
    service("postgres", args, env, Signal::INT, folder.join("postgres.log"), None)
}

/// The URL that a PostgreSQL of [`postgres`] writes to its folder; `None` until then.
pub fn postgres_url(folder: &Path) -> Option<String> {
    let url = std::fs::read_to_string(folder.join("postgres/url")).ok()?;
    Some(url.trim().to_owned())
}

/// Starts nginx with its files in `folder`, in front of these resolve listeners and gateways, with at most
/// `memory_limit` bytes.
pub fn nginx(
    folder: &Path,
    port: u16,
    resolve: &[String],
    gateways: &[String],
    env: &BTreeMap<String, String>,
    memory_limit: Option<u64>,
) -> Process {
    let mut all = BTreeMap::from([
        ("LINNET_NGINX_RESOLVE".to_owned(), resolve.join(",")),
        ("LINNET_NGINX_GATEWAY".to_owned(), gateways.join(",")),
        ("LINNET_NGINX_LISTEN".to_owned(), format!("127.0.0.1:{port}")),
        // With `reuseport` two stacks could take the same port and share its connections.
        ("LINNET_NGINX_LISTEN_OPTIONS".to_owned(), "deferred backlog=4096".to_owned()),
        ("LINNET_NGINX_RESOLVE_LOG_SAMPLE".to_owned(), "100%".to_owned()),
        ("LINNET_NGINX_ERROR_LEVEL".to_owned(), "error".to_owned()),
    ]);
    all.extend(env.clone());
    let args = vec!["nginx".into(), path_text(&folder.join("nginx"))];
    service("nginx", args, all, Signal::QUIT, folder.join("nginx.log"), memory_limit)
}

/// A new database in a running server; dropping it deletes the database.
#[derive(Debug)]
pub struct Database {
    server: String,
    name: String,
}

impl Database {
    /// Creates an empty database in the server of `url`.
    pub async fn create(url: &str) -> Self {
        let name = format!("linnet_system_{}", nonce());
        let mut connection = PgConnection::connect(url).await.expect("a connection to PostgreSQL");
        // Safe: the name consists of letters, digits and underscores.
        sqlx::raw_sql(sqlx::AssertSqlSafe(format!("CREATE DATABASE {name}")))
            .execute(&mut connection)
            .await
            .expect("a new database");
        Self { server: url.to_owned(), name }
    }

    /// The URL of the database.
    pub fn url(&self) -> String {
        let mut url = url::Url::parse(&self.server).expect("a URL");
        url.set_path(&self.name);
        url.into()
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        let (server, name) = (self.server.clone(), self.name.clone());
        // The caller's runtime cannot be blocked, so a thread runs another one.
        let dropped = std::thread::spawn(move || {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().ok()?;
            runtime.block_on(async {
                let mut connection = PgConnection::connect(&server).await.ok()?;
                let sql = format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)");
                sqlx::raw_sql(sqlx::AssertSqlSafe(sql)).execute(&mut connection).await.ok()
            })
        });
        // A failure is harmless: the server is deleted later with all its databases.
        let _ = dropped.join();
    }
}

/// A path as text. Paths of tests are valid UTF-8.
pub fn path_text(path: &Path) -> String {
    path.to_str().expect("a textual path").to_owned()
}
