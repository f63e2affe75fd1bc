//! A multiplexed Redis connection for one runtime, with its circuit breaker.
//!
//! Invariants:
//! - The circuit breaker is open while there is no connection: a command fails after one atomic load, without I/O. A broken
//!   connection opens the breaker at once, and so do [`TIMEOUTS_TO_OPEN`] timeouts in a row.
//! - Redis that responds but refuses writes counts as unavailable, because its entries can no longer be corrected. A
//!   connection is therefore probed with a write, before its first use and every [`PROBE_EVERY`].
//! - A task of the same runtime reconnects, with jittered backoff. A connection that server threads shared would lose
//!   requests when the thread that opened it stops.
//! - With sentinels or a cluster, a connection counts as broken once its [`Term`] has ended. A response that arrives later
//!   is an error: the server may have been replaced before it executed the command.
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
    Cmd, FromRedisValue, Pipeline, RedisError, RedisResult,
    aio::{ConnectionLike as _, MultiplexedConnection},
};
use tokio::sync::Notify;

use crate::{
    backoff::Backoff,
    redis_connection::{RedisServer, TermConnection, may_use},
    redis_fault::WRITE_REFUSALS,
    redis_keys::KeyLayout,
    redis_master::Term,
    settings::RedisSettings,
};

pub use crate::redis_fault::RedisFault;

/// Timeouts in a row that open the breaker.
pub const TIMEOUTS_TO_OPEN: u32 = 3;

const RECONNECT_FIRST: Duration = Duration::from_millis(50);
const RECONNECT_LONGEST: Duration = Duration::from_secs(1);
/// Time between two probes. Together with the delay of the outbox it stays below 1 s, the limit for stale responses.
pub const PROBE_EVERY: Duration = Duration::from_millis(200);

/// Why a command has no response.
#[derive(Debug, thiserror::Error)]
pub enum RedisUnavailable {
    /// The circuit breaker is open; nothing was sent.
    #[error("the Redis circuit breaker is open")]
    CircuitOpen,
    /// The command was sent, but a majority no longer confirms the master that executed it.
    #[error("the Redis master is no longer confirmed")]
    Unconfirmed,
    /// The command failed or timed out.
    #[error("a Redis command failed")]
    CommandFailed(#[from] RedisError),
}

/// Runs before a new connection is used. If it returns false, the connection is not used, and the client opens another
/// one after a pause.
pub type BeforeUse = Arc<dyn Fn() -> Pin<Box<dyn Future<Output = bool> + Send>> + Send + Sync>;

/// A handle on the connection; clones share it.
#[derive(Clone)]
pub struct RedisClient(Arc<Shared>);

struct Shared {
    layout: KeyLayout,
    connection: ArcSwapOption<TermConnection>,
    timeouts: AtomicU32,
    lost: Notify,
    /// The cause of the last failed connect or opened breaker.
    fault: ArcSwapOption<RedisFault>,
}

impl RedisClient {
    /// Returns a client, and the task that keeps it connected. Spawn the task in the runtime that uses the client; it never
    /// ends.
    pub fn new(
        settings: &RedisSettings,
        before_use: Option<BeforeUse>,
    ) -> RedisResult<(Self, impl Future<Output = ()> + Send + 'static)> {
        let shared = Arc::new(Shared {
            layout: settings.key_layout(),
            connection: ArcSwapOption::empty(),
            timeouts: AtomicU32::new(0),
            lost: Notify::new(),
            fault: ArcSwapOption::empty(),
        });
        let connector = Connector {
            server: RedisServer::new(settings)?,
            layout: shared.layout,
            connect_timeout: settings.connect_timeout(),
            response_timeout: settings.response_timeout(),
            before_use,
        };
        let task = keep_connected(connector, Arc::clone(&shared));
        Ok((Self(shared), task))
    }

    /// How the keys of this Redis are named.
    #[inline]
    pub fn key_layout(&self) -> KeyLayout {
        self.0.layout
    }

    /// Whether the circuit breaker is closed.
    pub fn is_up(&self) -> bool {
        self.0.connection.load().as_ref().is_some_and(|open| may_use(open.term.as_ref()))
    }

    /// Why the circuit breaker is open; `None` while it is closed.
    pub fn fault(&self) -> Option<RedisFault> {
        if self.is_up() {
            return None;
        }
        Some(self.0.fault.load().as_deref().cloned().unwrap_or(RedisFault::Unreachable))
    }

    /// Sends one command.
    pub async fn query<T: FromRedisValue>(&self, command: &Cmd) -> Result<T, RedisUnavailable> {
        let (mut connection, term) = self.connection()?;
        let response = command.query_async(&mut connection).await;
        self.record(response, term.as_ref())
    }

    /// Sends several commands in one write.
    pub async fn pipeline<T: FromRedisValue>(
        &self,
        pipeline: &Pipeline,
    ) -> Result<T, RedisUnavailable> {
        let (mut connection, term) = self.connection()?;
        let response = pipeline.query_async(&mut connection).await;
        self.record(response, term.as_ref())
    }

    /// Runs a script by its hash, and loads it when Redis does not have it.
    pub async fn script<T: FromRedisValue>(
        &self,
        invocation: &redis::ScriptInvocation<'_>,
    ) -> Result<T, RedisUnavailable> {
        let (mut connection, term) = self.connection()?;
        let response = invocation.invoke_async(&mut connection).await;
        self.record(response, term.as_ref())
    }

    /// The connection and its term, which is `None` for a fixed server.
    fn connection(&self) -> Result<(MultiplexedConnection, Option<Arc<Term>>), RedisUnavailable> {
        match self.0.connection.load().as_deref() {
            Some(open) if may_use(open.term.as_ref()) => {
                Ok((open.connection.clone(), open.term.clone()))
            }
            _ => Err(RedisUnavailable::CircuitOpen),
        }
    }

    /// Updates the circuit breaker from a command's result.
    fn record<T>(
        &self,
        response: RedisResult<T>,
        term: Option<&Arc<Term>>,
    ) -> Result<T, RedisUnavailable> {
        match response {
            Ok(_) if !may_use(term) => Err(RedisUnavailable::Unconfirmed),
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
    /// Opens the breaker if the connection's term has ended.
    fn end_term(&self) {
        if self.connection.swap(None).is_some() {
            self.fault.store(Some(Arc::new(RedisFault::NoMaster)));
            tracing::warn!(
                "Redis circuit breaker opened: a majority no longer confirms the master"
            );
        }
    }

    fn open_breaker(&self, error: &RedisError) {
        self.fault.store(Some(Arc::new(RedisFault::from(error))));
        if self.connection.swap(None).is_some() {
            tracing::warn!(%error, "Redis circuit breaker opened");
            self.lost.notify_one();
        }
    }
}

struct Connector {
    server: RedisServer,
    layout: KeyLayout,
    connect_timeout: Duration,
    response_timeout: Duration,
    before_use: Option<BeforeUse>,
}

impl Connector {
    async fn connect(&self) -> RedisResult<TermConnection> {
        let mut open = self.server.open(self.connect_timeout, self.response_timeout).await?;
        // A server that is still loading its data accepts connections and refuses commands.
        open.connection.req_packed_command(&probe(self.layout)).await?.extract_error()?;
        Ok(open)
    }
}

async fn keep_connected(connector: Connector, shared: Arc<Shared>) {
    let mut backoff = Backoff::new(RECONNECT_FIRST, RECONNECT_LONGEST);
    let (mut is_failing, mut is_refused) = (false, false);
    loop {
        match connector.connect().await {
            Err(error) => {
                let fault = RedisFault::from(&error);
                if !is_failing {
                    tracing::warn!(%error, %fault, "Redis unreachable; retrying");
                    is_failing = true;
                }
                shared.fault.store(Some(Arc::new(fault)));
                backoff.wait().await;
            }
            Ok(connection) => {
                if let Some(before_use) = &connector.before_use
                    && !before_use().await
                {
                    // Once in each outage, like the line above.
                    if !is_refused {
                        tracing::warn!(
                            "Redis connection not used: missed changes are not published; retrying"
                        );
                    }
                    (is_failing, is_refused) = (true, true);
                    shared.fault.store(Some(Arc::new(RedisFault::Unprepared)));
                    backoff.wait().await;
                    continue;
                }
                is_refused = false;
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
fn probe(layout: KeyLayout) -> Cmd {
    let mut probe = redis::cmd("SET");
    probe.arg(layout.probe()).arg(1).arg("PX").arg(2_000);
    probe
}

/// Returns when the connection is lost.
async fn watch(shared: &Arc<Shared>) {
    let client = RedisClient(Arc::clone(shared));
    let probe = probe(shared.layout);
    loop {
        let lost = shared.lost.notified();
        match tokio::time::timeout(PROBE_EVERY, lost).await {
            Ok(()) => return,
            Err(_) => {
                // `query` has recorded the result in the breaker.
                let _: Result<redis::Value, _> = client.query(&probe).await;
                if !client.is_up() {
                    shared.end_term();
                    return;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    /// A server that accepts every command.
    async fn accepting_server() -> RedisSettings {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("redis://{}/0", listener.local_addr().unwrap());
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let (mut reader, mut writer) = tokio::io::split(stream);
                    let mut buffer = [0; 4_096];
                    while let Ok(count @ 1..) = reader.read(&mut buffer).await {
                        let commands = buffer[..count].iter().filter(|byte| **byte == b'*');
                        let replies = b"+OK\r\n".repeat(commands.count());
                        writer.write_all(&replies).await.unwrap();
                    }
                });
            }
        });
        RedisSettings { url: url.into(), ..RedisSettings::default() }
    }

    #[tokio::test]
    async fn refused_connection_is_a_fault_and_logged_once() {
        let logs = linnet_telemetry::testing::capture_logs();
        let settings = accepting_server().await;
        let calls = Arc::new(AtomicU32::new(0));
        let (gate, counted) = (Arc::new(Notify::new()), Arc::clone(&calls));
        let opened = Arc::clone(&gate);
        let before_use: BeforeUse = Arc::new(move || {
            let (call, opened) = (counted.fetch_add(1, Ordering::SeqCst), Arc::clone(&opened));
            Box::pin(async move {
                match call {
                    0..3 => false,
                    // The test reads the fault first.
                    _ => {
                        opened.notified().await;
                        true
                    }
                }
            })
        });
        let (redis, task) = RedisClient::new(&settings, Some(before_use)).unwrap();
        let task = tokio::spawn(task);
        let wait = |is_over: Box<dyn Fn() -> bool>| async move {
            let over = async {
                while !is_over() {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            };
            tokio::time::timeout(Duration::from_secs(20), over).await.unwrap();
        };
        wait(Box::new(move || calls.load(Ordering::SeqCst) > 3)).await;
        assert_eq!(redis.fault(), Some(RedisFault::Unprepared));
        gate.notify_one();
        let client = redis.clone();
        wait(Box::new(move || client.is_up())).await;
        assert_eq!(redis.fault(), None);
        task.abort();
        let count = |start: &str| {
            let lines = logs.lines();
            let message = |line: &serde_json::Value| line["message"].as_str().map(str::to_owned);
            lines.iter().filter_map(message).filter(|text| text.starts_with(start)).count()
        };
        assert_eq!(count("Redis connection not used"), 1, "three refusals, one line");
        assert_eq!(count("Redis reconnected"), 1);
    }

    #[tokio::test]
    async fn a_response_after_the_term_of_the_master_does_not_count() {
        let settings = accepting_server().await;
        let server = RedisServer::new(&settings).unwrap();
        let timeout = Duration::from_secs(10);
        let mut open = server.open(timeout, timeout).await.unwrap();
        let term = Term::until_ended();
        open.term = Some(Arc::clone(&term));
        let (redis, _) = RedisClient::new(&settings, None).unwrap();
        redis.0.connection.store(Some(Arc::new(open)));
        let ping = redis::cmd("PING");
        assert!(redis.is_up() && redis.query::<redis::Value>(&ping).await.is_ok());
        let response: RedisResult<i64> = Ok(1);
        term.end();
        let late = redis.record(response, Some(&term));
        assert!(matches!(late, Err(RedisUnavailable::Unconfirmed)), "{late:?}");
        let next: Result<redis::Value, _> = redis.query(&ping).await;
        assert!(matches!(next, Err(RedisUnavailable::CircuitOpen)) && !redis.is_up());
    }
}
