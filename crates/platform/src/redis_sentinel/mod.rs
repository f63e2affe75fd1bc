//! Follows the master of a Redis with sentinels: one thread for the process queries every sentinel every [`ASK_EVERY`].
//!
//! [`votes`] decides which master may be used, and argues why no two processes use different ones.

mod votes;

use std::{
    fmt, io,
    sync::{Arc, Mutex, OnceLock, Weak},
    time::{Duration, Instant},
};

use redis::{
    AsyncConnectionConfig, Client, ErrorKind, RedisError, RedisResult, aio::MultiplexedConnection,
};
use tokio::sync::watch;

use crate::{backoff::jittered, lock::MutexExt as _, redis_target::Address};

use votes::Votes;
pub(crate) use votes::{LEASE, Term};

/// Time between two questions to a sentinel.
const ASK_EVERY: Duration = Duration::from_millis(150);
/// Longest wait for a connection to a sentinel, and for its answer.
const ANSWER_TIMEOUT: Duration = Duration::from_millis(300);

/// The sentinels to ask, and the name of the master.
pub(crate) struct SentinelClients {
    /// A client for each sentinel.
    pub(crate) sentinels: Vec<Client>,
    /// The name under which the sentinels monitor the master.
    pub(crate) name: String,
}

/// The master that this process may use. The thread that asks the sentinels ends when the last owner drops it.
pub(crate) struct MasterWatch {
    terms: watch::Sender<Option<Arc<Term>>>,
    state: Mutex<State>,
}

struct State {
    votes: Votes,
    /// The last failure of each sentinel since its last answer.
    failures: Vec<Option<RedisError>>,
}

impl MasterWatch {
    /// Starts the thread.
    pub(crate) fn start(clients: SentinelClients) -> RedisResult<Arc<Self>> {
        let count = clients.sentinels.len();
        let state = State { votes: Votes::new(count), failures: vec![None; count] };
        let watch = Arc::new(Self { terms: watch::Sender::new(None), state: Mutex::new(state) });
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let weak = Arc::downgrade(&watch);
        let asking = clients.sentinels.into_iter().enumerate().map(move |(number, client)| {
            ask_sentinel(client, number, clients.name.clone(), Weak::clone(&weak))
        });
        std::thread::Builder::new().name("sentinels".into()).spawn(move || {
            runtime.block_on(futures::future::join_all(asking));
        })?;
        Ok(watch)
    }

    /// Waits for a master that may be used, at most `wait` and the time after which a new master may be used.
    pub(crate) async fn term(&self, wait: Duration) -> RedisResult<Arc<Term>> {
        let mut terms = self.terms.subscribe();
        let valid = terms.wait_for(|term| term.as_ref().is_some_and(|term| term.is_valid()));
        let term = match tokio::time::timeout(wait + LEASE, valid).await {
            // The sender lives as long as this object.
            Ok(term) => term.ok().and_then(|term| term.clone()),
            Err(_) => None,
        };
        term.ok_or_else(|| self.no_master())
    }

    /// Why there is no master: a sentinel's error if one has failed, since it explains more than the count.
    fn no_master(&self) -> RedisError {
        let state = self.state.lock_ignoring_poison();
        let (fresh, majority) = state.votes.quorum(Instant::now());
        let failure = state.failures.iter().flatten().next();
        if fresh < majority
            && let Some(failure) = failure
        {
            return failure.clone();
        }
        let detail = format!("{fresh} name one, {majority} must name the same");
        let kind = ErrorKind::MasterNameNotFoundBySentinel;
        RedisError::from((kind, "no majority of sentinels names a master", detail))
    }

    fn record(&self, sentinel: usize, asked: Instant, answer: RedisResult<Option<Address>>) {
        let mut state = self.state.lock_ignoring_poison();
        let failure = match answer {
            Ok(master) => {
                state.votes.record(sentinel, asked, master);
                None
            }
            Err(error) => Some(error),
        };
        if let Some(slot) = state.failures.get_mut(sentinel) {
            if let Some(error) = &failure
                && slot.is_none()
            {
                tracing::warn!(sentinel, %error, "Redis sentinel does not answer; retrying");
            }
            *slot = failure;
        }
        let term = state.votes.evaluate(Instant::now());
        self.terms.send_if_modified(|current| {
            let is_same = match (&*current, &term) {
                (Some(current), Some(term)) => Arc::ptr_eq(current, term),
                (None, None) => true,
                _ => false,
            };
            if !is_same {
                log_change(current.as_deref(), term.as_deref());
                *current = term;
            }
            !is_same
        });
    }
}

fn log_change(old: Option<&Term>, new: Option<&Term>) {
    match (old, new) {
        (_, Some(term)) => {
            let (host, port) = &term.master;
            tracing::info!(host, port, "the sentinels name a Redis master");
        }
        (Some(term), None) => {
            let (host, port) = &term.master;
            tracing::warn!(
                host,
                port,
                "Redis master no longer confirmed by a majority of sentinels"
            );
        }
        (None, None) => {}
    }
}

/// Asks one sentinel until the watch is dropped.
async fn ask_sentinel(client: Client, number: usize, name: String, watch: Weak<MasterWatch>) {
    let mut connection = None;
    loop {
        let asked = Instant::now();
        let answer = ask(&client, &mut connection, &name).await;
        if answer.is_err() {
            connection = None;
        }
        let Some(watch) = watch.upgrade() else { return };
        watch.record(number, asked, answer);
        drop(watch);
        tokio::time::sleep(jittered(ASK_EVERY)).await;
    }
}

/// The master's address; `None` if the sentinel monitors no master of this name.
async fn ask(
    client: &Client,
    connection: &mut Option<MultiplexedConnection>,
    name: &str,
) -> RedisResult<Option<Address>> {
    let connection = match connection {
        Some(connection) => connection,
        None => {
            let config = AsyncConnectionConfig::new()
                .set_connection_timeout(Some(ANSWER_TIMEOUT))
                .set_response_timeout(Some(ANSWER_TIMEOUT));
            let opened = client.get_multiplexed_async_connection_with_config(&config);
            // The timeout of the configuration does not cover the log-in.
            let opened = tokio::time::timeout(ANSWER_TIMEOUT, opened).await;
            let timed_out = |_| RedisError::from(io::Error::from(io::ErrorKind::TimedOut));
            connection.insert(opened.map_err(timed_out)??)
        }
    };
    let mut question = redis::cmd("SENTINEL");
    question.arg("get-master-addr-by-name").arg(name);
    question.query_async(connection).await
}

/// The watch of all clones of the settings, started by the first connection that needs it.
#[derive(Clone, Default)]
pub struct SharedMasterWatch(Arc<OnceLock<Arc<MasterWatch>>>);

impl SharedMasterWatch {
    /// The watch, started if it is not running.
    pub(crate) fn get_or_start(
        &self,
        clients: impl FnOnce() -> RedisResult<SentinelClients>,
    ) -> RedisResult<Arc<MasterWatch>> {
        static START: Mutex<()> = Mutex::new(());
        let _start = START.lock_ignoring_poison();
        if let Some(watch) = self.0.get() {
            return Ok(Arc::clone(watch));
        }
        let watch = MasterWatch::start(clients()?)?;
        Ok(Arc::clone(self.0.get_or_init(|| watch)))
    }
}

impl fmt::Debug for SharedMasterWatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SharedMasterWatch").finish_non_exhaustive()
    }
}
