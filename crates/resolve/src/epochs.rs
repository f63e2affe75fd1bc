//! Epochs: a fill that an invalidation has overtaken is not kept.
//!
//! A fill can race a change: it reads the old row, the change invalidates the code, and the fill then puts the old
//! entry back for a whole TTL. Epochs prevent that. Codes are spread over slots, and each slot has an epoch:
//! * A fill reads the epoch before it reads anything else.
//! * An invalidation removes the code, then increments the epoch.
//! * A fill inserts only if the epoch is still the one that it has read.
//! * Both hold the slot's lock meanwhile. Without it, a fill that is interrupted between its check and its insertion would
//!   insert an old entry, which readers find until the fill checks again. Readers take no lock.
//! * A copy of an entry is used only while the epoch is still the one that was read before the entry.
//!
//! The module contains only this rule. Its atomics and locks come from `super::sync`, so that `crates/models` can
//! compile the same file with those of loom and check the interleavings of two writers, two readers and a fill.

use std::sync::PoisonError;

use super::sync::{AtomicU64, Mutex, MutexGuard, Ordering};

/// The epochs of all slots.
#[derive(Debug)]
pub(super) struct Epochs(Box<[Slot]>);

#[derive(Debug)]
struct Slot {
    epoch: AtomicU64,
    /// Held by fills and invalidations.
    lock: Mutex<()>,
}

impl Slot {
    fn lock(&self) -> MutexGuard<'_, ()> {
        self.lock.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn increment(&self) {
        self.epoch.fetch_add(1, Ordering::AcqRel);
    }
}

/// The epoch of a slot at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Epoch {
    pub(super) slot: usize,
    value: u64,
}

impl Epoch {
    /// An epoch that the slot never has.
    pub(super) fn never(slot: usize) -> Self {
        Self { slot, value: u64::MAX }
    }

    /// Whether this epoch was read after the other one, or no invalidation was between the two. Both are of the same
    /// slot.
    #[inline]
    pub(super) fn is_at_least(self, other: Self) -> bool {
        self.slot == other.slot && self.value >= other.value
    }
}

impl Epochs {
    /// As many slots as this.
    pub(super) fn new(slots: usize) -> Self {
        let slot = |_| Slot { epoch: AtomicU64::new(0), lock: Mutex::new(()) };
        Self((0..slots).map(slot).collect())
    }

    /// The epoch of a slot.
    #[inline]
    pub(super) fn read(&self, slot: usize) -> Epoch {
        let value = self.0.get(slot).map_or(0, |slot| slot.epoch.load(Ordering::Acquire));
        Epoch { slot, value }
    }

    /// Whether no code of the slot was invalidated after the epoch was read.
    #[inline]
    pub(super) fn is_current(&self, epoch: Epoch) -> bool {
        self.read(epoch.slot).value == epoch.value
    }

    /// Calls `remove`, which removes the code, and makes every epoch of this slot that was read before out of date.
    pub(super) fn invalidate(&self, slot: usize, remove: impl FnOnce()) {
        let Some(slot) = self.0.get(slot) else { return remove() };
        let _held = slot.lock();
        remove();
        slot.increment();
    }

    /// [`Epochs::invalidate`] for all slots. `clear` removes every code.
    pub(super) fn invalidate_all(&self, clear: impl FnOnce()) {
        // No fill that began before inserts from here on.
        for slot in &self.0 {
            let _held = slot.lock();
            slot.increment();
        }
        clear();
        // Copies that were made meanwhile are out of date.
        self.0.iter().for_each(Slot::increment);
    }

    /// Calls `insert` if the epoch is current.
    pub(super) fn insert_if_current(&self, epoch: Epoch, insert: impl FnOnce()) {
        let Some(slot) = self.0.get(epoch.slot) else { return };
        let _held = slot.lock();
        if self.is_current(epoch) {
            insert();
        }
    }
}
