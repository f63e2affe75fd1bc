//! Follows the master of a Redis with sentinels, or the master of [`HOME_SLOT`](crate::redis_keys::HOME_SLOT) in a Redis
//! Cluster: one thread for the process queries every voter every [`ASK_EVERY`].
//!
//! [`votes`] decides which master may be used, and argues why no two processes use different ones.

mod question;
mod votes;

use std::{
    fmt,
    sync::{Arc, Mutex, OnceLock, Weak},
    time::{Duration, Instant},
};

use redis::{ErrorKind, RedisError, RedisResult};
use tokio::sync::watch;

use crate::{
    backoff::jittered,
    lock::MutexExt as _,
    redis_target::{Address, VoterKind},
};

pub(crate) use question::Voter;
use votes::Votes;
pub(crate) use votes::{LEASE, Term};

/// Time between two questions to a voter.
const ASK_EVERY: Duration = Duration::from_millis(150);

/// The voters to ask.
pub(crate) struct Voters {
    pub(crate) voters: Vec<Voter>,
    pub(crate) kind: VoterKind,
}

/// The master that this process may use. The thread that asks the voters ends when the last owner drops it.
pub(crate) struct MasterWatch {
    terms: watch::Sender<Option<Arc<Term>>>,
    state: Mutex<State>,
}

struct State {
    votes: Votes,
    kind: VoterKind,
    /// The last failure of each voter since its last answer.
    failures: Vec<Option<RedisError>>,
}

impl MasterWatch {
    /// Starts the thread.
    pub(crate) fn start(voters: Voters) -> RedisResult<Arc<Self>> {
        let Voters { voters, kind } = voters;
        let count = voters.len();
        let state =
            State { votes: Votes::new(count), kind: kind.clone(), failures: vec![None; count] };
        let watch = Arc::new(Self { terms: watch::Sender::new(None), state: Mutex::new(state) });
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let weak = Arc::downgrade(&watch);
        let asking = voters
            .into_iter()
            .enumerate()
            .map(move |(number, voter)| ask_voter(voter, number, kind.clone(), Weak::clone(&weak)));
        std::thread::Builder::new().name("redis master".into()).spawn(move || {
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

    /// Why there is no master: a voter's error if one has failed, since it explains more than the count.
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
        let problem = match state.kind {
            VoterKind::Sentinels { .. } => "no majority of sentinels names a master",
            VoterKind::Nodes => "no majority of the listed nodes names a master of Linnet's slot",
        };
        RedisError::from((ErrorKind::MasterNameNotFoundBySentinel, problem, detail))
    }

    fn record(&self, voter: usize, asked: Instant, answer: RedisResult<Option<Address>>) {
        let mut state = self.state.lock_ignoring_poison();
        let failure = match answer {
            Ok(master) => {
                state.votes.record(voter, asked, master);
                None
            }
            Err(error) => Some(error),
        };
        if let Some(slot) = state.failures.get_mut(voter) {
            if let Some(error) = &failure
                && slot.is_none()
            {
                tracing::warn!(voter, %error, "Redis sentinel or node does not answer; retrying");
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
            tracing::info!(host, port, "a majority names a Redis master");
        }
        (Some(term), None) => {
            let (host, port) = &term.master;
            tracing::warn!(host, port, "Redis master no longer confirmed by a majority");
        }
        (None, None) => {}
    }
}

/// Asks one voter until the watch is dropped.
async fn ask_voter(voter: Voter, number: usize, kind: VoterKind, watch: Weak<MasterWatch>) {
    let mut connection = None;
    loop {
        let asked = Instant::now();
        let answer = voter.ask(&mut connection, &kind).await;
        if answer.is_err() {
            connection = None;
        }
        let Some(watch) = watch.upgrade() else { return };
        watch.record(number, asked, answer);
        drop(watch);
        tokio::time::sleep(jittered(ASK_EVERY)).await;
    }
}

/// The watch of all clones of the settings, started by the first connection that needs it.
#[derive(Clone, Default)]
pub struct SharedMasterWatch(Arc<OnceLock<Arc<MasterWatch>>>);

impl SharedMasterWatch {
    /// The watch, started if it is not running.
    pub(crate) fn get_or_start(
        &self,
        voters: impl FnOnce() -> RedisResult<Voters>,
    ) -> RedisResult<Arc<MasterWatch>> {
        static START: Mutex<()> = Mutex::new(());
        let _start = START.lock_ignoring_poison();
        if let Some(watch) = self.0.get() {
            return Ok(Arc::clone(watch));
        }
        let watch = MasterWatch::start(voters()?)?;
        Ok(Arc::clone(self.0.get_or_init(|| watch)))
    }
}

impl fmt::Debug for SharedMasterWatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SharedMasterWatch").finish_non_exhaustive()
    }
}
