//! Tests of L1.

use super::*;
use crate::Redirect;
use linnet_domain::LinkId;

fn cache() -> L1Cache {
    let cache = L1Cache::new(&CacheSettings::default());
    cache.bus.extend(Instant::now() + Duration::from_hours(1));
    cache
}

fn entry(version: i64) -> CacheEntry {
    let redirect = Redirect::new("https://example.com/", 302, None, LinkId::MIN).unwrap();
    CacheEntry { version, resolution: Resolution::Redirect(redirect) }
}

fn is_cached(cache: &L1Cache, code: &str) -> bool {
    cache.get(code, Instant::now()).is_some()
}

#[test]
fn must_07_a_fill_that_races_a_change_is_not_kept() {
    let cache = cache();
    let ticket = cache.ticket("abc");
    cache.invalidate("abc");
    cache.fill("abc", entry(1), ticket);
    assert!(!is_cached(&cache, "abc"));
    let ticket = cache.ticket("abc");
    cache.fill("abc", entry(2), ticket);
    assert!(is_cached(&cache, "abc"));
}

#[test]
fn must_07_a_stale_bus_flushes_the_cache_and_shortens_ttls() {
    let cache = cache();
    cache.fill("abc", entry(1), cache.ticket("abc"));
    let before_stale = cache.ticket("def");
    cache.bus.end();
    cache.flush();
    assert!(!is_cached(&cache, "abc"));
    cache.fill("def", entry(1), before_stale);
    assert!(!is_cached(&cache, "def"), "a fill that began before the bus became stale is not kept");
    cache.fill("ghi", entry(1), cache.ticket("ghi"));
    assert!(is_cached(&cache, "ghi"));
    assert!(cache.get("ghi", Instant::now() + Duration::from_millis(950)).is_none());
    cache.flush();
    assert!(!is_cached(&cache, "ghi"), "entries cached while the bus was stale are dropped");
}

#[test]
fn must_28_no_entry_is_older_than_a_second_when_the_bus_task_does_not_run() {
    let cache = cache();
    cache.fill("abc", entry(1), cache.ticket("abc"));
    let live_until = Instant::now() + Duration::from_millis(1_500);
    cache.bus.extend(live_until);
    let before = live_until.checked_sub(Duration::from_millis(1)).unwrap();
    assert!(cache.get("abc", before).is_some(), "the bus is live");
    assert!(cache.get("abc", live_until).is_none(), "nothing has flushed the cache");
}

#[test]
fn must_19_negative_entries_do_not_evict_links() {
    let cache = cache();
    cache.fill("hot", entry(1), cache.ticket("hot"));
    for n in 0..200_000 {
        let code = format!("x{n}");
        cache.fill(&code, CacheEntry::NEGATIVE, cache.ticket(&code));
    }
    assert!(is_cached(&cache, "hot"));
    assert!(cache.negative.len() <= CacheSettings::default().l1_negative_entries);
}

#[test]
fn a_link_replaces_its_negative_entry() {
    let cache = cache();
    cache.fill("abc", CacheEntry::NEGATIVE, cache.ticket("abc"));
    cache.fill("abc", entry(1), cache.ticket("abc"));
    let cached = cache.get("abc", Instant::now()).unwrap();
    assert_eq!(cached.entry.version, 1);
}

#[test]
fn an_invalidation_affects_few_other_codes() {
    let cache = cache();
    let codes: Vec<_> = (0..1_000).map(|number| format!("x{number}")).collect();
    let tickets: Vec<_> = codes.iter().map(|code| cache.ticket(code)).collect();
    cache.invalidate("x0");
    let current = tickets.iter().filter(|ticket| cache.is_current(**ticket)).count();
    assert!((900..1_000).contains(&current), "{current}");
    let slots: std::collections::HashSet<_> =
        tickets.iter().map(|ticket| ticket.epoch.slot).collect();
    assert!(slots.len() > EPOCH_SLOTS / 2 && slots.iter().all(|slot| *slot < EPOCH_SLOTS));
}

#[test]
fn ttls_are_spread_by_a_tenth() {
    for (slot, ms) in [(0, 900), (512, 1_000), (1_023, 1_099)] {
        let spread = spread(Duration::from_secs(1), slot);
        assert_eq!(spread, Duration::from_millis(ms), "{slot}");
    }
}

#[test]
fn weight_is_that_of_the_code_the_target_and_the_overhead() {
    let cache = cache();
    cache.fill("abc", entry(1), cache.ticket("abc"));
    let target = "https://example.com/".len();
    assert_eq!(cache.size(), (1, (ENTRY_OVERHEAD + 3 + target) as u64));
    let limited = CacheEntry { version: 1, resolution: Resolution::Limited };
    cache.fill("abcd", limited, cache.ticket("abcd"));
    assert_eq!(cache.size(), (2, (2 * ENTRY_OVERHEAD + 7 + target) as u64));
}

#[test]
fn a_version_is_reached_once_the_sequence_was_seen_there() {
    let cache = cache();
    assert!(!cache.has_reached(1));
    cache.record_reached(7);
    cache.record_reached(5);
    for (version, is_reached) in [(6, true), (7, true), (8, false)] {
        assert_eq!(cache.has_reached(version), is_reached, "{version}");
    }
}

#[test]
fn entries_have_the_ttl_of_their_kind_from_the_ticket_on() {
    let settings =
        CacheSettings { l1_ttl_ms: 10_000, l1_negative_ttl_ms: 5_000, ..Default::default() };
    let cache = L1Cache::new(&settings);
    cache.bus.extend(Instant::now() + Duration::from_hours(1));
    for (code, kind, ttl_ms) in [("abc", entry(1), 10_000), ("x", CacheEntry::NEGATIVE, 5_000)] {
        let ticket = cache.ticket(code);
        let ttl = spread(Duration::from_millis(ttl_ms), ticket.epoch.slot);
        let cached = cache.fill(code, kind, ticket);
        assert_eq!(cached.fresh_until, ticket.taken() + ttl);
        assert_eq!(cached.fresh_without_bus_until, ticket.taken() + STALE_TTL);
        let before = |end: Instant| end.checked_sub(Duration::from_nanos(1)).unwrap();
        assert!(cache.is_fresh(&cached, before(ticket.taken() + ttl)));
        assert!(!cache.is_fresh(&cached, ticket.taken() + ttl));
        cache.bus.end();
        assert!(cache.is_fresh(&cached, before(ticket.taken() + STALE_TTL)));
        assert!(!cache.is_fresh(&cached, ticket.taken() + STALE_TTL));
        cache.bus.extend(Instant::now() + Duration::from_hours(1));
    }
}

#[test]
fn an_end_hides_the_link_and_tickets_of_all_codes_are_those_of_each() {
    let cache = cache();
    cache.invalidate("abc");
    let (all, one) = (cache.tickets().of("abc"), cache.ticket("abc"));
    assert_eq!(all.epoch, one.epoch);
    assert!(cache.is_current(all));
    cache.fill("abc", entry(1), one);
    cache.fill("abc", CacheEntry::NEGATIVE, one);
    assert_eq!(cache.get("abc", Instant::now()).unwrap().entry, CacheEntry::NEGATIVE);
    assert_eq!(cache.size().0, 0);
}

#[test]
fn messages_about_links_invalidate_and_unknown_ones_are_refused() {
    let cache = cache();
    assert!(cache.bus_is_live());
    cache.fill("abc", entry(1), cache.ticket("abc"));
    assert!(cache.receive("k Ab3xYz01"));
    assert!(!cache.receive("z 1"));
    assert!(is_cached(&cache, "abc"));
    assert!(cache.receive("l 2 abc"));
    assert!(!is_cached(&cache, "abc"));
    cache.bus_state().end();
    assert!(!cache.bus_is_live());
}

#[test]
fn must_07_a_lookup_answers_only_requests_that_could_find_its_result_in_the_cache() {
    let cache = cache();
    let began = cache.ticket("abc");
    let before_change = cache.ticket("abc");
    cache.invalidate("abc");
    let after_change = cache.ticket("abc");
    let entry = cache.fill("abc", entry(1), began);
    assert!(cache.answers(&entry, before_change));
    assert!(!cache.answers(&entry, after_change), "the lookup may have read the old row");

    cache.bus.end();
    let began = cache.ticket("abc");
    let entry = cache.fill("abc", entry.entry.clone(), began);
    let late = Ticket { taken: began.taken + STALE_TTL, ..began };
    assert!(cache.answers(&entry, began));
    assert!(!cache.answers(&entry, late), "the change may not have been received");
}

#[test]
fn must_07_an_entry_from_l2_lives_shorter_while_the_bus_is_stale() {
    let cache = cache();
    let ticket = cache.ticket("abc");
    cache.fill_from_l2("abc", entry(1), ticket);
    cache.bus.extend(ticket.taken + Duration::from_millis(100));
    let after = |ms| cache.get("abc", ticket.taken + Duration::from_millis(ms)).is_some();
    assert!(after(499));
    assert!(!after(500), "L2 may have lacked a change that was 400 ms old");
}
