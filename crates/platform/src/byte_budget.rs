//! Bounds the bytes that requests hold, for the process and for each owner.
//!
//! * A reservation grows as bytes arrive, so a small body never counts as a large one.
//! * One owner can take only a share, so other owners are unaffected by it.
//! * Nothing waits: a reservation that does not fit is rejected at once.

use std::{
    collections::HashMap,
    fmt,
    hash::Hash,
    sync::{Arc, Mutex},
};

use crate::lock::MutexExt as _;

/// A budget of bytes; clones share it.
pub struct ByteBudget<K>(Arc<Inner<K>>);

struct Inner<K> {
    total: usize,
    share: usize,
    used: Mutex<Used<K>>,
}

struct Used<K> {
    total: usize,
    /// Only owners that hold bytes.
    by_owner: HashMap<K, usize>,
}

/// The bytes do not fit into the budget.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BudgetExceeded {
    /// The owner holds its share.
    #[error("the owner's requests hold too many bytes")]
    Owner,
    /// All owners together hold the budget.
    #[error("all requests together hold too many bytes")]
    Process,
}

/// Reserved bytes, until it is dropped.
pub struct Reservation<K: Eq + Hash + Clone> {
    budget: ByteBudget<K>,
    owner: K,
    bytes: usize,
}

impl<K> Clone for ByteBudget<K> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<K: Eq + Hash + Clone> ByteBudget<K> {
    /// A budget of `total` bytes, of which one owner can hold `share`.
    pub fn new(total: usize, share: usize) -> Self {
        let used = Mutex::new(Used { total: 0, by_owner: HashMap::new() });
        Self(Arc::new(Inner { total, share, used }))
    }

    /// An empty reservation for this owner.
    pub fn reserve(&self, owner: K) -> Reservation<K> {
        Reservation { budget: self.clone(), owner, bytes: 0 }
    }

    /// The bytes that are reserved now.
    pub fn used(&self) -> usize {
        self.0.used.lock_ignoring_poison().total
    }
}

impl<K: Eq + Hash + Clone> Reservation<K> {
    /// Adds `bytes` to the reservation. On an error, nothing is added.
    pub fn grow(&mut self, bytes: usize) -> Result<(), BudgetExceeded> {
        let Inner { total, share, used } = &*self.budget.0;
        let mut used = used.lock_ignoring_poison();
        let own = used.by_owner.get(&self.owner).copied().unwrap_or(0);
        if own.saturating_add(bytes) > *share {
            return Err(BudgetExceeded::Owner);
        }
        if used.total.saturating_add(bytes) > *total {
            return Err(BudgetExceeded::Process);
        }
        used.total += bytes;
        used.by_owner.insert(self.owner.clone(), own + bytes);
        self.bytes += bytes;
        Ok(())
    }
}

impl<K: Eq + Hash + Clone> Drop for Reservation<K> {
    fn drop(&mut self) {
        if self.bytes == 0 {
            return;
        }
        let mut used = self.budget.0.used.lock_ignoring_poison();
        used.total = used.total.saturating_sub(self.bytes);
        if let Some(own) = used.by_owner.get_mut(&self.owner) {
            *own = own.saturating_sub(self.bytes);
            if *own == 0 {
                used.by_owner.remove(&self.owner);
            }
        }
    }
}

impl<K> fmt::Debug for ByteBudget<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Inner { total, share, .. } = &*self.0;
        f.debug_struct("ByteBudget")
            .field("total", total)
            .field("share", share)
            .finish_non_exhaustive()
    }
}

impl<K: Eq + Hash + Clone> fmt::Debug for Reservation<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reservation").field("bytes", &self.bytes).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn must_26_one_owner_gets_a_share_and_all_owners_the_budget() {
        let budget = ByteBudget::new(100, 40);
        let mut first = budget.reserve(1);
        let mut second = budget.reserve(1);
        assert_eq!(first.grow(30), Ok(()));
        assert_eq!(second.grow(11), Err(BudgetExceeded::Owner));
        assert_eq!(second.grow(10), Ok(()));
        let mut other = budget.reserve(2);
        assert_eq!(other.grow(40), Ok(()));
        let mut third = budget.reserve(3);
        assert_eq!(third.grow(21), Err(BudgetExceeded::Process));
        assert_eq!(third.grow(20), Ok(()));
        assert_eq!(budget.used(), 100);
        drop(other);
        assert_eq!(third.grow(20), Ok(()));
        drop((first, second, third));
        assert_eq!(budget.used(), 0);
        assert!(budget.0.used.lock().unwrap().by_owner.is_empty());
    }

    #[test]
    fn a_dropped_reservation_gives_back_what_it_holds_and_no_more() {
        let budget = ByteBudget::new(100, 100);
        let mut first = budget.reserve(1);
        let mut second = budget.reserve(1);
        assert_eq!((first.grow(10), first.grow(20), second.grow(5)), (Ok(()), Ok(()), Ok(())));
        drop(budget.reserve(1));
        assert_eq!(budget.used(), 35);
        drop(first);
        assert_eq!(budget.used(), 5);
        assert_eq!(budget.0.used.lock().unwrap().by_owner.get(&1), Some(&5));
        assert_eq!(second.grow(96), Err(BudgetExceeded::Owner));
        assert_eq!(second.grow(usize::MAX), Err(BudgetExceeded::Owner), "no overflow");
        assert_eq!(second.grow(95), Ok(()));
    }

    #[test]
    fn debug_output_has_the_sizes_but_no_owner() {
        let budget = ByteBudget::new(100, 40);
        assert_eq!(format!("{budget:?}"), "ByteBudget { total: 100, share: 40, .. }");
        let reservation = budget.reserve("a secret");
        assert_eq!(format!("{reservation:?}"), "Reservation { bytes: 0, .. }");
    }
}
