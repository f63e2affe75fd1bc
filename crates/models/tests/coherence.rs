//! Checks the model of the cache protocol, and that the check finds each missing rule.

use linnet_models::coherence::{COARSE, Coherence, FINE, Mistake};
use std::collections::BTreeSet;

use stateright::{Checker, HasDiscoveries, Model};

const FRESH: &str = "no reader gets a version that was replaced a second ago";

fn protocol(writers: usize, cuts: u8, freezes: u8) -> Coherence {
    Coherence { mistake: None, durations: COARSE, writers, cuts, freezes }
}

/// Checks every state, and prints their number.
fn assert_holds(model: Coherence) {
    let what = format!("{model:?}");
    let has_cuts = model.cuts > 0;
    let checker = model.checker().threads(2).finish_when(HasDiscoveries::AnyFailures);
    let checker = checker.spawn_bfs().join();
    eprintln!("{what}: {} states", checker.unique_state_count());
    for (name, path) in checker.discoveries() {
        let is_wanted = checker.discovery_classification(name).to_string() == "example";
        assert!(is_wanted, "{name}: {:?}", path.into_actions());
    }
    assert!(checker.discovery("a lookup is overtaken by a change").is_some(), "{what}");
    let recovers = "a process that was cut off is live again and has the last change";
    assert!(!has_cuts || checker.discovery(recovers).is_some(), "{what}");
}

/// Asserts that the check finds a violation of `property` in the variant without a rule.
#[track_caller]
fn assert_finds(mistake: Mistake, (writers, cuts): (usize, u8), property: &'static str) {
    let model = Coherence { mistake: Some(mistake), ..protocol(writers, cuts, 0) };
    let found = HasDiscoveries::AllOf(BTreeSet::from([property]));
    let checker = model.checker().threads(2).finish_when(found).spawn_bfs().join();
    let path = checker.discovery(property);
    let path = path.unwrap_or_else(|| panic!("{mistake:?} is not found"));
    let actions: Vec<_> = path.into_actions();
    eprintln!("{mistake:?}: {actions:?}");
}

#[test]
#[ignore = "two minutes"]
fn must_07_every_order_of_two_changes_and_a_lookup_is_seen_within_the_bound() {
    assert_holds(protocol(2, 0, 0));
}

#[test]
fn must_07_every_order_of_a_change_a_lookup_and_a_cut_is_seen_within_the_bound() {
    assert_holds(protocol(1, 1, 0));
}

#[test]
fn must_07_must_28_every_order_of_a_change_a_lookup_and_a_paused_process_is_seen_within_the_bound()
{
    assert_holds(protocol(1, 0, 1));
}

/// Run it and the other ignored tests with `cargo nextest run -p linnet-models --run-ignored only`.
#[test]
#[ignore = "minutes, and gigabytes of memory"]
fn must_07_every_order_of_two_changes_a_lookup_and_a_cut_is_seen_within_the_bound() {
    assert_holds(protocol(2, 1, 0));
}

#[test]
#[ignore = "minutes, and gigabytes of memory"]
fn must_07_every_order_of_a_change_a_lookup_and_two_cuts_is_seen_within_the_bound() {
    assert_holds(protocol(1, 2, 0));
}

#[test]
#[ignore = "minutes, and gigabytes of memory"]
fn must_07_every_order_of_a_change_and_a_cut_is_seen_within_the_bound_in_finer_steps() {
    assert_holds(Coherence { durations: FINE, ..protocol(1, 1, 0) });
}

#[test]
fn fill_that_ignores_the_epoch_is_found() {
    assert_finds(Mistake::FillIgnoresTheEpoch, (1, 0), FRESH);
}

#[test]
fn life_that_counts_from_the_insertion_is_found() {
    assert_finds(Mistake::LifeCountsFromInsertion, (1, 1), FRESH);
}

#[test]
fn blind_write_to_l2_is_found() {
    assert_finds(Mistake::BlindWriteToL2, (2, 0), "L2 never goes back");
}

#[test]
fn row_that_is_deleted_before_its_publication_is_found() {
    let property = "each change is published or in the outbox";
    assert_finds(Mistake::RowDeletedBeforePublication, (1, 0), property);
    assert_finds(Mistake::RowDeletedBeforePublication, (1, 0), FRESH);
    assert_finds(Mistake::RelayDeletesBeforePublication, (1, 1), property);
    assert_finds(Mistake::NoOutbox, (1, 1), FRESH);
}

#[test]
fn reader_that_ignores_the_deadline_is_found() {
    assert_finds(Mistake::ReaderIgnoresTheDeadline, (1, 1), FRESH);
}

#[test]
fn bus_that_becomes_live_without_a_flush_is_found() {
    assert_finds(Mistake::NoFlushWhenLive, (1, 1), FRESH);
}

#[test]
fn request_that_takes_the_result_of_an_older_lookup_is_found() {
    assert_finds(Mistake::JoinersTakeAnyResult, (2, 0), FRESH);
}

#[test]
fn entry_of_l2_that_lives_as_long_as_one_of_postgresql_is_found() {
    assert_finds(Mistake::EntryOfL2LivesAsLong, (1, 1), FRESH);
}

/// ARCHITECTURE names this limit of the bound.
#[test]
fn eviction_between_a_publication_and_a_fill_is_found() {
    assert_finds(Mistake::L2Evicts, (1, 1), "L2 never goes back");
}
