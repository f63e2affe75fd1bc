//! Look-ups under way: who asks for a code that is being looked up waits for that answer.
//!
//! A look-up runs as a task of its own, so a client that goes away does not take the others' answer
//! with it. Errors are shared too, else every waiter would try in turn against a dead database.

use std::{
    collections::{HashMap, hash_map::Entry as MapEntry},
    future::Future,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use futures::{FutureExt, future::Shared};
use tokio::sync::oneshot;

use super::l1::CachedEntry;

/// Why a look-up brought no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum LookupError {
    /// The database is away and no cache holds the code.
    #[error("the database is away")]
    Away,
    /// Too many look-ups are under way.
    #[error("too many look-ups are under way")]
    Overloaded,
}

type Outcome = Result<Arc<CachedEntry>, LookupError>;
type Waiting = Shared<oneshot::Receiver<Outcome>>;

/// The look-ups of a process, for all its workers.
pub struct InFlightLookups {
    running: Mutex<HashMap<Box<str>, Waiting>>,
    max: usize,
}

impl InFlightLookups {
    /// At most `max` look-ups at a time.
    pub fn new(max: usize) -> Arc<Self> {
        Arc::new(Self { running: Mutex::new(HashMap::new()), max })
    }

    /// Joins the look-up of `code`, or begins it with `look_up` on this thread's runtime.
    pub(super) async fn join<F, Fut>(self: &Arc<Self>, code: &str, look_up: F) -> Outcome
    where
        F: FnOnce() -> Fut,
        Fut: Future<Output = Outcome> + Send + 'static,
    {
        let waiting = self.board(code, look_up)?;
        // The sender is dropped unsent only when its runtime ends.
        waiting.await.unwrap_or(Err(LookupError::Away))
    }

    fn board<F, Fut>(self: &Arc<Self>, code: &str, look_up: F) -> Result<Waiting, LookupError>
    where
        F: FnOnce() -> Fut,
        Fut: Future<Output = Outcome> + Send + 'static,
    {
        let mut running = self.lock();
        let full = running.len() >= self.max;
        match running.entry(code.into()) {
            MapEntry::Occupied(entry) => Ok(entry.get().clone()),
            MapEntry::Vacant(_) if full => Err(LookupError::Overloaded),
            MapEntry::Vacant(entry) => {
                let (sender, receiver) = oneshot::channel();
                let landing = Landing { flights: Arc::clone(self), code: code.into() };
                let look_up = look_up();
                tokio::spawn(async move {
                    let outcome = look_up.await;
                    // Before the answer is told: who comes next must see the cache, not this flight.
                    drop(landing);
                    // Nobody may be waiting any more.
                    let _ = sender.send(outcome);
                });
                Ok(entry.insert(receiver.shared()).clone())
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Box<str>, Waiting>> {
        // The map is whole whatever panicked while it was held.
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Takes the flight off the list, also when its task panics or its runtime ends.
struct Landing {
    flights: Arc<InFlightLookups>,
    code: Box<str>,
}

impl Drop for Landing {
    fn drop(&mut self) {
        self.flights.lock().remove(&self.code);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{CacheSettings, Entry, L1Cache};
    use std::sync::atomic::{AtomicUsize, Ordering};
    use tokio::sync::Barrier;

    fn held() -> Arc<CachedEntry> {
        let cache = L1Cache::new(&CacheSettings::default());
        cache.fill("x", Entry::ABSENT, cache.ticket("x"))
    }

    #[tokio::test]
    async fn must_19_a_thousand_concurrent_misses_make_one_look_up() {
        let flights = InFlightLookups::new(10);
        let count = Arc::new(AtomicUsize::new(0));
        let gate = Arc::new(Barrier::new(2));
        let mut tasks = Vec::new();
        for _ in 0..1_000 {
            let (flights, count, gate) = (flights.clone(), count.clone(), gate.clone());
            tasks.push(tokio::spawn(async move {
                let look_up = || async move {
                    count.fetch_add(1, Ordering::Relaxed);
                    gate.wait().await;
                    Ok(held())
                };
                flights.join("abc", look_up).await
            }));
        }
        gate.wait().await;
        for task in tasks {
            assert!(task.await.unwrap().is_ok());
        }
        assert_eq!(count.load(Ordering::Relaxed), 1);
        assert!(flights.lock().is_empty());
    }

    #[tokio::test]
    async fn errors_are_shared_and_the_next_one_tries_anew() {
        let flights = InFlightLookups::new(10);
        let failed = flights.join("abc", || async { Err(LookupError::Away) }).await;
        assert_eq!(failed.unwrap_err(), LookupError::Away);
        assert!(flights.join("abc", || async { Ok(held()) }).await.is_ok());
    }

    #[tokio::test]
    async fn the_number_of_look_ups_is_bounded() {
        let flights = InFlightLookups::new(1);
        let gate = Arc::new(Barrier::new(2));
        let (first, second) = (flights.clone(), gate.clone());
        let running = tokio::spawn(async move {
            let look_up = || async move {
                second.wait().await;
                Ok(held())
            };
            first.join("abc", look_up).await
        });
        while flights.lock().is_empty() {
            tokio::task::yield_now().await;
        }
        let refused = flights.join("def", || async { Ok(held()) }).await;
        assert_eq!(refused.unwrap_err(), LookupError::Overloaded);
        gate.wait().await;
        assert!(running.await.unwrap().is_ok());
    }
}
