//! The key cache: results of key lookups, for a bounded time.
//!
//! Invariants:
//! - An entry's key is the SHA-256 of the whole API key; the API key itself is never stored.
//! - An invalidation removes the entries of its key and raises the epoch. A lookup that began in an
//!   earlier epoch is not cached, so its result cannot undo a revocation.
//! - TTLs begin with the lookup, not with its response. While the invalidation bus is stale they are
//!   at most [`STALE_TTL`].
//! - No entry outlives the expiry of its API key.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use linnet_platform::invalidation_bus::InvalidationSink;
use linnet_protocol::invalidation::Invalidation;
use quick_cache::sync::Cache;

use super::{credentials::KeyHash, identity::KeyIdentity};
use crate::config::AuthSettings;

/// Longest TTL while the invalidation bus is stale.
const STALE_TTL: Duration = Duration::from_secs(1);

/// Whether an API key is valid.
#[derive(Debug, Clone)]
pub(crate) enum KeyStatus {
    /// Valid, with the identity of its owner.
    Valid(Arc<KeyIdentity>),
    /// Unknown, revoked or expired.
    Invalid,
}

#[derive(Clone)]
struct CachedKey {
    status: KeyStatus,
    /// The public id in the presented key. Invalidations contain this id.
    key_id: Box<str>,
    fresh_until: Instant,
}

/// The start of a key lookup.
#[derive(Debug, Clone, Copy)]
pub(super) struct LookupStart {
    /// Requests after an invalidation must not share a lookup that began before it.
    pub(super) epoch: u64,
    at: Instant,
}

/// The key cache of the process.
pub(crate) struct KeyCache {
    entries: Cache<KeyHash, CachedKey>,
    epoch: AtomicU64,
    is_live: AtomicBool,
    ttl: Duration,
    negative_ttl: Duration,
}

impl KeyCache {
    /// An empty cache. The invalidation bus counts as stale until it reports that it is live.
    pub(crate) fn new(settings: &AuthSettings) -> Self {
        Self {
            entries: Cache::new(settings.cache_entries),
            epoch: AtomicU64::new(0),
            is_live: AtomicBool::new(false),
            ttl: Duration::from_millis(settings.cache_ttl_ms),
            negative_ttl: Duration::from_millis(settings.negative_ttl_ms),
        }
    }

    /// The cached status of a key, if it is fresh.
    pub(super) fn get(&self, hash: &KeyHash, now: Instant) -> Option<KeyStatus> {
        let entry = self.entries.get(hash)?;
        (now < entry.fresh_until).then_some(entry.status)
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
            KeyStatus::Valid(_) => self.ttl,
            KeyStatus::Invalid => self.negative_ttl,
        };
        let ttl = if self.is_live.load(Ordering::SeqCst) { ttl } else { ttl.min(STALE_TTL) };
        let fresh_until = start.at + expires_in.map_or(ttl, |expires_in| expires_in.min(ttl));
        if self.epoch.load(Ordering::SeqCst) != start.epoch {
            return;
        }
        self.entries.insert(hash, CachedKey { status, key_id: key_id.into(), fresh_until });
        // An invalidation between the check and the insert may have missed the entry, but it raised
        // the epoch first.
        if self.epoch.load(Ordering::SeqCst) != start.epoch {
            self.entries.remove(&hash);
        }
    }

    fn flush(&self) {
        self.epoch.fetch_add(1, Ordering::SeqCst);
        self.entries.clear();
    }
}

impl InvalidationSink for KeyCache {
    fn receive(&self, message: &str) -> bool {
        let invalidation = Invalidation::decode(message);
        if let Some(Invalidation::Key { id }) = &invalidation {
            self.epoch.fetch_add(1, Ordering::SeqCst);
            self.entries.retain(|_, entry| *entry.key_id != **id);
        }
        invalidation.is_some()
    }

    fn went_stale(&self) {
        self.is_live.store(false, Ordering::SeqCst);
        self.flush();
    }

    fn went_live(&self) {
        self.is_live.store(true, Ordering::SeqCst);
        self.flush();
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
        cache.went_live();
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
        cache.went_stale();
        assert!(cache.get(&HASH, now).is_none());
        cache.insert(cache.start_lookup(now), HASH, ID, valid(), None);
        assert!(cache.get(&HASH, just_before(now + STALE_TTL)).is_some());
        assert!(cache.get(&HASH, now + STALE_TTL).is_none());
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
        let before = just_before(now + negative_ttl);
        assert!(matches!(cache.get(&HASH, before), Some(KeyStatus::Invalid)));
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
