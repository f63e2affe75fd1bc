//! The hottest links of one server thread, in front of L1.
//!
//! All server threads share L1, and each read of it writes to shared memory: the lock of a shard, and
//! the reference counts of the entry and of its target. With all load on one link, the processors pass
//! those cache lines back and forth, which costs a tenth of the throughput. A thread that uses its own copy only reads
//! the epoch of the code's slot, which is written only when a link of that slot changes.
//!
//! Invariant: a copy is used only while the epoch is still the one that was read before L1, and for at most
//! [`RECHECK`]. After that L1 is read again, so its eviction order and its TTLs hold.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use super::l1::{L1Cache, L1Entry, Ticket};

/// The maximum number of copies of one thread.
pub const PLACES: usize = 64;
/// Time after which a copy is read from L1 again.
const RECHECK: Duration = Duration::from_secs(1);

struct Hot {
    code: Box<str>,
    ticket: Ticket,
    entry: Arc<L1Entry>,
}

#[derive(Default)]
struct Place {
    /// Hash of the last code that was looked up here without a usable copy.
    candidate: u64,
    hot: Option<Hot>,
}

/// A server thread's own copies. A code's hash determines its place. The code occupies it after two lookups in a row
/// there.
pub struct HotLinks {
    places: Vec<Place>,
}

impl Default for HotLinks {
    fn default() -> Self {
        Self { places: std::iter::repeat_with(Place::default).take(PLACES).collect() }
    }
}

impl HotLinks {
    /// Returns the code's entry if it is fresh at `now`, from this thread's copies or from L1.
    #[inline]
    pub(super) fn get(
        &mut self,
        local: &L1Cache,
        code: &str,
        now: Instant,
    ) -> Option<Arc<L1Entry>> {
        let hash = local.hash(code);
        let index = usize::try_from(hash >> 32).unwrap_or(0) % PLACES;
        let Some(place) = self.places.get_mut(index) else { return local.get(code, now) };
        if let Some(hot) = &place.hot
            && *hot.code == *code
            && local.is_current(hot.ticket)
            && local.is_fresh(&hot.entry, now)
            && now.saturating_duration_since(hot.ticket.taken()) < RECHECK
        {
            return Some(Arc::clone(&hot.entry));
        }
        if place.candidate != hash {
            place.candidate = hash;
            return local.get(code, now);
        }
        // Take the ticket before L1 is read: a change in between then makes the copy unusable.
        let ticket = local.ticket_of_hash(hash);
        let entry = local.get(code, now)?;
        let copy = Arc::new(entry.unshared_copy());
        place.hot = Some(Hot { code: code.into(), ticket, entry: copy });
        Some(entry)
    }
}

#[cfg(test)]
mod tests {
    use linnet_domain::LinkId;
    use linnet_platform::invalidation_bus::InvalidationSink;

    use super::*;
    use crate::{CacheEntry, CacheSettings, Redirect, Resolution};

    fn entry(version: i64) -> CacheEntry {
        let redirect = Redirect::new("https://example.com/", 302, None, LinkId::MIN).unwrap();
        CacheEntry { version, resolution: Resolution::Redirect(redirect) }
    }

    fn version(hot: &mut HotLinks, local: &L1Cache, code: &str) -> Option<i64> {
        hot.get(local, code, Instant::now()).map(|entry| entry.entry.version)
    }

    /// An L1 with one link, looked up until it is hot.
    fn hot_link() -> (L1Cache, HotLinks) {
        let local = L1Cache::new(&CacheSettings::default());
        local.bus_state().extend(Instant::now() + Duration::from_hours(2));
        let mut hot = HotLinks::default();
        local.fill("abc", entry(1), local.ticket("abc"));
        for _ in 0..4 {
            assert_eq!(version(&mut hot, &local, "abc"), Some(1));
        }
        assert!(hot.places.iter().any(|place| place.hot.is_some()), "the link is hot");
        (local, hot)
    }

    #[test]
    fn must_07_a_change_is_seen_through_the_hot_links() {
        let (local, mut hot) = hot_link();
        local.invalidate("abc");
        assert_eq!(version(&mut hot, &local, "abc"), None);
        local.fill("abc", entry(2), local.ticket("abc"));
        for _ in 0..4 {
            assert_eq!(version(&mut hot, &local, "abc"), Some(2));
        }
        local.flush();
        assert_eq!(version(&mut hot, &local, "abc"), None, "a change of the bus flushes it too");
    }

    #[test]
    fn must_28_a_hot_link_is_not_used_when_the_bus_has_become_stale() {
        let (local, mut hot) = hot_link();
        let now = Instant::now();
        local.bus_state().extend(now + Duration::from_millis(500));
        let late = now + Duration::from_millis(950);
        assert!(hot.get(&local, "abc", late).is_none(), "nothing has flushed the cache");
    }

    #[test]
    fn an_expired_entry_is_not_used() {
        let (local, mut hot) = hot_link();
        let late = Instant::now() + Duration::from_hours(1);
        assert!(hot.get(&local, "abc", late).is_none());
    }

    /// Whether the thread's own copy is used, not L1's entry.
    fn is_copied(hot: &mut HotLinks, local: &L1Cache, now: Instant) -> bool {
        let entry = hot.get(local, "abc", now).unwrap();
        !Arc::ptr_eq(&entry, &local.get("abc", now).unwrap())
    }

    #[test]
    fn a_copy_is_used_for_its_recheck_time_only() {
        let (local, mut hot) = hot_link();
        let copied = hot.places.iter().find_map(|place| place.hot.as_ref()).unwrap();
        let taken = copied.ticket.taken();
        assert!(is_copied(&mut hot, &local, taken));
        let last = (taken + RECHECK).checked_sub(Duration::from_nanos(1)).unwrap();
        assert!(is_copied(&mut hot, &local, last));
        assert!(!is_copied(&mut hot, &local, taken + RECHECK), "L1 is read again");
    }

    #[test]
    fn a_code_becomes_hot_at_its_second_lookup_in_a_row() {
        let local = L1Cache::new(&CacheSettings::default());
        let mut hot = HotLinks::default();
        local.fill("abc", entry(1), local.ticket("abc"));
        let copies = |hot: &HotLinks| hot.places.iter().filter(|place| place.hot.is_some()).count();
        for expected in [0, 1, 1] {
            assert_eq!(version(&mut hot, &local, "abc"), Some(1));
            assert_eq!(copies(&hot), expected);
        }
    }

    #[test]
    fn codes_spread_over_the_places_and_never_get_the_entry_of_another() {
        let local = L1Cache::new(&CacheSettings::default());
        let mut hot = HotLinks::default();
        for number in 0..1_000 {
            let code = format!("x{number}");
            local.fill(&code, entry(number), local.ticket(&code));
            for _ in 0..3 {
                assert_eq!(version(&mut hot, &local, &code), Some(number));
            }
        }
        let used = hot.places.iter().filter(|place| place.hot.is_some()).count();
        assert!(used > PLACES / 2, "{used}");
    }
}
