//! A multiplexed Redis connection for one runtime, with its circuit breaker.
//!
//! Invariants:
//! - The circuit breaker is open while there is no connection: a command fails after one atomic load, without I/O. A broken
//!   connection opens the breaker at once, and so do [`TIMEOUTS_TO_OPEN`] timeouts in a row.
//! - Redis that responds but refuses writes counts as unavailable, because its entries can no longer be corrected. A
//!   connection is therefore probed with a write, before its first use and every [`PROBE_EVERY`].
//! - A task of the same runtime reconnects, with jittered backoff. A connection that server threads shared would lose
//!   requests when the thread that opened it stops.
//! - The `before_use` hook runs before each new connection is used. It applies the changes that Redis
//!   missed to the cache in Redis.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwapOption;
use redis::{
    Client, Cmd, FromRedisValue, Pipeline, RedisError, RedisResult,
    aio::{ConnectionLike as _, MultiplexedConnection},
};
use tokio::sync::Notify;

use crate::{
    backoff::Backoff,
    redis_connection::{client, open},
    settings::RedisSettings,
};

/// Timeouts in a row that open the breaker.
pub const TIMEOUTS_TO_OPEN: u32 = 3;

const RECONNECT_FIRST: Duration = Duration::from_millis(50);
const RECONNECT_LONGEST: Duration = Duration::from_secs(1);
/// Time between two probes. Together with the delay of the outbox it stays below 1 s, the limit for stale responses.
pub const PROBE_EVERY: Duration = Duration::from_millis(200);
/// Errors of a server that refuses writes: memory full, a replica, a failing disk, too few replicas.
const WRITE_REFUSALS: [&str; 4] = ["OOM", "READONLY", "MISCONF", "NOREPLICAS"];

/// Why a command has no response.
#[derive(Debug, thiserror::Error)]
pub enum RedisUnavailable {
    /// The circuit breaker is open; nothing was sent.
    #[error("the Redis circuit breaker is open")]
    CircuitOpen,
    /// The command failed or timed out.
    #[error("a Redis command failed")]
    CommandFailed(#[from] RedisError),
}

/// Runs before a new connection is used.
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
    /// Returns a client, and the task that keeps it connected. Spawn the task in the runtime that uses the client; it never
    /// ends.
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

    /// Whether the circuit breaker is closed.
    pub fn is_up(&self) -> bool {
        self.0.connection.load().is_some()
    }

    /// Sends one command.
    pub async fn query<T: FromRedisValue>(&self, command: &Cmd) -> Result<T, RedisUnavailable> {
        let mut connection = self.connection()?;
        let response = command.query_async(&mut connection).await;
        self.record(response)
    }

    /// Sends several commands in one write.
    pub async fn pipeline<T: FromRedisValue>(
        &self,
        pipeline: &Pipeline,
    ) -> Result<T, RedisUnavailable> {
        let mut connection = self.connection()?;
        let response = pipeline.query_async(&mut connection).await;
        self.record(response)
    }

    /// Runs a script by its hash, and loads it when Redis does not have it.
    pub async fn script<T: FromRedisValue>(
        &self,
        invocation: &redis::ScriptInvocation<'_>,
    ) -> Result<T, RedisUnavailable> {
        let mut connection = self.connection()?;
        let response = invocation.invoke_async(&mut connection).await;
        self.record(response)
    }

    fn connection(&self) -> Result<MultiplexedConnection, RedisUnavailable> {
        self.0.connection.load().as_deref().cloned().ok_or(RedisUnavailable::CircuitOpen)
    }

    /// Updates the circuit breaker from a command's result.
    fn record<T>(&self, response: RedisResult<T>) -> Result<T, RedisUnavailable> {
        match response {
            Ok(value) => {
                // Loaded first: the common case must not write to a cache line that threads share.
                if self.0.timeouts.load(Ordering::Relaxed) != 0 {
                    self.0.timeouts.store(0, Ordering::Relaxed);
                }
                Ok(value)
            }
            Err(error) => {
                let opens = if error.is_timeout() {
                    self.0.timeouts.fetch_add(1, Ordering::Relaxed) + 1 >= TIMEOUTS_TO_OPEN
                } else {
                    error.is_unrecoverable_error()
                        || error.code().is_some_and(|code| WRITE_REFUSALS.contains(&code))
                };
                if opens {
                    self.0.open_breaker(&error);
                }
                Err(error.into())
            }
        }
    }
}

impl Shared {
    fn open_breaker(&self, error: &RedisError) {
        if self.connection.swap(None).is_some() {
            tracing::warn!(%error, "Redis circuit breaker opened");
            self.lost.notify_one();
        }
    }
}

struct Connector {
    client: Client,
    connect_timeout: Duration,
    response_timeout: Duration,
    before_use: Option<BeforeUse>,
}

impl Connector {
    async fn connect(&self) -> RedisResult<MultiplexedConnection> {
        let mut connection =
            open(&self.client, self.connect_timeout, self.response_timeout).await?;
        // A server that is still loading its data accepts connections and refuses commands.
        connection.req_packed_command(&probe()).await?.extract_error()?;
        Ok(connection)
    }
}

async fn keep_connected(connector: Connector, shared: Arc<Shared>) {
    let mut backoff = Backoff::new(RECONNECT_FIRST, RECONNECT_LONGEST);
    let mut is_failing = false;
    loop {
        match connector.connect().await {
            Err(error) => {
                if !is_failing {
                    tracing::warn!(%error, "Redis unreachable; retrying");
                    is_failing = true;
                }
                backoff.wait().await;
            }
            Ok(connection) => {
                if let Some(before_use) = &connector.before_use {
                    before_use().await;
                }
                shared.timeouts.store(0, Ordering::Relaxed);
                shared.connection.store(Some(Arc::new(connection)));
                if is_failing {
                    tracing::info!("Redis reconnected");
                }
                backoff.reset();
                watch(&shared).await;
                is_failing = true;
            }
        }
    }
}

/// A write whose key expires after 2 s.
fn probe() -> Cmd {
    let mut probe = redis::cmd("SET");
    probe.arg("linnet:probe").arg(1).arg("PX").arg(2_000);
    probe
}

/// Returns when the connection is lost.
async fn watch(shared: &Arc<Shared>) {
    let client = RedisClient(Arc::clone(shared));
    let probe = probe();
    loop {
        let lost = shared.lost.notified();
        match tokio::time::timeout(PROBE_EVERY, lost).await {
            Ok(()) => return,
            Err(_) => {
                // `query` has recorded the result in the breaker.
                let _: Result<redis::Value, _> = client.query(&probe).await;
                if !client.is_up() {
                    return;
                }
            }
        }
    }
}
