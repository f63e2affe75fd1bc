//! What the shortener said about keys, for a while.
//!
//! Invariants:
//! - A key is remembered by the SHA-256 of all of it; the key itself is never kept.
//! - A change drops what is remembered about that key, and raises the epoch. A look-up that was
//!   under way when the epoch rose is not remembered, so a revocation can't be overtaken by the
//!   answer that it made untrue.
//! - Lifetimes count from the *start* of a look-up. While the change feed is cut they are at most
//!   [`STALE_TTL`].
//! - No entry outlives its key's expiry.

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

/// Longest lifetime while changes can't be heard.
const STALE_TTL: Duration = Duration::from_secs(1);

/// What is known about a presented key.
#[derive(Debug, Clone)]
pub(crate) enum Known {
    /// It is valid, and whose it is.
    Valid(Arc<KeyIdentity>),
    /// It is unknown, revoked or expired.
    Invalid,
}

#[derive(Clone)]
struct Entry {
    known: Known,
    /// The public id as presented, so that a change of that key finds the entry.
    key_id: Box<str>,
    until: Instant,
}

/// The moment at which a look-up began.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Begun {
    /// Part of a flight's name: who comes after a change must not join a flight from before it.
    pub(crate) epoch: u64,
    at: Instant,
}

/// The process's memory of keys.
pub(crate) struct KeyCache {
    entries: Cache<KeyHash, Entry>,
    epoch: AtomicU64,
    live: AtomicBool,
    ttl: Duration,
    negative_ttl: Duration,
}

impl KeyCache {
    /// Until the change feed is live, nothing is kept long.
    pub(crate) fn new(settings: &AuthSettings) -> Self {
        Self {
            entries: Cache::new(settings.cache_entries),
            epoch: AtomicU64::new(0),
            live: AtomicBool::new(false),
            ttl: Duration::from_millis(settings.cache_ttl_ms),
            negative_ttl: Duration::from_millis(settings.negative_ttl_ms),
        }
    }

    /// What is remembered about the key, if anything.
    pub(crate) fn get(&self, hash: &KeyHash) -> Option<Known> {
        let entry = self.entries.get(hash)?;
        (Instant::now() < entry.until).then_some(entry.known)
    }

    /// Call it before the shortener is asked.
    pub(crate) fn begin(&self) -> Begun {
        Begun { epoch: self.epoch.load(Ordering::SeqCst), at: Instant::now() }
    }

    /// Remembers an answer, unless something changed since the question. `expires_in` is what the
    /// key has left to live.
    pub(crate) fn put(
        &self,
        begun: Begun,
        hash: KeyHash,
        key_id: &str,
        known: Known,
        expires_in: Option<Duration>,
    ) {
        let ttl = match known {
            Known::Valid(_) => self.ttl,
            Known::Invalid => self.negative_ttl,
        };
        let ttl = if self.live.load(Ordering::SeqCst) { ttl } else { ttl.min(STALE_TTL) };
        let until = begun.at + expires_in.map_or(ttl, |left| left.min(ttl));
        if self.epoch.load(Ordering::SeqCst) != begun.epoch {
            return;
        }
        self.entries.insert(hash, Entry { known, key_id: key_id.into(), until });
        // A change between the check and the insert has swept already; it has raised the epoch
        // before that.
        if self.epoch.load(Ordering::SeqCst) != begun.epoch {
            self.entries.remove(&hash);
        }
    }

    fn forget_all(&self) {
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
        self.live.store(false, Ordering::SeqCst);
        self.forget_all();
    }

    fn went_live(&self) {
        self.live.store(true, Ordering::SeqCst);
        self.forget_all();
    }
}

#[cfg(test)]
mod tests {
    use linnet_domain::Scopes;

    use super::*;

    const HASH: KeyHash = [7; 32];
    const ID: &str = "Ab3xYz01";

    fn cache() -> KeyCache {
        let cache = KeyCache::new(&AuthSettings::default());
        cache.went_live();
        cache
    }

    fn valid() -> Known {
        Known::Valid(Arc::new(KeyIdentity::new(ID, 7, Scopes::default()).unwrap()))
    }

    fn change(id: &str) -> String {
        Invalidation::Key { id: id.into() }.encode()
    }

    #[test]
    fn a_change_drops_its_key_and_no_other() {
        let cache = cache();
        cache.put(cache.begin(), HASH, ID, valid(), None);
        assert!(cache.receive(&change("Zz3xYz99")));
        assert!(cache.get(&HASH).is_some());
        assert!(cache.receive(&change(ID)));
        assert!(cache.get(&HASH).is_none());
    }

    #[test]
    fn must_07_an_answer_that_a_change_overtook_is_not_remembered() {
        let cache = cache();
        let begun = cache.begin();
        assert!(cache.receive(&change(ID)));
        cache.put(begun, HASH, ID, valid(), None);
        assert!(cache.get(&HASH).is_none());
    }

    #[test]
    fn a_cut_forgets_everything_and_shortens_lifetimes() {
        let cache = cache();
        cache.put(cache.begin(), HASH, ID, valid(), None);
        cache.went_stale();
        assert!(cache.get(&HASH).is_none());
        let begun = cache.begin();
        cache.put(begun, HASH, ID, valid(), None);
        assert_eq!(cache.entries.get(&HASH).unwrap().until, begun.at + STALE_TTL);
    }

    #[test]
    fn an_entry_never_outlives_its_key() {
        let cache = cache();
        let begun = cache.begin();
        cache.put(begun, HASH, ID, valid(), Some(Duration::from_secs(3)));
        assert_eq!(cache.entries.get(&HASH).unwrap().until, begun.at + Duration::from_secs(3));
        let begun = cache.begin();
        cache.put(begun, HASH, ID, valid(), Some(Duration::ZERO));
        assert!(cache.get(&HASH).is_none());
    }

    #[test]
    fn unknown_keys_are_remembered_shorter() {
        let cache = cache();
        let begun = cache.begin();
        cache.put(begun, HASH, ID, Known::Invalid, None);
        assert_eq!(cache.entries.get(&HASH).unwrap().until, begun.at + Duration::from_secs(5));
        assert!(matches!(cache.get(&HASH), Some(Known::Invalid)));
    }

    #[test]
    fn the_cache_is_bounded() {
        let settings = AuthSettings { cache_entries: 100, ..AuthSettings::default() };
        let cache = KeyCache::new(&settings);
        for n in 0..10_000_u32 {
            let mut hash = HASH;
            hash[..4].copy_from_slice(&n.to_be_bytes());
            cache.put(cache.begin(), hash, ID, Known::Invalid, None);
        }
        assert!(cache.entries.len() <= 200, "{}", cache.entries.len());
    }
}
