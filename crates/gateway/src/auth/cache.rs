//! The key cache: results of key lookups, for a bounded time.
//!
//! Invariants:
//! - An entry's key is the SHA-256 of the whole API key; the API key itself is never stored.
//! - An invalidation removes the entries of its key and raises the epoch. A lookup that began in an
//!   earlier epoch is not cached, so its result cannot undo a revocation.
//! - TTLs begin with the lookup, not with its response.
//! - Each read compares its own clock with the deadline in [`BusState`]. After the deadline, an entry is
//!   used only until [`STALE_TTL`] after the start of its lookup, even if no task runs.
//! - No entry outlives the expiry of its API key.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use linnet_platform::invalidation_bus::{BusState, InvalidationSink};
use linnet_protocol::invalidation::Invalidation;
use quick_cache::sync::Cache;

use super::{
    credentials::KeyHash,
    identity::KeyIdentity,
    lease::{LeaseEnd, Leases, STALE_TTL},
};
use crate::config::AuthSettings;

/// Whether an API key is valid.
#[derive(Debug, Clone)]
pub(crate) enum KeyStatus {
    /// Valid, with the identity of its owner.
    Valid(Arc<KeyIdentity>),
    /// Unknown, revoked or expired.
    Invalid,
}

/// A cached result of a key lookup.
#[derive(Clone)]
pub(super) struct CachedKey {
    pub(super) status: KeyStatus,
    /// The public id in the presented key. Invalidations contain this id.
    key_id: Box<str>,
    /// The start of the lookup.
    pub(super) verified_at: Instant,
    /// When the API key expires; `None` if it does not.
    pub(super) expires_at: Option<Instant>,
    fresh_until: Instant,
}

/// The start of a key lookup.
#[derive(Debug, Clone, Copy)]
pub(super) struct LookupStart {
    /// The epoch at the start. Requests after an invalidation have a later one, so they do not share
    /// a lookup that began before it.
    pub(super) epoch: u64,
    at: Instant,
}

/// The key cache of the process.
pub(crate) struct KeyCache {
    entries: Cache<KeyHash, CachedKey>,
    /// Keys that were valid at their latest lookup. A further lookup of such a key is not charged to the
    /// client's address in advance. An entry never expires, and does not authenticate a request.
    known_good: Cache<KeyHash, ()>,
    epoch: AtomicU64,
    bus: BusState,
    leases: Arc<Leases>,
    ttl: Duration,
    negative_ttl: Duration,
}

impl KeyCache {
    /// An empty cache. Its invalidation bus is stale at first.
    pub(crate) fn new(settings: &AuthSettings) -> Self {
        let bus = BusState::default();
        Self {
            entries: Cache::new(settings.cache_entries),
            known_good: Cache::new(settings.cache_entries),
            epoch: AtomicU64::new(0),
            leases: Leases::new(bus.clone()),
            bus,
            ttl: Duration::from_millis(settings.cache_ttl_ms),
            negative_ttl: Duration::from_millis(settings.negative_ttl_ms),
        }
    }

    /// The cached result of a key's lookup, if it is fresh.
    pub(super) fn get(&self, hash: &KeyHash, now: Instant) -> Option<CachedKey> {
        let entry = self.entries.get(hash)?;
        let is_fresh = now < entry.fresh_until
            && (now < entry.verified_at + STALE_TTL || self.bus.is_live_at(now));
        is_fresh.then_some(entry)
    }

    /// Whether the key's latest lookup found it valid.
    pub(super) fn is_known_good(&self, hash: &KeyHash) -> bool {
        self.known_good.get(hash).is_some()
    }

    /// The leases of long responses. A lease ends with its key.
    pub(super) fn leases(&self) -> &Arc<Leases> {
        &self.leases
    }

    /// Must be called before the lookup is sent.
    pub(super) fn start_lookup(&self, now: Instant) -> LookupStart {
        LookupStart { epoch: self.epoch.load(Ordering::SeqCst), at: now }
    }

    /// Caches the result of a lookup, unless an invalidation has arrived since its start.
    /// `expires_in` is the remaining lifetime of the API key; `None` if it does not expire.
    pub(super) fn insert(
        &self,
        start: LookupStart,
        hash: KeyHash,
        key_id: &str,
        status: KeyStatus,
        expires_in: Option<Duration>,
    ) {
        let ttl = match status {
            KeyStatus::Valid(_) => {
                self.known_good.insert(hash, ());
                self.ttl
            }
            KeyStatus::Invalid => {
                self.known_good.remove(&hash);
                self.negative_ttl
            }
        };
        if self.epoch.load(Ordering::SeqCst) != start.epoch {
            return;
        }
        let entry = CachedKey {
            status,
            key_id: key_id.into(),
            verified_at: start.at,
            // An expiry beyond the range of `Instant` counts as none.
            expires_at: expires_in.and_then(|expires_in| start.at.checked_add(expires_in)),
            fresh_until: start.at + expires_in.map_or(ttl, |expires_in| expires_in.min(ttl)),
        };
        self.entries.insert(hash, entry);
        // An invalidation between the check and the insert may have missed the entry, but it raised
        // the epoch first.
        if self.epoch.load(Ordering::SeqCst) != start.epoch {
            self.entries.remove(&hash);
        }
    }
}

impl InvalidationSink for KeyCache {
    fn receive(&self, message: &str) -> bool {
        let invalidation = Invalidation::decode(message);
        if let Some(Invalidation::Key { id }) = &invalidation {
            self.epoch.fetch_add(1, Ordering::SeqCst);
            self.entries.retain(|_, entry| *entry.key_id != **id);
            // Entries are removed first. A lease registers and then reads the cache, so a lease that
            // begins meanwhile either finds no entry or is ended here.
            self.leases.end(id, LeaseEnd::KeyEnded);
        }
        invalidation.is_some()
    }

    fn flush(&self) {
        self.epoch.fetch_add(1, Ordering::SeqCst);
        self.entries.clear();
        self.leases.require_verification();
    }

    fn bus_state(&self) -> &BusState {
        &self.bus
    }
}

#[cfg(test)]
mod tests {
    use linnet_domain::{Scopes, UserId};

    use super::*;

    const HASH: KeyHash = [7; 32];
    const ID: &str = "Ab3xYz01";

    fn live_cache() -> KeyCache {
        let cache = KeyCache::new(&AuthSettings::default());
        cache.bus.extend(Instant::now() + Duration::from_hours(1));
        cache
    }

    fn valid() -> KeyStatus {
        KeyStatus::Valid(Arc::new(KeyIdentity::new(ID, UserId::MIN, Scopes::default()).unwrap()))
    }

    fn just_before(instant: Instant) -> Instant {
        instant.checked_sub(Duration::from_nanos(1)).unwrap()
    }

    fn invalidation(id: &str) -> String {
        Invalidation::Key { id: id.into() }.encode()
    }

    #[test]
    fn invalidation_removes_only_its_key() {
        let (cache, now) = (live_cache(), Instant::now());
        cache.insert(cache.start_lookup(now), HASH, ID, valid(), None);
        assert!(cache.receive(&invalidation("Zz3xYz99")));
        assert!(cache.get(&HASH, now).is_some());
        assert!(cache.receive(&invalidation(ID)));
        assert!(cache.get(&HASH, now).is_none());
    }

    #[test]
    fn must_07_lookup_that_began_before_an_invalidation_is_not_cached() {
        let (cache, now) = (live_cache(), Instant::now());
        let start = cache.start_lookup(now);
        assert!(cache.receive(&invalidation(ID)));
        cache.insert(start, HASH, ID, valid(), None);
        assert!(cache.get(&HASH, now).is_none());
    }

    #[test]
    fn stale_bus_flushes_the_cache_and_shortens_ttls() {
        let (cache, now) = (live_cache(), Instant::now());
        cache.insert(cache.start_lookup(now), HASH, ID, valid(), None);
        cache.bus.end();
        cache.flush();
        assert!(cache.get(&HASH, now).is_none());
        cache.insert(cache.start_lookup(now), HASH, ID, valid(), None);
        assert!(cache.get(&HASH, just_before(now + STALE_TTL)).is_some());
        assert!(cache.get(&HASH, now + STALE_TTL).is_none());
    }

    #[test]
    fn must_28_no_entry_is_older_than_a_second_when_the_bus_task_does_not_run() {
        let (cache, now) = (live_cache(), Instant::now());
        cache.insert(cache.start_lookup(now), HASH, ID, valid(), None);
        let live_until = now + Duration::from_millis(1_500);
        cache.bus.extend(live_until);
        assert!(cache.get(&HASH, just_before(live_until)).is_some(), "the bus is live");
        assert!(cache.get(&HASH, live_until).is_none(), "nothing has flushed the cache");
    }

    #[test]
    fn key_stays_known_good_until_a_lookup_rejects_it() {
        let (cache, now) = (live_cache(), Instant::now());
        assert!(!cache.is_known_good(&HASH));
        cache.insert(cache.start_lookup(now), HASH, ID, valid(), None);
        cache.flush();
        assert!(cache.is_known_good(&HASH));
        cache.insert(cache.start_lookup(now), HASH, ID, KeyStatus::Invalid, None);
        assert!(!cache.is_known_good(&HASH));
    }

    #[test]
    fn entry_never_outlives_its_key() {
        let (cache, now) = (live_cache(), Instant::now());
        let expires_in = Duration::from_secs(3);
        cache.insert(cache.start_lookup(now), HASH, ID, valid(), Some(expires_in));
        assert!(cache.get(&HASH, just_before(now + expires_in)).is_some());
        assert!(cache.get(&HASH, now + expires_in).is_none());
        cache.insert(cache.start_lookup(now), HASH, ID, valid(), Some(Duration::ZERO));
        assert!(cache.get(&HASH, now).is_none());
    }

    #[test]
    fn invalid_key_has_the_negative_ttl() {
        let (cache, now) = (live_cache(), Instant::now());
        cache.insert(cache.start_lookup(now), HASH, ID, KeyStatus::Invalid, None);
        let negative_ttl = Duration::from_secs(5);
        let before = cache.get(&HASH, just_before(now + negative_ttl)).unwrap();
        assert!(matches!(before.status, KeyStatus::Invalid));
        assert!(cache.get(&HASH, now + negative_ttl).is_none());
    }

    #[test]
    fn number_of_entries_is_bounded() {
        let settings = AuthSettings { cache_entries: 100, ..AuthSettings::default() };
        let cache = KeyCache::new(&settings);
        for n in 0..10_000_u32 {
            let mut hash = HASH;
            hash[..4].copy_from_slice(&n.to_be_bytes());
            let start = cache.start_lookup(Instant::now());
            cache.insert(start, hash, ID, KeyStatus::Invalid, None);
        }
        assert!(cache.entries.len() <= 200, "{}", cache.entries.len());
    }
}
