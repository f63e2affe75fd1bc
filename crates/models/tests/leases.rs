//! Checks the model of job leases, and that the check finds each missing rule.

use linnet_models::leases::{Budget, Leases, Mistake};
use stateright::{Checker, Model};

const ONCE: &str = "each row is written once at most";
const LOST_LEASE: &str = "no result of a lost lease is applied";
const ENDS: &str = "a job ends";

const BUDGET: Budget = Budget { expiries: 2, lost_responses: 2, failures: 3 };

fn assert_holds(budget: Budget) {
    let model = Leases { mistake: None, budget };
    let checker = model.checker().threads(2).spawn_dfs().join();
    eprintln!("{budget:?}: {} states", checker.unique_state_count());
    checker.assert_properties();
}

#[track_caller]
fn assert_finds(mistake: Mistake, property: &'static str) {
    let model = Leases { mistake: Some(mistake), budget: BUDGET };
    let checker = model.checker().threads(2).spawn_dfs().join();
    let path = checker.discovery(property);
    let path = path.unwrap_or_else(|| panic!("{mistake:?} is not found"));
    let actions: Vec<_> = path.into_actions();
    eprintln!("{mistake:?}: {actions:?}");
}

#[test]
fn every_order_of_two_workers_writes_each_row_once_and_ends_the_job() {
    assert_holds(BUDGET);
}

#[test]
#[ignore = "a minute"]
fn every_order_of_two_workers_with_many_faults_writes_each_row_once_and_ends_the_job() {
    assert_holds(Budget { expiries: 6, lost_responses: 5, failures: 6 });
}

#[test]
fn chunk_that_ignores_the_lease_is_found() {
    assert_finds(Mistake::ChunkIgnoresTheLease, LOST_LEASE);
}

#[test]
fn chunk_without_the_lock_is_found() {
    assert_finds(Mistake::ChunkWithoutLock, LOST_LEASE);
    assert_finds(Mistake::ChunkWithoutLock, ONCE);
}

#[test]
fn position_that_is_written_after_the_rows_is_found() {
    assert_finds(Mistake::PositionAfterRows, ONCE);
}

#[test]
fn repeated_chunk_that_ignores_the_position_is_found() {
    assert_finds(Mistake::RetryIgnoresThePosition, ONCE);
}

#[test]
fn claim_before_the_expiry_is_harmless_to_rows_but_endless_attempts_are_found() {
    let model = Leases { mistake: Some(Mistake::ClaimIgnoresTheLease), budget: BUDGET };
    let checker = model.checker().threads(2).spawn_dfs().join();
    assert!(checker.discovery(ONCE).is_none(), "the row's lock protects the rows");
    assert_finds(Mistake::ExpiredJobIsNotClaimed, ENDS);
}
