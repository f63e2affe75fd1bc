//! A discrete-event simulation of the cache protocol over regions: one link, its writers and its visitors.
//!
//! The world has a home region with the primary, the outbox and the central bus, and further regions with an L2, a relay
//! and processes ([`super::regions`] describes the paths). Messages take half a round trip with jitter, keep their order on
//! each path, and are lost while a region is cut off. Every response is compared with the history of commits.
//!
//! One link is enough: entries of different links do not affect each other, except that more changes discard more fills.

mod plan;
mod queue;
mod state;
mod world;

pub use plan::{Fault, Plan, Report, Rule};
pub use world::run;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::regions::BOUND_MS;

    fn plan(fault: Option<Fault>, broken: Option<Rule>) -> Plan {
        Plan {
            round_trips_ms: vec![1.0, 80.0, 220.0],
            processes: 3,
            seconds: 120.0,
            visits_a_second: 100.0,
            edits_a_second: 1.0,
            deaths: 0.1,
            fault,
            broken,
            seed: 7,
        }
    }

    const PARTITION: Fault = Fault { regions: [false, true, false], from_s: 20.0, to_s: 60.0 };

    #[test]
    fn without_faults_no_response_is_older_than_the_bound_and_none_fails() {
        let report = run(&plan(None, None));
        assert_eq!(report.failed, 0);
        assert_eq!(report.stale_past_bound, 0);
        assert!(report.responses > 80_000 && report.edits > 80, "{report:?}");
        // Deaths of publishers are visible, so the simulation does test the outbox relay.
        assert!(report.longest_ms > 150.0 && report.longest_ms < BOUND_MS, "{report:?}");
    }

    #[test]
    fn a_partition_fails_requests_but_keeps_the_bound() {
        let report = run(&plan(Some(PARTITION), None));
        assert_eq!(report.stale_past_bound, 0, "{report:?}");
        assert!(report.failed > 5_000, "the region that is cut off cannot look up: {report:?}");
        assert!(report.longest_ms > 500.0, "{report:?}");
    }

    #[test]
    fn each_rule_is_needed() {
        for rule in [
            Rule::HeartbeatsThroughHome,
            Rule::LifeWithoutBus,
            Rule::Outbox,
            Rule::CatchUpBeforeLive,
        ] {
            let report = run(&plan(Some(PARTITION), Some(rule)));
            assert!(report.stale_past_bound > 0, "{rule:?}: {report:?}");
        }
    }

    #[test]
    fn the_seed_determines_the_report() {
        let (one, two) = (run(&plan(Some(PARTITION), None)), run(&plan(Some(PARTITION), None)));
        assert_eq!(format!("{one:?}"), format!("{two:?}"));
    }
}
