//! A discrete-event simulation of the cache protocol over regions: one link, its writers and its visitors.
//!
//! The world has a home region with the primary, the outbox and the central bus, and further regions with an L2, a relay
//! and processes ([`super::regions`] describes the paths). Faults of one kind come again and again, each at a random moment
//! and for a random time. Every response is compared with the history of commits.
//!
//! * `network`: delays, order and losses of messages between regions.
//! * `protocol`: what processes, relays and the home region do.
//! * `world`: time, faults and results.
//!
//! One link is enough: entries of different links do not affect each other, except that more changes discard more fills.

mod network;
mod plan;
mod protocol;
mod queue;
mod state;
mod world;

pub use plan::{FaultKind, Plan, Report, Rule, TAKEOVER_S};
pub use world::run;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::regions::BOUND_MS;

    fn plan(fault: Option<FaultKind>) -> Plan {
        Plan {
            round_trips_ms: vec![
                vec![1.0, 80.0, 220.0],
                vec![80.0, 1.0, 300.0],
                vec![220.0, 300.0, 1.0],
            ],
            processes: 3,
            seconds: 120.0,
            visits_a_second: 50.0,
            edits_a_second: 2.0,
            deaths: 0.1,
            slow_clocks: 0.02,
            fault,
            broken: None,
            seed: 7,
        }
    }

    #[test]
    fn without_faults_no_response_is_older_than_the_bound_and_none_fails() {
        let report = run(&plan(None));
        assert_eq!(report.failed, 0);
        assert_eq!(report.stale_past_bound, 0);
        assert!(report.responses > 40_000 && report.edits > 150, "{report:?}");
        // Deaths of publishers are visible, so the simulation does test the outbox relay.
        assert!(report.longest_ms > 150.0 && report.longest_ms < BOUND_MS, "{report:?}");
    }

    #[test]
    fn every_fault_keeps_the_bound() {
        for kind in FaultKind::ALL {
            for seed in 1..=3 {
                let report = run(&Plan { seed, ..plan(Some(kind)) });
                assert_eq!(report.stale_past_bound, 0, "{kind:?}, seed {seed}: {report:?}");
                assert!(report.faults >= 5, "{kind:?}, seed {seed}: {report:?}");
            }
        }
    }

    #[test]
    fn only_a_relay_may_fail_without_failed_requests() {
        let relay = run(&plan(Some(FaultKind::RelayCut)));
        assert_eq!(relay.failed, 0, "PostgreSQL answers: {relay:?}");
        for kind in [FaultKind::CutOff, FaultKind::RegionLost, FaultKind::HomeLost] {
            let report = run(&plan(Some(kind)));
            assert!(report.failed > 1_000, "{kind:?}: {report:?}");
        }
    }

    /// A rule, the fault that needs it, and the rate of edits at which the violation is found soonest.
    const NEEDED: [(Rule, FaultKind, f64); 9] = [
        (Rule::HeartbeatsThroughHome, FaultKind::RelayCut, 2.0),
        (Rule::LifeWithoutBus, FaultKind::RelayCut, 2.0),
        (Rule::LifeFromL2, FaultKind::RelayCut, 4.0),
        (Rule::L2WhileLive, FaultKind::RelayCut, 2.0),
        (Rule::Outbox, FaultKind::RelayCut, 0.5),
        (Rule::AcknowledgeAfterDelivery, FaultKind::FromHomeLost, 0.5),
        (Rule::CatchUpBeforeLive, FaultKind::RelayCut, 0.5),
        (Rule::EmptyAfterLoss, FaultKind::RegionLost, 0.5),
        (Rule::DiscardOvertakenFills, FaultKind::RegionLost, 2.0),
    ];

    #[test]
    fn each_rule_is_needed() {
        for rule in Rule::ALL {
            let (_, kind, edits_a_second) =
                NEEDED.into_iter().find(|(needed, ..)| *needed == rule).unwrap();
            let plan = Plan { edits_a_second, deaths: 0.3, ..plan(Some(kind)) };
            let broken = Plan { broken: Some(rule), ..plan.clone() };
            let seed = (1..=40)
                .find(|&seed| run(&Plan { seed, ..broken.clone() }).stale_past_bound > 0)
                .unwrap_or_else(|| panic!("no seed shows that {rule:?} is needed"));
            let kept = run(&Plan { seed, ..plan });
            assert_eq!(kept.stale_past_bound, 0, "{rule:?}, seed {seed}: {kept:?}");
        }
    }

    #[test]
    fn the_seed_determines_the_report() {
        let plan = plan(Some(FaultKind::RegionLost));
        assert_eq!(run(&plan), run(&plan));
        assert_ne!(run(&plan), run(&Plan { seed: 8, ..plan.clone() }));
    }
}
