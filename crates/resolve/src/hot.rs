//! The hottest links of one worker, in front of L1.
//!
//! L1 belongs to all workers, so each look-up there writes to memory that they share: the lock of its
//! shard, the counts of references to the entry and to its target. When all load is on one link, they
//! pass those lines to and fro, a tenth of the rate. A worker's own copy of the entry costs one read of
//! the code's epoch instead, which changes only when the link does.
//!
//! An entry here is used while the epoch is what it was before L1 was read, for at most [`RECHECK`]; then
//! L1 is asked again, so that its own order of use and its lives hold.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use super::l1::{CachedEntry, L1Cache, Ticket};

const PLACES: usize = 64;
const RECHECK: Duration = Duration::from_secs(1);

struct Hot {
    code: Box<str>,
    ticket: Ticket,
    held: Arc<CachedEntry>,
}

#[derive(Default)]
struct Place {
    /// The hash of the code that was asked for last without being here.
    candidate: u64,
    hot: Option<Hot>,
}

/// A worker's own entries: each code has one place, which it takes when it is asked for twice without
/// another one in between.
pub struct HotLinks {
    places: Vec<Place>,
}

impl Default for HotLinks {
    fn default() -> Self {
        Self { places: std::iter::repeat_with(Place::default).take(PLACES).collect() }
    }
}

impl HotLinks {
    /// What is known of a code at `now`, here or in L1.
    #[inline]
    pub(super) fn get(
        &mut self,
        local: &L1Cache,
        code: &str,
        now: Instant,
    ) -> Option<Arc<CachedEntry>> {
        let hash = local.hash(code);
        let index = usize::try_from(hash >> 32).unwrap_or(0) % PLACES;
        let Some(place) = self.places.get_mut(index) else { return local.get(code, now) };
        if let Some(hot) = &place.hot
            && *hot.code == *code
            && local.is_current(hot.ticket)
            && hot.held.is_fresh(now)
            && now.saturating_duration_since(hot.ticket.taken()) < RECHECK
        {
            return Some(Arc::clone(&hot.held));
        }
        if place.candidate != hash {
            place.candidate = hash;
            return local.get(code, now);
        }
        // Before L1 is read: a change in between makes it out of date.
        let ticket = local.ticket_of_hash(hash);
        let held = local.get(code, now)?;
        let own = Arc::new(held.copied());
        place.hot = Some(Hot { code: code.into(), ticket, held: own });
        Some(held)
    }
}

#[cfg(test)]
mod tests {
    use linnet_domain::LinkId;
    use linnet_platform::invalidation_bus::InvalidationSink;

    use super::*;
    use crate::{Answer, CacheSettings, Entry, Redirect};

    fn entry(version: i64) -> Entry {
        let redirect = Redirect::new("https://example.com/", 302, None, LinkId::MIN).unwrap();
        Entry { version, answer: Answer::Redirect(redirect) }
    }

    fn version(hot: &mut HotLinks, local: &L1Cache, code: &str) -> Option<i64> {
        hot.get(local, code, Instant::now()).map(|held| held.entry.version)
    }

    /// An L1 with one link, asked for until it is hot.
    fn hot_link() -> (L1Cache, HotLinks) {
        let local = L1Cache::new(&CacheSettings::default());
        local.went_live();
        let mut hot = HotLinks::default();
        local.fill("abc", entry(1), local.ticket("abc"));
        for _ in 0..4 {
            assert_eq!(version(&mut hot, &local, "abc"), Some(1));
        }
        assert!(hot.places.iter().any(|place| place.hot.is_some()), "it is hot by now");
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
        local.went_stale();
        assert_eq!(version(&mut hot, &local, "abc"), None, "a cut feed empties it, too");
    }

    #[test]
    fn an_entry_that_is_no_longer_fresh_is_not_used() {
        let (local, mut hot) = hot_link();
        let late = Instant::now() + Duration::from_hours(1);
        assert!(hot.get(&local, "abc", late).is_none());
    }
}
