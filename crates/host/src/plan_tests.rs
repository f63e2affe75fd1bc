//! Tests of the actions: each state has one answer.

use super::*;
use crate::record::tests::record;

fn with_both() -> Installation {
    Installation {
        active: Some(Color::Blue),
        blue: Some("r1".to_owned()),
        green: Some("r2".to_owned()),
        ..Installation::default()
    }
}

#[test]
fn id_of_a_return_does_not_grow_with_each_return() {
    let first = id_of_return("20261127-120000-v1", 100);
    assert_eq!(first, "20261127-120000-v1-again-100");
    assert_eq!(id_of_return(&first, 200), "20261127-120000-v1-again-200");
}

#[test]
fn interrupted_step_is_repeated_and_a_complete_one_is_not() {
    for (index, step) in Step::ALL.into_iter().enumerate() {
        let mut interrupted = record(&Step::ALL[..=index]);
        assert_eq!(resume(Some(&interrupted)), Resume::Continue(step));
        interrupted.end_step("done", 1);
        let wanted = step.next(Way::Canary).unwrap_or(Step::Retire);
        assert_eq!(resume(Some(&interrupted)), Resume::Continue(wanted));
    }
    assert_eq!(resume(Some(&record(&[]))), Resume::Continue(Step::Prepare));
}

#[test]
fn must_34_decision_to_return_survives_the_death_of_the_process() {
    let mut interrupted = record(&[Step::Canary10]);
    interrupted.reverting = Some("5 of 20 redirects failed".to_owned());
    assert_eq!(resume(Some(&interrupted)), Resume::Revert);
}

#[test]
fn nothing_is_resumed_after_the_end() {
    let mut ended = record(&[Step::Retire]);
    ended.finish(Outcome::Succeeded, 1);
    assert_eq!(resume(Some(&ended)), Resume::Nothing);
    assert_eq!(resume(None), Resume::Nothing);
}

#[test]
fn rollback_reverts_from_every_step_while_the_old_color_runs() {
    for (index, _) in Step::ALL.iter().enumerate() {
        let open = record(&Step::ALL[..=index]);
        assert_eq!(rollback(&with_both(), Some(&open), None), Rollback::Revert);
    }
}

#[test]
fn rollback_starts_the_previous_release_once_the_old_color_is_gone() {
    let mut installation = with_both();
    installation.blue = None;
    let mut record = record(&Step::ALL);
    let cold = Rollback::Cold("r1".to_owned());
    assert_eq!(rollback(&installation, Some(&record), None), cold);
    record.finish(Outcome::Succeeded, 1);
    assert_eq!(rollback(&installation, None, Some(&record)), cold);
}

#[test]
fn there_is_no_way_back_from_the_first_release_or_from_none() {
    let mut first = record(&[Step::Full]);
    first.previous = None;
    assert!(matches!(rollback(&with_both(), Some(&first), None), Rollback::Nothing(_)));
    first.finish(Outcome::Succeeded, 1);
    assert!(matches!(rollback(&with_both(), None, Some(&first)), Rollback::Nothing(_)));
    assert!(matches!(rollback(&Installation::default(), None, None), Rollback::Nothing(_)));
}

#[test]
fn rollback_has_succeeded_only_if_its_record_has_succeeded() {
    let again = |outcome| {
        let mut record = Record {
            by: ROLLBACK.to_owned(),
            way: Way::Return,
            started: 50,
            ..record(&[Step::Smoke])
        };
        if outcome == Some(Outcome::Failed) {
            record.reverting = Some("only 90 MiB of memory are free".to_owned());
        }
        record.outcome = outcome;
        record
    };
    assert_eq!(rolled_back(None, &[again(Some(Outcome::Succeeded)), record(&[])], 50), Ok(()));
    let failed = again(Some(Outcome::Failed));
    assert!(rolled_back(None, &[failed], 50).unwrap_err().contains("90 MiB"));
    assert!(rolled_back(None, &[again(None)], 50).is_err());
    // Of an earlier rollback: this one was refused.
    assert!(rolled_back(None, &[again(Some(Outcome::Succeeded))], 51).is_err());
    assert!(rolled_back(None, &[], 50).is_err());
}

#[test]
fn rollback_of_an_open_deployment_has_succeeded_once_that_has_ended() {
    let ended = |outcome| Record { outcome, ..record(&[Step::Canary10]) };
    assert_eq!(rolled_back(Some(&ended(Some(Outcome::RolledBack))), &[], 500), Ok(()));
    assert_eq!(rolled_back(Some(&ended(Some(Outcome::Failed))), &[], 500), Ok(()));
    assert!(rolled_back(Some(&ended(None)), &[], 500).is_err());
    assert!(rolled_back(Some(&ended(Some(Outcome::Succeeded))), &[], 500).is_err());
}

#[test]
fn release_without_memory_for_two_colors_is_rolled_back_in_place() {
    let current = |way| Record { way, ..record(&[]) };
    assert_eq!(way_of_return(Some(&current(Way::InPlace))), Way::InPlace);
    for way in [Way::First, Way::Canary, Way::Return] {
        assert_eq!(way_of_return(Some(&current(way))), Way::Return);
    }
}

#[test]
fn failed_removal_of_the_old_color_does_not_give_up_the_release() {
    for step in Step::ALL {
        let wanted = if step == Step::Retire { Failure::Stop } else { Failure::Return };
        assert_eq!(after_failure(step), wanted);
    }
    // And `resume` repeats it.
    let mut stopped = record(&[Step::Warm, Step::Retire]);
    stopped.end_step("`docker stop` did not end within 55 s", 1);
    assert_eq!(resume(Some(&stopped)), Resume::Continue(Step::Retire));
}

#[test]
fn way_back_moves_the_slots_before_anything_that_can_wait() {
    let green = Color::Green;
    let all_old = "resolve blue=10 green=0\nweb blue=10 green=0\n";
    let some = "resolve blue=9 green=1\nweb blue=9 green=1\n";
    // Interrupted between its groups.
    let partly = "resolve blue=9 green=1\nweb blue=10 green=0\n";
    assert_eq!(way_back(false, all_old, green, false), WayBack::Leave);
    assert_eq!(way_back(false, "", green, true), WayBack::Leave);
    for slots in [some, partly, "resolve blue=0 green=10\nweb blue=0 green=10\n"] {
        assert_eq!(way_back(false, slots, green, true), WayBack::Slots);
        assert_eq!(way_back(false, slots, green, false), WayBack::Start);
    }
    assert_eq!(way_back(true, all_old, green, true), WayBack::Slots);
    assert_eq!(way_back(true, "", green, false), WayBack::Start);
    assert!(lead_to(all_old, Color::Blue) && lead_to(partly, green) && !lead_to(all_old, green));
    assert_eq!(way_back(false, "resolve blue=10 green=0\n", Color::Blue, true), WayBack::Slots);
}

#[test]
fn restore_and_deployment_exclude_each_other() {
    let deploying = record(&[Step::Canary10]);
    let warm = record(&[Step::Warm]);
    let returning = Record { reverting: Some("x".to_owned()), ..warm.clone() };
    assert_eq!(occupation(None, false, false), Occupation::Free);
    assert_eq!(occupation(None, true, false), Occupation::Restoring);
    assert_eq!(occupation(None, true, true), Occupation::Restoring);
    assert_eq!(occupation(None, false, true), Occupation::RestoreInterrupted);
    assert!(matches!(occupation(Some(&deploying), true, false), Occupation::Deploying(_)));
    assert!(matches!(occupation(Some(&deploying), false, true), Occupation::Interrupted(_)));
    assert!(matches!(occupation(Some(&warm), true, false), Occupation::Warm(_)));
    assert!(matches!(occupation(Some(&returning), true, false), Occupation::Deploying(_)));
    assert_eq!(occupation(None, false, true).refusal().exit_code(), 75);
}
