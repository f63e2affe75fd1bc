//! L1: the process's own cache.
//!
//! * A fill takes a [`Ticket`] before it reads anything. The ticket has the time, and the epoch of the code's slot.
//! * A fill is discarded if an invalidation has changed the epoch since ([`super::epochs`]). Many codes share a
//!   slot, so some current entries are discarded too, but a stale entry is never kept.
//! * TTLs count from the ticket, so a slow lookup does not lengthen them.
//! * A request that joins a lookup uses its result only if it could have found it in the cache
//!   ([`L1Cache::answers`]): the lookup may have begun before a change that the request must see.
//!
//! Each read compares its own clock with the deadline in [`BusState`]: past it, an entry is used for
//! [`STALE_TTL`] at most, one from L2 for [`STALE_TTL_FROM_L2`]. No task has to run for that.

use std::{
    hash::{BuildHasher, RandomState},
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::{Duration, Instant},
};

use linnet_platform::invalidation_bus::{BusState, InvalidationSink};
use linnet_protocol::invalidation::Invalidation;
use quick_cache::{Weighter, sync::Cache};

use super::{
    CacheEntry, CacheSettings, Resolution,
    epochs::{Epoch, Epochs},
};

const EPOCH_SLOTS: usize = 1_024;
/// Longest TTL while the bus is stale. With the time to send a response it stays below 1 s.
const STALE_TTL: Duration = Duration::from_millis(900);
/// The same for an entry from L2. L2 lacks a change until it is published: usually for milliseconds, and for 400 ms if the
/// outbox relay has to do it. The entry can be that much older than its ticket.
const STALE_TTL_FROM_L2: Duration = Duration::from_millis(500);
/// Memory of an entry besides its code and target, in bytes: the headers of two allocations, the entry,
/// and the slot of the cache.
const ENTRY_OVERHEAD: usize = 200;

/// A cached entry with its expiry.
#[derive(Debug)]
pub(super) struct L1Entry {
    pub(super) entry: CacheEntry,
    /// The epoch that was read before the entry.
    epoch: Epoch,
    fresh_until: Instant,
    /// The time until which the entry is used while the bus is stale.
    fresh_without_bus_until: Instant,
}

impl L1Entry {
    fn new(
        entry: CacheEntry,
        Ticket { epoch, taken }: Ticket,
        ttl: Duration,
        stale_ttl: Duration,
    ) -> Self {
        let fresh_without_bus_until = taken + ttl.min(stale_ttl);
        Self { entry, epoch, fresh_until: taken + ttl, fresh_without_bus_until }
    }

    /// A copy that shares no memory with this one.
    pub(super) fn unshared_copy(&self) -> Self {
        let resolution = match &self.entry.resolution {
            Resolution::Redirect(redirect) => Resolution::Redirect(redirect.unshared_copy()),
            other => other.clone(),
        };
        let entry = CacheEntry { version: self.entry.version, resolution };
        Self { entry, ..*self }
    }
}

impl Ticket {
    pub(super) fn taken(&self) -> Instant {
        self.taken
    }
}

/// When a fill began, by the clock and by the epoch of the code's slot.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ticket {
    epoch: Epoch,
    taken: Instant,
}

/// Tickets for all codes, taken at one moment.
pub(super) struct Tickets<'a> {
    cache: &'a L1Cache,
    epochs: Vec<Epoch>,
    taken: Instant,
}

impl Tickets<'_> {
    /// The ticket of one code.
    pub(super) fn of(&self, code: &str) -> Ticket {
        let slot = self.cache.slot(code);
        let epoch = self.epochs.get(slot).copied().unwrap_or_else(|| Epoch::never(slot));
        Ticket { epoch, taken: self.taken }
    }
}

fn slot_of(hash: u64) -> usize {
    // The remainder is below 1,024.
    usize::try_from(hash % EPOCH_SLOTS as u64).unwrap_or(0)
}

/// Spreads a TTL by ± 10 % over the slots, so that entries that were loaded together do not expire
/// together.
fn spread(ttl: Duration, slot: usize) -> Duration {
    let share = u32::try_from(slot * 200 / EPOCH_SLOTS).unwrap_or(100);
    ttl * (900 + share) / 1_000
}

#[derive(Debug, Clone)]
struct ByBytes;

impl Weighter<Box<str>, Arc<L1Entry>> for ByBytes {
    fn weight(&self, code: &Box<str>, cached: &Arc<L1Entry>) -> u64 {
        let target = match &cached.entry.resolution {
            Resolution::Redirect(redirect) => redirect.heap_bytes(),
            Resolution::Limited | Resolution::Negative(_) => 0,
        };
        (ENTRY_OVERHEAD + code.len() + target) as u64
    }
}

/// The cache; one for all server threads of a process. Links are bounded by bytes, negative entries by
/// count, so requests for random codes cannot evict links.
pub struct L1Cache {
    links: Cache<Box<str>, Arc<L1Entry>, ByBytes>,
    negative: Cache<Box<str>, Arc<L1Entry>>,
    epochs: Epochs,
    hasher: RandomState,
    bus: BusState,
    ttl: Duration,
    negative_ttl: Duration,
    /// A version that the sequence in PostgreSQL has reached; 0 until the first check.
    reached_version: AtomicI64,
}

impl L1Cache {
    /// An empty cache, whose bus is stale.
    pub fn new(settings: &CacheSettings) -> Self {
        let expected = usize::try_from(settings.l1_bytes).unwrap_or(usize::MAX) / 256;
        Self {
            links: Cache::with_weighter(expected, settings.l1_bytes, ByBytes),
            negative: Cache::new(settings.l1_negative_entries),
            epochs: Epochs::new(EPOCH_SLOTS),
            hasher: RandomState::new(),
            bus: BusState::default(),
            ttl: Duration::from_millis(settings.l1_ttl_ms),
            negative_ttl: Duration::from_millis(settings.l1_negative_ttl_ms),
            reached_version: AtomicI64::new(0),
        }
    }

    /// Whether the sequence is known to have reached this version.
    pub(super) fn has_reached(&self, version: i64) -> bool {
        version <= self.reached_version.load(Ordering::Relaxed)
    }

    /// Records that the sequence has reached this version.
    pub(super) fn record_reached(&self, last_version: i64) {
        self.reached_version.fetch_max(last_version, Ordering::Relaxed);
    }

    /// Returns the code's entry if it is fresh at `now`.
    #[inline]
    pub(super) fn get(&self, code: &str, now: Instant) -> Option<Arc<L1Entry>> {
        let entry = self.links.get(code).or_else(|| self.negative.get(code))?;
        self.is_fresh(&entry, now).then_some(entry)
    }

    /// Whether the entry may be used at `now`.
    #[inline]
    pub(super) fn is_fresh(&self, entry: &L1Entry, now: Instant) -> bool {
        now < entry.fresh_without_bus_until || (now < entry.fresh_until && self.bus.is_live_at(now))
    }

    /// Takes a ticket. A fill takes it before it reads anything.
    pub(super) fn ticket(&self, code: &str) -> Ticket {
        self.ticket_of_hash(self.hash(code))
    }

    /// [`L1Cache::ticket`] of the code with this hash.
    pub(super) fn ticket_of_hash(&self, hash: u64) -> Ticket {
        Ticket { epoch: self.epochs.read(slot_of(hash)), taken: Instant::now() }
    }

    /// The hash of a code, which determines its slot.
    pub(super) fn hash(&self, code: &str) -> u64 {
        self.hasher.hash_one(code)
    }

    /// Takes tickets for all codes. A fill of many codes takes them before it reads anything.
    pub(super) fn tickets(&self) -> Tickets<'_> {
        let epochs = (0..EPOCH_SLOTS).map(|slot| self.epochs.read(slot)).collect();
        Tickets { cache: self, epochs, taken: Instant::now() }
    }

    /// Caches the result of a fill unless the code was invalidated after the ticket was taken. Returns the
    /// entry in either case: the request began before the change, so the old target is a valid response.
    pub(super) fn fill(&self, code: &str, entry: CacheEntry, ticket: Ticket) -> Arc<L1Entry> {
        self.insert(code, entry, ticket, STALE_TTL)
    }

    /// [`L1Cache::fill`] with an entry that was read from L2.
    pub(super) fn fill_from_l2(
        &self,
        code: &str,
        entry: CacheEntry,
        ticket: Ticket,
    ) -> Arc<L1Entry> {
        self.insert(code, entry, ticket, STALE_TTL_FROM_L2)
    }

    fn insert(
        &self,
        code: &str,
        entry: CacheEntry,
        ticket: Ticket,
        stale_ttl: Duration,
    ) -> Arc<L1Entry> {
        let is_negative = matches!(entry.resolution, Resolution::Negative(_));
        let ttl = if is_negative { self.negative_ttl } else { self.ttl };
        let cached =
            Arc::new(L1Entry::new(entry, ticket, spread(ttl, ticket.epoch.slot), stale_ttl));
        let insert = || {
            if is_negative {
                self.negative.insert(code.into(), Arc::clone(&cached));
                // `get` reads links first, so an expired link would hide this entry.
                self.links.remove(code);
            } else {
                self.links.insert(code.into(), Arc::clone(&cached));
                self.negative.remove(code);
            }
        };
        self.epochs.insert_if_current(ticket.epoch, insert);
        cached
    }

    /// Whether no code of the slot was invalidated after the ticket was taken.
    pub(super) fn is_current(&self, ticket: Ticket) -> bool {
        self.epochs.is_current(ticket.epoch)
    }

    /// Whether the result of a lookup may answer a request that arrived with this ticket: no code of the slot was
    /// invalidated between the two tickets, and the entry was fresh when the request arrived.
    pub(super) fn answers(&self, entry: &L1Entry, arrival: Ticket) -> bool {
        entry.epoch.is_at_least(arrival.epoch) && self.is_fresh(entry, arrival.taken)
    }

    /// Drops the entry of a code, and makes all tickets of its slot out of date.
    pub fn invalidate(&self, code: &str) {
        self.epochs.invalidate(self.slot(code), || self.remove(code));
    }

    /// Whether the invalidation bus is live.
    pub(super) fn bus_is_live(&self) -> bool {
        self.bus.is_live()
    }

    /// Number of links, and their size in bytes.
    pub fn size(&self) -> (usize, u64) {
        (self.links.len(), self.links.weight())
    }

    fn remove(&self, code: &str) {
        self.links.remove(code);
        self.negative.remove(code);
    }

    fn clear(&self) {
        self.epochs.invalidate_all(|| {
            self.links.clear();
            self.negative.clear();
        });
    }

    fn slot(&self, code: &str) -> usize {
        slot_of(self.hash(code))
    }
}

impl InvalidationSink for L1Cache {
    fn receive(&self, message: &str) -> bool {
        let invalidation = Invalidation::decode(message);
        if let Some(Invalidation::Link { code, .. }) = &invalidation {
            self.invalidate(code);
        }
        invalidation.is_some()
    }

    fn flush(&self) {
        self.clear();
    }

    fn bus_state(&self) -> &BusState {
        &self.bus
    }
}

#[cfg(test)]
mod tests;
