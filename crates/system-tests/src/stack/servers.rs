//! Starts PostgreSQL, Redis and nginx on free ports.

use std::{
    collections::BTreeMap,
    path::Path,
    str::FromStr,
    time::{Duration, Instant},
};

use sqlx::{Connection, PgConnection, postgres::PgConnectOptions};

use crate::{
    client::Client,
    process::Process,
    services::{self, free_port, local},
};

use super::START_TIMEOUT;

const MAX_STARTS: usize = 5;
/// The variable of `scripts/service` for the folder with the server's certificate.
pub(super) const TLS_DIR: &str = "LINNET_TLS_DIR";
/// The variable of `scripts/service` for the port of a node's cluster bus.
pub(super) const CLUSTER_PORT: &str = "LINNET_REDIS_CLUSTER_PORT";

pub(super) async fn redis_responds(port: u16) -> bool {
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

/// Starts a server on a free port and waits until it responds. Tries another port if it ends first.
macro_rules! on_free_port {
    ($what:literal, $start:expr, $responds:expr) => {{
        let mut started = None;
        'starts: for _ in 0..MAX_STARTS {
            let port = free_port();
            let mut process: Process = $start(port);
            let end = Instant::now() + START_TIMEOUT;
            while process.is_running() {
                if $responds(port).await {
                    // Another stack's server may respond on a port that both chose.
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
        started.unwrap_or_else(|| panic!("{} ended at every start", $what))
    }};
}

/// Starts Redis, with a TLS port if `env` names the certificate, and as a node of a cluster if `env` has [`CLUSTER_PORT`].
/// Returns the ports without and with TLS.
pub(super) async fn start_redis(
    folder: &Path,
    env: &BTreeMap<String, String>,
) -> (Process, u16, Option<u16>) {
    let mut tls_port = None;
    let (redis, port) = on_free_port!(
        "Redis",
        |port| {
            let mut env = env.clone();
            if env.contains_key(TLS_DIR) {
                tls_port = Some(free_port());
                env.extend(tls_port.map(|port| ("LINNET_REDIS_TLS_PORT".into(), port.to_string())));
            }
            if let Some(bus) = env.get_mut(CLUSTER_PORT) {
                *bus = free_port().to_string();
            }
            services::redis(folder, port, &env)
        },
        redis_responds
    );
    (redis, port, tls_port)
}

pub(super) async fn start_own_postgres(
    folder: &Path,
    env: &BTreeMap<String, String>,
) -> (Process, String) {
    let responds = |_| async {
        match services::postgres_url(folder) {
            Some(url) => PgConnection::connect(&url).await.is_ok(),
            None => false,
        }
    };
    let (server, _) =
        on_free_port!("PostgreSQL", |port| services::postgres(folder, port, env), responds);
    (server, services::postgres_url(folder).expect("the URL"))
}

/// Whether the pooler at a port and the server behind it respond.
pub(super) async fn pooler_responds(port: u16) -> bool {
    let url = format!("postgres://linnet@127.0.0.1:{port}/linnet?sslmode=disable");
    let options = PgConnectOptions::from_str(&url).expect("a URL").extra_float_digits(None);
    let Ok(mut connection) = PgConnection::connect_with(&options).await else { return false };
    sqlx::raw_sql("SELECT 1").execute(&mut connection).await.is_ok()
}

/// Starts PgBouncer on a free port and waits until it and the server behind it respond.
pub(super) async fn start_pooler(start: impl Fn(u16) -> Process) -> (Process, u16) {
    on_free_port!("PgBouncer", start, pooler_responds)
}

pub(super) async fn start_nginx(
    folder: &Path,
    resolve: &[String],
    gateways: &[String],
    env: &BTreeMap<String, String>,
    memory_limit: Option<u64>,
) -> (Process, u16) {
    let start = |port| services::nginx(folder, port, resolve, gateways, env, memory_limit);
    on_free_port!("nginx", start, |port| async move {
        Client::new(local(port)).get("/metrics").try_send().await.is_ok()
    })
}
