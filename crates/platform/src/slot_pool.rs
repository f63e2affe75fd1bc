//! A bounded number of slots, of which each owner may hold a share.
//!
//! Invariants:
//! - At most `all` slots are held, and at most `share` of them by one owner. With a share below `all`, one owner cannot
//!   use up all slots.
//! - Nothing waits: a slot is taken or refused at once.
//! - Memory is bounded by the slots that are held: an owner without a slot has no entry.

use std::{
    collections::HashMap,
    hash::Hash,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
};

use crate::lock::MutexExt as _;

/// Why a slot was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SlotRefusal {
    /// The owner holds its share.
    #[error("the owner holds its share of {share} slots")]
    Share {
        /// The share.
        share: usize,
    },
    /// All slots are held.
    #[error("all slots are held")]
    All,
}

/// The slots; clones share them.
#[derive(Debug, Clone)]
pub struct SlotPool<K: Eq + Hash + Clone>(Arc<Inner<K>>);

#[derive(Debug)]
struct Inner<K> {
    all: usize,
    share: usize,
    held: Mutex<Held<K>>,
    refused_share: AtomicU64,
    refused_all: AtomicU64,
}

#[derive(Debug)]
struct Held<K> {
    count: usize,
    by_owner: HashMap<K, usize>,
}

/// A slot. Dropping it returns it to the pool.
#[derive(Debug)]
pub struct Slot<K: Eq + Hash + Clone> {
    pool: SlotPool<K>,
    owner: K,
}

impl<K: Eq + Hash + Clone> SlotPool<K> {
    /// `all` slots, of which one owner may hold `share`.
    pub fn new(all: usize, share: usize) -> Self {
        Self(Arc::new(Inner {
            all,
            share: share.min(all),
            held: Mutex::new(Held { count: 0, by_owner: HashMap::new() }),
            refused_share: AtomicU64::new(0),
            refused_all: AtomicU64::new(0),
        }))
    }

    /// Takes a slot.
    pub fn take(&self, owner: K) -> Result<Slot<K>, SlotRefusal> {
        let mut held = self.0.held.lock_ignoring_poison();
        if held.count >= self.0.all {
            self.0.refused_all.fetch_add(1, Ordering::Relaxed);
            return Err(SlotRefusal::All);
        }
        if held.by_owner.get(&owner).copied().unwrap_or(0) >= self.0.share {
            self.0.refused_share.fetch_add(1, Ordering::Relaxed);
            return Err(SlotRefusal::Share { share: self.0.share });
        }
        held.count += 1;
        *held.by_owner.entry(owner.clone()).or_default() += 1;
        drop(held);
        Ok(Slot { pool: self.clone(), owner })
    }

    /// The number of slots that are held.
    pub fn held(&self) -> usize {
        self.0.held.lock_ignoring_poison().count
    }

    /// The number of refusals: because of an owner's share, and because all slots were held.
    pub fn refused(&self) -> (u64, u64) {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        (load(&self.0.refused_share), load(&self.0.refused_all))
    }
}

impl<K: Eq + Hash + Clone> Drop for Slot<K> {
    fn drop(&mut self) {
        let mut held = self.pool.0.held.lock_ignoring_poison();
        held.count -= 1;
        if let Some(count) = held.by_owner.get_mut(&self.owner) {
            *count -= 1;
            if *count == 0 {
                held.by_owner.remove(&self.owner);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn must_26_owner_at_its_share_takes_nothing_from_others() {
        let pool = SlotPool::new(5, 2);
        let first = [pool.take("a").unwrap(), pool.take("a").unwrap()];
        assert_eq!(pool.take("a").unwrap_err(), SlotRefusal::Share { share: 2 });
        let others = [pool.take("b").unwrap(), pool.take("b").unwrap(), pool.take("c").unwrap()];
        assert_eq!(pool.take("d").unwrap_err(), SlotRefusal::All);
        assert_eq!((pool.held(), pool.refused()), (5, (1, 1)));
        drop(first);
        assert!(pool.take("a").is_ok());
        drop(others);
        assert_eq!(pool.held(), 0);
        assert!(pool.0.held.lock().unwrap().by_owner.is_empty(), "no entry remains");
    }

    #[test]
    fn refusals_are_counted_by_their_reason() {
        let pool = SlotPool::new(3, 9);
        let slots = [pool.take(1).unwrap(), pool.take(1).unwrap(), pool.take(1).unwrap()];
        for _ in 0..3 {
            assert_eq!(pool.take(1).unwrap_err(), SlotRefusal::All, "a share is at most all slots");
        }
        assert_eq!((pool.held(), pool.refused()), (3, (0, 3)));
        drop(slots);
        let pool = SlotPool::new(9, 1);
        let slot = pool.take(1).unwrap();
        for _ in 0..2 {
            assert!(pool.take(1).is_err());
        }
        assert_eq!((pool.held(), pool.refused()), (1, (2, 0)));
        drop(slot);
    }
}
