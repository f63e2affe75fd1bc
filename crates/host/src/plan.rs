//! The actions of `resume` and `rollback`, from the records alone. No I/O.
//!
//! Every state that a killed deployment can leave has exactly one answer here. Steps are idempotent, so an interrupted
//! one is repeated.

use crate::{
    installation::Installation,
    record::{Outcome, Record, Step},
};

/// The end of an interrupted deployment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Resume {
    /// Nothing is open.
    Nothing,
    /// Continue with this step.
    Continue(Step),
    /// The decision to return has been taken: complete that.
    Revert,
}

/// The action of `rollback`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rollback {
    /// The old color still runs: point the slots to it.
    Revert,
    /// The old color is gone: start its release again.
    Cold(String),
    /// There is no release to return to.
    Nothing(&'static str),
}

/// Decides how to end the deployment of `open`, if any.
pub fn resume(open: Option<&Record>) -> Resume {
    let Some(record) = open.filter(|record| record.outcome.is_none()) else {
        return Resume::Nothing;
    };
    if record.reverting.is_some() {
        return Resume::Revert;
    }
    let is_complete = record.steps.last().is_some_and(|step| step.ended.is_some());
    let step = record.step();
    match step.next(record.way) {
        Some(next) if is_complete => Resume::Continue(next),
        _ => Resume::Continue(step),
    }
}

/// Decides how to return to the release before. `open` is the record of a deployment that has not ended; `current` that of
/// the release that serves.
pub fn rollback(
    installation: &Installation,
    open: Option<&Record>,
    current: Option<&Record>,
) -> Rollback {
    if let Some(record) = open.filter(|record| record.outcome.is_none()) {
        if record.previous.is_none() {
            return Rollback::Nothing("the first release has no release before it");
        }
        // The old color is removed in the last step. A record that stopped there may or may not have it.
        if record.step() == Step::Retire && installation.release_of(record.color.other()).is_none()
        {
            return cold(record);
        }
        return Rollback::Revert;
    }
    match current {
        Some(record) if record.outcome == Some(Outcome::Succeeded) => cold(record),
        _ => Rollback::Nothing("no release has been deployed"),
    }
}

fn cold(record: &Record) -> Rollback {
    match &record.previous {
        Some(previous) => Rollback::Cold(previous.clone()),
        None => Rollback::Nothing("the first release has no release before it"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        color::Color,
        record::{Way, tests::record},
    };

    fn with_both() -> Installation {
        Installation {
            active: Some(Color::Blue),
            blue: Some("r1".to_owned()),
            green: Some("r2".to_owned()),
            ..Installation::default()
        }
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
}
