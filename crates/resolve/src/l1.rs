//! L1: the process's own cache.
//!
//! A fill can race a change: it reads the old row, the change drops the code here, and the fill
//! would then put the old answer back for a whole lifetime. So each fill takes a [`Ticket`] before
//! it reads anything; a change moves the epoch of the code's slot, and an entry whose ticket is out
//! of date is not kept. Slots are shared by many codes, which costs a needless miss now and then and
//! never a stale answer.
//!
//! An entry's life is counted from its ticket, so a slow look-up does not lengthen it.

use std::{
    hash::{BuildHasher, RandomState},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use linnet_platform::invalidation_bus::InvalidationSink;
use linnet_protocol::invalidation::Invalidation;
use quick_cache::{Weighter, sync::Cache};

use super::{Answer, CacheSettings, Entry};

const EPOCH_SLOTS: usize = 1_024;
/// Longest life while the change feed is cut: with the time it takes to answer, below 1 s.
const STALE_TTL: Duration = Duration::from_millis(900);
/// What an entry costs besides its code and target: the two allocations' headers, the entry, and the
/// cache's own slot.
const ENTRY_OVERHEAD: usize = 200;

/// An entry and how long it may be used.
#[derive(Debug)]
pub(super) struct CachedEntry {
    pub(super) entry: Entry,
    fresh_until: Instant,
}

impl CachedEntry {
    pub(super) fn is_fresh(&self, now: Instant) -> bool {
        self.fresh_until > now
    }

    /// A copy that shares nothing with this one.
    pub(super) fn copied(&self) -> Self {
        let answer = match &self.entry.answer {
            Answer::Redirect(redirect) => Answer::Redirect(redirect.copied()),
            other => other.clone(),
        };
        let entry = Entry { version: self.entry.version, answer };
        Self { entry, fresh_until: self.fresh_until }
    }
}

impl Ticket {
    pub(super) fn taken(&self) -> Instant {
        self.taken
    }
}

/// Proof of when a fill began.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ticket {
    slot: usize,
    epoch: u64,
    taken: Instant,
}

/// Tickets for every code, all taken at one moment.
pub(super) struct Tickets<'a> {
    cache: &'a L1Cache,
    epochs: Vec<u64>,
    taken: Instant,
}

impl Tickets<'_> {
    /// The ticket of one code.
    pub(super) fn of(&self, code: &str) -> Ticket {
        let slot = self.cache.slot(code);
        // A slot that is not there could never be current.
        let epoch = self.epochs.get(slot).copied().unwrap_or(u64::MAX);
        Ticket { slot, epoch, taken: self.taken }
    }
}

fn slot_of(hash: u64) -> usize {
    // The remainder is below 1,024.
    usize::try_from(hash % EPOCH_SLOTS as u64).unwrap_or(0)
}

/// A life within 10 % of the given one, by the code's slot: what was loaded together does not run out
/// together.
fn spread(ttl: Duration, slot: usize) -> Duration {
    let share = u32::try_from(slot * 200 / EPOCH_SLOTS).unwrap_or(100);
    ttl * (900 + share) / 1_000
}

#[derive(Debug, Clone)]
struct ByBytes;

impl Weighter<Box<str>, Arc<CachedEntry>> for ByBytes {
    fn weight(&self, code: &Box<str>, held: &Arc<CachedEntry>) -> u64 {
        let target = match &held.entry.answer {
            Answer::Redirect(redirect) => redirect.heap_bytes(),
            Answer::Limited | Answer::Absent => 0,
        };
        (ENTRY_OVERHEAD + code.len() + target) as u64
    }
}

/// The cache; one for all workers of a process.
pub struct L1Cache {
    links: Cache<Box<str>, Arc<CachedEntry>, ByBytes>,
    absent: Cache<Box<str>, Arc<CachedEntry>>,
    epochs: Box<[AtomicU64]>,
    hasher: RandomState,
    bus_is_live: AtomicBool,
    ttl: Duration,
    absent_ttl: Duration,
}

impl L1Cache {
    /// An empty cache, with the change feed cut.
    pub fn new(settings: &CacheSettings) -> Self {
        let expected = usize::try_from(settings.l1_bytes).unwrap_or(usize::MAX) / 256;
        Self {
            links: Cache::with_weighter(expected, settings.l1_bytes, ByBytes),
            absent: Cache::new(settings.l1_negative_entries),
            epochs: (0..EPOCH_SLOTS).map(|_| AtomicU64::new(0)).collect(),
            hasher: RandomState::new(),
            bus_is_live: AtomicBool::new(false),
            ttl: Duration::from_millis(settings.l1_ttl_ms),
            absent_ttl: Duration::from_millis(settings.l1_negative_ttl_ms),
        }
    }

    /// What is known of a code at `now`.
    #[inline]
    pub(super) fn get(&self, code: &str, now: Instant) -> Option<Arc<CachedEntry>> {
        let held = self.links.get(code).or_else(|| self.absent.get(code))?;
        held.is_fresh(now).then_some(held)
    }

    /// To be taken before a fill reads anything.
    pub(super) fn ticket(&self, code: &str) -> Ticket {
        self.ticket_of_hash(self.hash(code))
    }

    /// [`L1Cache::ticket`] of the code with this hash.
    pub(super) fn ticket_of_hash(&self, hash: u64) -> Ticket {
        let slot = slot_of(hash);
        Ticket { slot, epoch: self.epoch(slot), taken: Instant::now() }
    }

    /// A code's hash, which decides its slot.
    pub(super) fn hash(&self, code: &str) -> u64 {
        self.hasher.hash_one(code)
    }

    /// To be taken before a fill of many codes reads anything.
    pub(super) fn tickets(&self) -> Tickets<'_> {
        let epochs = (0..EPOCH_SLOTS).map(|slot| self.epoch(slot)).collect();
        Tickets { cache: self, epochs, taken: Instant::now() }
    }

    /// Keeps what a fill brought, unless a change came in between. Gives it back in either case: the
    /// request that asked began before the change.
    pub(super) fn fill(&self, code: &str, entry: Entry, ticket: Ticket) -> Arc<CachedEntry> {
        let is_absent = entry.answer == Answer::Absent;
        let live = self.bus_is_live();
        let ttl = if is_absent { self.absent_ttl } else { self.ttl };
        let ttl = if live { spread(ttl, ticket.slot) } else { ttl.min(STALE_TTL) };
        let held = Arc::new(CachedEntry { entry, fresh_until: ticket.taken + ttl });
        if !self.is_current(ticket) {
            return held;
        }
        if is_absent {
            self.absent.insert(code.into(), Arc::clone(&held));
            // Or a link whose entry has run out would shadow its absence.
            self.links.remove(code);
        } else {
            self.links.insert(code.into(), Arc::clone(&held));
            self.absent.remove(code);
        }
        // A change between the check and the insertion moved the epoch before it removed the code:
        // either it removed this entry, or the new epoch is seen here.
        if !self.is_current(ticket) {
            self.remove(code);
        }
        held
    }

    /// Whether no change has come since the ticket was taken.
    pub(super) fn is_current(&self, ticket: Ticket) -> bool {
        self.epoch(ticket.slot) == ticket.epoch
    }

    /// Drops what a change made untrue.
    pub fn invalidate(&self, code: &str) {
        if let Some(epoch) = self.epochs.get(self.slot(code)) {
            epoch.fetch_add(1, Ordering::AcqRel);
        }
        self.remove(code);
    }

    /// Whether changes are heard of.
    pub(super) fn bus_is_live(&self) -> bool {
        self.bus_is_live.load(Ordering::Acquire)
    }

    /// Entries of links, and their weight in bytes, for metrics.
    pub fn size(&self) -> (usize, u64) {
        (self.links.len(), self.links.weight())
    }

    fn remove(&self, code: &str) {
        self.links.remove(code);
        self.absent.remove(code);
    }

    fn clear(&self) {
        for epoch in &self.epochs {
            epoch.fetch_add(1, Ordering::AcqRel);
        }
        self.links.clear();
        self.absent.clear();
    }

    fn slot(&self, code: &str) -> usize {
        slot_of(self.hash(code))
    }

    fn epoch(&self, slot: usize) -> u64 {
        self.epochs.get(slot).map_or(0, |epoch| epoch.load(Ordering::Acquire))
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

    fn went_stale(&self) {
        self.bus_is_live.store(false, Ordering::Release);
        self.clear();
    }

    fn went_live(&self) {
        self.clear();
        self.bus_is_live.store(true, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Redirect;
    use linnet_domain::LinkId;

    fn cache() -> L1Cache {
        let cache = L1Cache::new(&CacheSettings::default());
        cache.went_live();
        cache
    }

    fn entry(version: i64) -> Entry {
        let redirect = Redirect::new("https://example.com/", 302, None, LinkId::MIN).unwrap();
        Entry { version, answer: Answer::Redirect(redirect) }
    }

    fn is_held(cache: &L1Cache, code: &str) -> bool {
        cache.get(code, Instant::now()).is_some()
    }

    #[test]
    fn must_07_a_fill_that_races_a_change_is_not_kept() {
        let cache = cache();
        let ticket = cache.ticket("abc");
        cache.invalidate("abc");
        cache.fill("abc", entry(1), ticket);
        assert!(!is_held(&cache, "abc"));
        let ticket = cache.ticket("abc");
        cache.fill("abc", entry(2), ticket);
        assert!(is_held(&cache, "abc"));
    }

    #[test]
    fn must_07_a_cut_feed_empties_the_cache_and_shortens_lives() {
        let cache = cache();
        cache.fill("abc", entry(1), cache.ticket("abc"));
        let before_cut = cache.ticket("def");
        cache.went_stale();
        assert!(!is_held(&cache, "abc"));
        cache.fill("def", entry(1), before_cut);
        assert!(!is_held(&cache, "def"), "a fill from before the cut is not kept");
        cache.fill("ghi", entry(1), cache.ticket("ghi"));
        assert!(is_held(&cache, "ghi"));
        assert!(cache.get("ghi", Instant::now() + Duration::from_millis(950)).is_none());
        cache.went_live();
        assert!(!is_held(&cache, "ghi"), "what was cached while cut is forgotten");
    }

    #[test]
    fn must_19_absent_codes_do_not_push_out_links() {
        let cache = cache();
        cache.fill("hot", entry(1), cache.ticket("hot"));
        for n in 0..200_000 {
            let code = format!("x{n}");
            cache.fill(&code, Entry::ABSENT, cache.ticket(&code));
        }
        assert!(is_held(&cache, "hot"));
        assert!(cache.absent.len() <= CacheSettings::default().l1_negative_entries);
    }

    #[test]
    fn a_link_replaces_its_own_absence() {
        let cache = cache();
        cache.fill("abc", Entry::ABSENT, cache.ticket("abc"));
        cache.fill("abc", entry(1), cache.ticket("abc"));
        let held = cache.get("abc", Instant::now()).unwrap();
        assert_eq!(held.entry.version, 1);
    }
}
