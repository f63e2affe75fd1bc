//! A share of a resource for each owner, whose further requests wait.
//!
//! Invariants:
//! - At most `share` turns of one owner are held at a time, and at most `most_waiting` requests of it wait.
//! - A request waits at most `longest_wait`. Requests of one owner get their turns in the order of their arrival.
//! - Memory is bounded by the requests in progress: an owner without one has no entry.

use std::{
    collections::HashMap,
    hash::Hash,
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::lock::MutexExt as _;

/// The owner's share was in use for the longest wait, or too many of its requests wait already.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the owner's share of {share} is in use")]
pub struct ShareInUse {
    /// The share.
    pub share: usize,
}

/// The shares; clones have them in common.
#[derive(Debug, Clone)]
pub struct WaitingShare<K: Eq + Hash + Clone>(Arc<Inner<K>>);

#[derive(Debug)]
struct Inner<K> {
    share: usize,
    most_waiting: usize,
    longest_wait: Duration,
    owners: Mutex<HashMap<K, Requests>>,
}

/// The requests of one owner.
#[derive(Debug)]
struct Requests {
    turns: Arc<Semaphore>,
    count: usize,
}

/// A turn; dropping it gives it to the owner's next request.
#[derive(Debug)]
pub struct Turn<K: Eq + Hash + Clone> {
    // Fields are dropped in this order: the turn is free before the entry can be removed.
    _permit: OwnedSemaphorePermit,
    _request: Request<K>,
}

/// A request of an owner that waits or has its turn.
#[derive(Debug)]
struct Request<K: Eq + Hash + Clone> {
    shares: WaitingShare<K>,
    owner: K,
}

impl<K: Eq + Hash + Clone> WaitingShare<K> {
    /// At least one turn for each owner.
    pub fn new(share: usize, most_waiting: usize, longest_wait: Duration) -> Self {
        let (share, owners) = (share.max(1), Mutex::default());
        Self(Arc::new(Inner { share, most_waiting, longest_wait, owners }))
    }

    /// Waits for the owner's turn.
    pub async fn take(&self, owner: K) -> Result<Turn<K>, ShareInUse> {
        let in_use = ShareInUse { share: self.0.share };
        let (request, turns) = self.enter(owner).ok_or(in_use)?;
        let permit = tokio::time::timeout(self.0.longest_wait, turns.acquire_owned()).await;
        // The semaphore is never closed.
        let permit = permit.ok().and_then(Result::ok).ok_or(in_use)?;
        Ok(Turn { _permit: permit, _request: request })
    }

    fn enter(&self, owner: K) -> Option<(Request<K>, Arc<Semaphore>)> {
        let mut owners = self.0.owners.lock_ignoring_poison();
        let requests = owners.entry(owner.clone()).or_insert_with(|| Requests {
            turns: Arc::new(Semaphore::new(self.0.share)),
            count: 0,
        });
        if requests.count >= self.0.share + self.0.most_waiting {
            return None;
        }
        requests.count += 1;
        Some((Request { shares: self.clone(), owner }, Arc::clone(&requests.turns)))
    }
}

impl<K: Eq + Hash + Clone> Drop for Request<K> {
    fn drop(&mut self) {
        let mut owners = self.shares.0.owners.lock_ignoring_poison();
        if let Some(requests) = owners.get_mut(&self.owner) {
            requests.count -= 1;
            if requests.count == 0 {
                owners.remove(&self.owner);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WAIT: Duration = Duration::from_secs(5);

    #[tokio::test(start_paused = true)]
    async fn must_26_owner_that_waits_for_its_share_delays_no_other() {
        let shares = WaitingShare::new(2, 1, WAIT);
        let held = [shares.take("a").await.unwrap(), shares.take("a").await.unwrap()];
        let waiting = tokio::spawn({
            let shares = shares.clone();
            async move { shares.take("a").await.map(drop) }
        });
        tokio::task::yield_now().await;
        let began = tokio::time::Instant::now();
        assert_eq!(shares.take("a").await.unwrap_err(), ShareInUse { share: 2 }, "one may wait");
        assert!(shares.take("b").await.is_ok());
        assert_eq!(began.elapsed(), Duration::ZERO, "neither has waited");
        drop(held);
        waiting.await.unwrap().expect("its turn has come");
        assert!(shares.0.owners.lock().unwrap().is_empty(), "no entry remains");
    }

    #[tokio::test(start_paused = true)]
    async fn a_wait_ends_after_its_limit() {
        let shares = WaitingShare::new(0, 9, WAIT);
        let held = shares.take(1).await.unwrap();
        let began = tokio::time::Instant::now();
        assert_eq!(shares.take(1).await.unwrap_err(), ShareInUse { share: 1 });
        assert_eq!(began.elapsed(), WAIT);
        drop(held);
        assert!(shares.take(1).await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_that_is_given_up_leaves_its_turn_to_others() {
        let shares = WaitingShare::new(1, 9, WAIT);
        let held = shares.take(1).await.unwrap();
        let given_up = tokio::time::timeout(Duration::from_secs(1), shares.take(1)).await;
        assert!(given_up.is_err());
        drop(held);
        assert!(shares.take(1).await.is_ok());
        assert!(shares.0.owners.lock().unwrap().is_empty());
    }
}
