//! Coalesces concurrent calls for the same key into one.
//!
//! Invariants:
//! - At most one call for a key is in flight. Every caller that joins it receives its result, errors included: otherwise
//!   each caller would retry a failing dependency in turn.
//! - A call is a task of its own, so a caller that leaves does not cancel it for the others.
//! - A call is removed before its result is delivered, also when it panics. A caller that arrives later therefore reads
//!   what the call has stored, or starts the next call.

use std::{
    collections::HashMap,
    hash::Hash,
    sync::{Arc, Mutex},
};

use futures::{FutureExt as _, future::Shared};
use tokio::sync::oneshot;

use crate::lock::MutexExt as _;

/// Why a call has no result.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SingleFlightError {
    /// The limit of calls in flight is reached; nothing was started.
    #[error("too many calls are in flight")]
    LimitReached,
    /// The call panicked, or the runtime that ran it has stopped.
    #[error("the call was aborted")]
    Aborted,
}

type PendingResult<V> = Shared<oneshot::Receiver<V>>;

/// The calls in flight, by key.
pub struct SingleFlight<K, V> {
    in_flight: Mutex<HashMap<K, PendingResult<V>>>,
    limit: usize,
}

impl<K, V> SingleFlight<K, V>
where
    K: Clone + Eq + Hash + Send + 'static,
    V: Clone + Send + Sync + 'static,
{
    /// At most `limit` calls are in flight at a time.
    pub fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self { in_flight: Mutex::default(), limit })
    }

    /// The number of calls in flight.
    pub fn len(&self) -> usize {
        self.in_flight.lock_ignoring_poison().len()
    }

    /// Whether no call is in flight.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Waits for the call for `key` that is in flight, or spawns one with `call` on the current runtime.
    pub async fn run<F, Fut>(self: &Arc<Self>, key: K, call: F) -> Result<V, SingleFlightError>
    where
        F: FnOnce() -> Fut,
        Fut: Future<Output = V> + Send + 'static,
    {
        self.join(key, call)?.await.map_err(|_| SingleFlightError::Aborted)
    }

    /// Waits for the call for `key` that is in flight; `None` if none is.
    pub async fn wait_for(&self, key: &K) -> Option<Result<V, SingleFlightError>> {
        let call = self.in_flight.lock_ignoring_poison().get(key).cloned()?;
        Some(call.await.map_err(|_| SingleFlightError::Aborted))
    }

    fn join<F, Fut>(
        self: &Arc<Self>,
        key: K,
        call: F,
    ) -> Result<PendingResult<V>, SingleFlightError>
    where
        F: FnOnce() -> Fut,
        Fut: Future<Output = V> + Send + 'static,
    {
        let mut in_flight = self.in_flight.lock_ignoring_poison();
        if let Some(result) = in_flight.get(&key) {
            return Ok(result.clone());
        }
        if in_flight.len() >= self.limit {
            return Err(SingleFlightError::LimitReached);
        }
        let (sender, receiver) = oneshot::channel();
        let result = receiver.shared();
        in_flight.insert(key.clone(), result.clone());
        drop(in_flight);

        let registration = Registration { calls: Arc::clone(self), key };
        let call = call();
        tokio::spawn(async move {
            let value = call.await;
            drop(registration);
            // All callers may have been cancelled.
            let _ = sender.send(value);
        });
        Ok(result)
    }
}

/// Removes the call when it is dropped.
struct Registration<K: Eq + Hash, V> {
    calls: Arc<SingleFlight<K, V>>,
    key: K,
}

impl<K: Eq + Hash, V> Drop for Registration<K, V> {
    fn drop(&mut self) {
        self.calls.in_flight.lock_ignoring_poison().remove(&self.key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use tokio::{sync::Barrier, task::JoinSet};

    type Calls = SingleFlight<&'static str, Result<usize, &'static str>>;

    #[tokio::test]
    async fn a_caller_can_wait_without_starting_a_call() {
        let calls = Calls::new(10);
        assert_eq!(calls.wait_for(&"key").await, None);
        let (sender, receiver) = oneshot::channel::<usize>();
        let call = || async move { receiver.await.map_err(|_| "no result") };
        let mut first = Box::pin(calls.run("key", call));
        assert!(futures::poll!(&mut first).is_pending());
        assert_eq!(calls.wait_for(&"other").await, None);
        let mut second = Box::pin(calls.wait_for(&"key"));
        assert!(futures::poll!(&mut second).is_pending());
        sender.send(7).unwrap();
        assert_eq!((first.await, second.await), (Ok(Ok(7)), Some(Ok(Ok(7)))));
    }

    #[tokio::test]
    async fn concurrent_calls_for_a_key_run_once() {
        let calls = Calls::new(10);
        let (started, gate) = (Arc::new(AtomicUsize::new(0)), Arc::new(Barrier::new(2)));
        let mut callers = JoinSet::new();
        for _ in 0..1_000 {
            let (calls, started, gate) = (calls.clone(), started.clone(), gate.clone());
            callers.spawn(async move {
                let call = || async move {
                    let number = started.fetch_add(1, Ordering::Relaxed);
                    gate.wait().await;
                    Ok(number)
                };
                calls.run("key", call).await
            });
        }
        gate.wait().await;
        assert!(callers.join_all().await.into_iter().all(|result| result == Ok(Ok(0))));
        assert_eq!(started.load(Ordering::Relaxed), 1);
        assert!(calls.is_empty());
    }

    #[tokio::test]
    async fn errors_are_shared_and_a_later_call_starts_anew() {
        let calls = Calls::new(10);
        let both = futures::future::join(
            calls.run("key", || async { Err("first") }),
            calls.run("key", || async { Err("second") }),
        );
        assert_eq!(both.await, (Ok(Err("first")), Ok(Err("first"))));
        assert_eq!(calls.run("key", || async { Ok(1) }).await, Ok(Ok(1)));
    }

    #[tokio::test]
    async fn calls_beyond_the_limit_are_rejected() {
        let calls = Calls::new(1);
        let mut first = Box::pin(calls.run("first", std::future::pending));
        assert!(futures::poll!(&mut first).is_pending());
        let second = calls.run("second", || async { Ok(2) }).await;
        assert_eq!(second, Err(SingleFlightError::LimitReached));
        assert_eq!(calls.len(), 1);
    }

    #[tokio::test]
    async fn a_caller_that_leaves_does_not_cancel_the_call() {
        let calls = Calls::new(1);
        let gate = Arc::new(Barrier::new(2));
        let waiting = Arc::clone(&gate);
        let call = || async move {
            waiting.wait().await;
            Ok(1)
        };
        let mut leaves = Box::pin(calls.run("key", call));
        assert!(futures::poll!(&mut leaves).is_pending());
        let mut stays = Box::pin(calls.run("key", || async { Ok(2) }));
        assert!(futures::poll!(&mut stays).is_pending());
        drop(leaves);
        gate.wait().await;
        assert_eq!(stays.await, Ok(Ok(1)));
    }

    #[tokio::test]
    async fn a_call_that_panics_is_aborted_and_removed() {
        let calls = Calls::new(1);
        let panicked = calls.run("key", || async { panic!("the call fails") }).await;
        assert_eq!(panicked, Err(SingleFlightError::Aborted));
        assert!(calls.is_empty());
    }
}
