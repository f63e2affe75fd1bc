//! Checks the real code of L1's epochs with loom: every interleaving and every order of memory that its atomics allow.
//!
//! This test compiles `crates/resolve/src/epochs.rs` again, with loom's atomics. The code around it is modeled: `L1`
//! has one slot in each of the two maps of `L1Cache`, each with a lock, as `quick_cache` has one for each shard.
//! `read_twice` models the copy that a server thread keeps (`crates/resolve/src/hot.rs`).

/// The atomics and locks of the module.
mod sync {
    pub(super) use loom::sync::{Mutex, MutexGuard, atomic::AtomicU64};
    pub(super) use std::sync::atomic::Ordering;
}

#[path = "../../resolve/src/epochs.rs"]
mod epochs;

use std::sync::Arc;

use epochs::{Epoch, Epochs};
use loom::{
    sync::{Mutex, atomic::AtomicU64},
    thread,
};
use sync::Ordering;

/// How a fill and an invalidation use the epochs.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Variant {
    Correct,
    FillWithoutCheck,
    FillWithoutLock,
    IncrementBeforeRemoval,
    TicketAfterRead,
    CopyWithoutCheck,
}

/// One link and its slot in L1. A row is represented by its version.
struct L1 {
    epochs: Epochs,
    links: Mutex<Option<u64>>,
    negative: Mutex<Option<u64>>,
    /// PostgreSQL.
    row: Mutex<u64>,
    /// The last version whose change was acknowledged.
    acknowledged: AtomicU64,
    variant: Variant,
}

/// Whether the change with this version deletes the link. L1 then has a negative entry.
fn is_deletion(version: u64) -> bool {
    version == 2
}

impl L1 {
    fn new(variant: Variant) -> Self {
        Self {
            epochs: Epochs::new(1),
            links: Mutex::new(None),
            negative: Mutex::new(None),
            row: Mutex::new(0),
            acknowledged: AtomicU64::new(0),
            variant,
        }
    }

    /// Reads both maps as `L1Cache::get` does.
    fn get(&self) -> Option<u64> {
        let link = *self.links.lock().unwrap();
        link.or_else(|| *self.negative.lock().unwrap())
    }

    fn remove(&self) {
        *self.links.lock().unwrap() = None;
        *self.negative.lock().unwrap() = None;
    }

    /// Inserts as `L1Cache::fill` does.
    fn insert(&self, version: u64) {
        if is_deletion(version) {
            *self.negative.lock().unwrap() = Some(version);
            *self.links.lock().unwrap() = None;
        } else {
            *self.links.lock().unwrap() = Some(version);
            *self.negative.lock().unwrap() = None;
        }
    }

    fn fill(&self) {
        let ticket = self.epochs.read(0);
        let version = *self.row.lock().unwrap();
        let ticket =
            if self.variant == Variant::TicketAfterRead { self.epochs.read(0) } else { ticket };
        match self.variant {
            Variant::FillWithoutCheck => self.insert(version),
            Variant::FillWithoutLock if self.epochs.is_current(ticket) => self.insert(version),
            Variant::FillWithoutLock => {}
            _ => {
                self.epochs.insert_if_current(ticket, || self.insert(version));
            }
        }
    }

    /// Commits a change, invalidates the code, and acknowledges the change.
    fn write(&self) {
        let version = {
            let mut row = self.row.lock().unwrap();
            *row += 1;
            *row
        };
        match self.variant {
            Variant::IncrementBeforeRemoval => {
                self.epochs.invalidate(0, || ());
                self.remove();
            }
            _ => self.epochs.invalidate(0, || self.remove()),
        }
        self.acknowledged.fetch_max(version, Ordering::AcqRel);
    }

    /// Reads L1 as `HotLinks::get` does, then reads its own copy.
    fn read_twice(&self) {
        let known = self.acknowledged.load(Ordering::Acquire);
        let ticket: Epoch = self.epochs.read(0);
        let Some(copy) = self.get() else { return };
        assert!(copy >= known, "L1 has version {copy}, {known} is acknowledged");
        let known = self.acknowledged.load(Ordering::Acquire);
        if self.epochs.is_current(ticket) || self.variant == Variant::CopyWithoutCheck {
            assert!(copy >= known, "the copy has version {copy}, {known} is acknowledged");
        }
    }
}

/// Two writers, two readers and a fill, with at most `preemptions` preemptions.
fn check(variant: Variant, preemptions: Option<usize>) {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = preemptions;
    model.check(move || {
        let l1 = Arc::new(L1::new(variant));
        let spawn = |run: fn(&L1)| {
            let l1 = Arc::clone(&l1);
            thread::spawn(move || run(&l1))
        };
        let threads =
            [spawn(L1::write), spawn(L1::write), spawn(L1::read_twice), spawn(L1::read_twice)];
        l1.fill();
        for thread in threads {
            thread.join().unwrap();
        }
        // Every change is acknowledged.
        l1.read_twice();
    });
}

/// One writer, one reader and a fill, without a bound on preemptions.
fn check_three(variant: Variant) {
    loom::model(move || {
        let l1 = Arc::new(L1::new(variant));
        let (writer, reader) = (Arc::clone(&l1), Arc::clone(&l1));
        let threads =
            [thread::spawn(move || writer.write()), thread::spawn(move || reader.read_twice())];
        l1.fill();
        for thread in threads {
            thread.join().unwrap();
        }
        l1.read_twice();
    });
}

#[test]
fn must_07_no_interleaving_of_two_changes_and_a_fill_keeps_an_old_entry() {
    check(Variant::Correct, Some(2));
}

#[test]
fn must_07_no_interleaving_of_a_change_and_a_fill_keeps_an_old_entry() {
    check_three(Variant::Correct);
}

#[test]
#[ignore = "minutes"]
fn must_07_no_interleaving_with_three_preemptions_keeps_an_old_entry() {
    check(Variant::Correct, Some(3));
}

/// A flush can run concurrently with a fill, as an invalidation can.
#[test]
fn must_07_no_interleaving_of_a_flush_and_a_fill_keeps_an_old_entry() {
    loom::model(|| {
        let l1 = Arc::new(L1::new(Variant::Correct));
        let flusher = Arc::clone(&l1);
        let flush = thread::spawn(move || {
            *flusher.row.lock().unwrap() = 1;
            flusher.epochs.invalidate_all(|| flusher.remove());
            flusher.acknowledged.fetch_max(1, Ordering::AcqRel);
        });
        l1.fill();
        flush.join().unwrap();
        l1.read_twice();
        assert!(!Epoch::never(0).is_at_least(l1.epochs.read(0)) || l1.get().is_none_or(|v| v == 1));
    });
}

/// A request that arrives after an acknowledged change does not use the result of a lookup that began before it.
#[test]
fn must_07_no_interleaving_lets_a_request_use_a_lookup_from_before_a_change() {
    loom::model(|| {
        let l1 = Arc::new(L1::new(Variant::Correct));
        let writer = Arc::clone(&l1);
        let write = thread::spawn(move || writer.write());
        let lookup = l1.epochs.read(0);
        let version = *l1.row.lock().unwrap();
        let known = l1.acknowledged.load(Ordering::Acquire);
        let arrival = l1.epochs.read(0);
        if lookup.is_at_least(arrival) {
            assert!(version >= known, "the request arrived after the change {known}");
        }
        write.join().unwrap();
    });
}

#[test]
#[should_panic(expected = "is acknowledged")]
fn fill_that_ignores_the_epoch_is_found() {
    check_three(Variant::FillWithoutCheck);
}

#[test]
#[should_panic(expected = "is acknowledged")]
fn fill_without_the_lock_is_found() {
    check_three(Variant::FillWithoutLock);
}

/// A copy that was taken between the increment and the removal would be used although the change is acknowledged.
#[test]
#[should_panic(expected = "the copy has version 0")]
fn epoch_that_is_incremented_before_the_removal_is_found() {
    check_three(Variant::IncrementBeforeRemoval);
}

#[test]
#[should_panic(expected = "is acknowledged")]
fn ticket_that_is_taken_after_the_row_was_read_is_found() {
    check_three(Variant::TicketAfterRead);
}

#[test]
#[should_panic(expected = "is acknowledged")]
fn copy_that_is_used_without_a_check_is_found() {
    check_three(Variant::CopyWithoutCheck);
}
