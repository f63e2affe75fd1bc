//! One multiplexed Redis connection per runtime, and the circuit breaker around it.
//!
//! * The breaker is the connection itself: while there is none, a caller learns so from one atomic
//!   load and goes on without Redis. A broken connection opens it at once, as do
//!   [`TIMEOUTS_TO_OPEN`] unanswered commands in a row.
//! * A Redis that answers and refuses writes is away, too: what it holds can no longer be corrected.
//!   So a connection is tried by writing, before it is used and while it is.
//! * A task of the same runtime brings the connection back, with jittered back-off. A connection
//!   that is shared between actix workers would lose requests when the worker that made it stops.
//! * Before a new connection is used, `before_use` runs: whoever caches in Redis catches up there on
//!   what changed while Redis was away.

use std::{
    future::Future,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwapOption;
use rand::RngExt;
use redis::{
    Client, Cmd, ConnectionInfo, FromRedisValue, IntoConnectionInfo, Pipeline, RedisError,
    RedisResult,
    aio::{ConnectionLike, MultiplexedConnection},
    io::tcp::TcpSettings,
};
use secrecy::ExposeSecret;
use tokio::sync::Notify;

use crate::settings::RedisSettings;

/// Unanswered commands in a row that open the breaker.
pub const TIMEOUTS_TO_OPEN: u32 = 3;

const RECONNECT_FIRST: Duration = Duration::from_millis(50);
const RECONNECT_MAX: Duration = Duration::from_secs(1);
/// How often a connection is tried. With the time that the outbox takes to tell a change again, this
/// stays below the 1 s within which old answers must stop.
const PROBE_EVERY: Duration = Duration::from_millis(200);
/// Errors of a server that refuses writes: memory full, a replica, a failing disk, too few replicas.
const REFUSES_WRITES: [&str; 4] = ["OOM", "READONLY", "MISCONF", "NOREPLICAS"];

/// Why a command brought no answer.
#[derive(Debug, thiserror::Error)]
pub enum RedisAway {
    /// The breaker is open: nothing was sent.
    #[error("Redis is away")]
    Open,
    /// The command failed or timed out.
    #[error("a Redis command failed")]
    Failed(#[from] RedisError),
}

/// Runs before a fresh connection is used.
pub type BeforeUse = Arc<dyn Fn() -> Pin<Box<dyn Future<Output = ()> + Send>> + Send + Sync>;

/// A handle on the connection; clones share it.
#[derive(Clone)]
pub struct RedisClient(Arc<Shared>);

struct Shared {
    connection: ArcSwapOption<MultiplexedConnection>,
    timeouts: AtomicU32,
    lost: Notify,
}

impl RedisClient {
    /// A link and the task that keeps it connected. Spawn the task in the runtime that will use the
    /// link; it never ends.
    pub fn new(
        settings: &RedisSettings,
        before_use: Option<BeforeUse>,
    ) -> RedisResult<(Self, impl Future<Output = ()> + Send + 'static)> {
        let shared = Arc::new(Shared {
            connection: ArcSwapOption::empty(),
            timeouts: AtomicU32::new(0),
            lost: Notify::new(),
        });
        let connector = Connector {
            client: client(settings)?,
            connect_timeout: settings.connect_timeout(),
            response_timeout: settings.response_timeout(),
            before_use,
        };
        let task = keep_connected(connector, Arc::clone(&shared));
        Ok((Self(shared), task))
    }

    /// Whether the breaker is closed.
    pub fn is_up(&self) -> bool {
        self.0.connection.load().is_some()
    }

    /// Sends one command.
    pub async fn query<T: FromRedisValue>(&self, command: &Cmd) -> Result<T, RedisAway> {
        let mut connection = self.connection()?;
        let answer = command.query_async(&mut connection).await;
        self.judge(answer)
    }

    /// Sends several commands in one write.
    pub async fn pipeline<T: FromRedisValue>(&self, pipeline: &Pipeline) -> Result<T, RedisAway> {
        let mut connection = self.connection()?;
        let answer = pipeline.query_async(&mut connection).await;
        self.judge(answer)
    }

    /// Runs a script by its hash; loads it when Redis does not know it.
    pub async fn script<T: FromRedisValue>(
        &self,
        invocation: &redis::ScriptInvocation<'_>,
    ) -> Result<T, RedisAway> {
        let mut connection = self.connection()?;
        let answer = invocation.invoke_async(&mut connection).await;
        self.judge(answer)
    }

    fn connection(&self) -> Result<MultiplexedConnection, RedisAway> {
        self.0.connection.load().as_deref().cloned().ok_or(RedisAway::Open)
    }

    fn judge<T>(&self, answer: RedisResult<T>) -> Result<T, RedisAway> {
        match answer {
            Ok(value) => {
                // Loaded first: the common case must not write to a line that workers share.
                if self.0.timeouts.load(Ordering::Relaxed) != 0 {
                    self.0.timeouts.store(0, Ordering::Relaxed);
                }
                Ok(value)
            }
            Err(error) => {
                let open = if error.is_timeout() {
                    self.0.timeouts.fetch_add(1, Ordering::Relaxed) + 1 >= TIMEOUTS_TO_OPEN
                } else {
                    error.is_unrecoverable_error()
                        || error.code().is_some_and(|code| REFUSES_WRITES.contains(&code))
                };
                if open {
                    self.0.open();
                }
                Err(error.into())
            }
        }
    }
}

impl Shared {
    fn open(&self) {
        if self.connection.swap(None).is_some() {
            tracing::warn!("Redis is away: going on without it");
            self.lost.notify_one();
        }
    }
}

/// A client with `TCP_NODELAY`: the default waits for more to send.
pub fn client(settings: &RedisSettings) -> RedisResult<Client> {
    let info: ConnectionInfo = settings.url.expose_secret().into_connection_info()?;
    Client::open(info.set_tcp_settings(TcpSettings::default().set_nodelay(true)))
}

struct Connector {
    client: Client,
    connect_timeout: Duration,
    response_timeout: Duration,
    before_use: Option<BeforeUse>,
}

impl Connector {
    async fn connect(&self) -> RedisResult<MultiplexedConnection> {
        let config = redis::AsyncConnectionConfig::new()
            .set_connection_timeout(Some(self.connect_timeout))
            .set_response_timeout(Some(self.response_timeout));
        let mut connection =
            self.client.get_multiplexed_async_connection_with_config(&config).await?;
        // A server that is still loading its data accepts connections and refuses commands.
        connection.req_packed_command(&probe()).await?.extract_error()?;
        Ok(connection)
    }
}

async fn keep_connected(connector: Connector, shared: Arc<Shared>) {
    let mut backoff = RECONNECT_FIRST;
    let mut failing = false;
    loop {
        match connector.connect().await {
            Err(error) => {
                if !failing {
                    tracing::warn!(%error, "cannot reach Redis: trying on");
                    failing = true;
                }
                tokio::time::sleep(jittered(backoff)).await;
                backoff = (backoff * 2).min(RECONNECT_MAX);
            }
            Ok(connection) => {
                if let Some(before_use) = &connector.before_use {
                    before_use().await;
                }
                shared.timeouts.store(0, Ordering::Relaxed);
                shared.connection.store(Some(Arc::new(connection)));
                if failing {
                    tracing::info!("Redis is back");
                }
                backoff = RECONNECT_FIRST;
                watch(&shared).await;
                failing = true;
            }
        }
    }
}

/// A write that leaves nothing behind for long.
fn probe() -> Cmd {
    let mut probe = redis::cmd("SET");
    probe.arg("linnet:probe").arg(1).arg("PX").arg(2_000);
    probe
}

/// Returns when the connection is lost.
async fn watch(shared: &Arc<Shared>) {
    let link = RedisClient(Arc::clone(shared));
    let probe = probe();
    loop {
        let lost = shared.lost.notified();
        match tokio::time::timeout(PROBE_EVERY, lost).await {
            Ok(()) => return,
            Err(_) => {
                // The verdict is in the link's state.
                let _: Result<redis::Value, _> = link.query(&probe).await;
                if !link.is_up() {
                    return;
                }
            }
        }
    }
}

/// Between half the time and all of it, so that processes do not come back in step.
pub fn jittered(base: Duration) -> Duration {
    base.mul_f64(rand::rng().random_range(0.5..=1.0))
}
