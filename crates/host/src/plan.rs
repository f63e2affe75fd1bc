//! The actions of `resume` and `rollback`, from the records alone. No I/O.
//!
//! Every state that a killed deployment can leave has exactly one answer here. Steps are idempotent, so an interrupted
//! one is repeated.

use crate::{
    color::Color,
    error::HostError,
    installation::Installation,
    record::{Outcome, Record, Step, Way},
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

/// The id of the record of a return to the release of `previous`, which may be such a record itself. Ids are names of files,
/// and must not grow with each return.
pub fn id_of_return(previous: &str, now: u64) -> String {
    let first = previous.split("-again-").next().unwrap_or(previous);
    format!("{first}-again-{now}")
}

/// How the release before is started again. A server that has no memory for two colors has none for this either.
pub fn way_of_return(current: Option<&Record>) -> Way {
    match current {
        Some(record) if record.way == Way::InPlace => Way::InPlace,
        _ => Way::Return,
    }
}

/// Whether a rollback that began at `began` has returned to the release before; otherwise why not. `open` is the record
/// that was open then, as it is now; `records` are all in the order of their start.
pub fn rolled_back(open: Option<&Record>, records: &[Record], began: u64) -> Result<(), String> {
    let unknown = "see `journalctl -u linnet-deploy`".to_owned();
    // Another deployment may have been prepared since.
    let record =
        records.iter().rev().find(|record| record.by == ROLLBACK && record.started >= began);
    let is_done = match (record, open) {
        (Some(record), _) => record.outcome == Some(Outcome::Succeeded),
        (None, Some(open)) => {
            matches!(open.outcome, Some(Outcome::RolledBack | Outcome::Failed))
        }
        (None, None) => false,
    };
    if is_done {
        return Ok(());
    }
    Err(record.and_then(|record| record.reverting.clone()).unwrap_or(unknown))
}

/// The user in the record of a cold rollback.
pub const ROLLBACK: &str = "rollback";
/// The reason of a return that an operator asks for.
pub const OPERATOR: &str = "an operator asked for it";

/// The consequence of a step that failed, or of a record that could not be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// Return to the old release.
    Return,
    /// Leave everything as it is: `resume` repeats the step.
    Stop,
}

/// Decides what a failed step leads to. When the old color is removed, the new release has served all requests for the
/// whole warm time, and is not given up because of a container that does not stop.
pub const fn after_failure(step: Step) -> Failure {
    match step {
        Step::Retire => Failure::Stop,
        _ => Failure::Return,
    }
}

/// The first action of the way back to the old color.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WayBack {
    /// No request goes to the new color.
    Leave,
    /// Move the slots at once: a running color that is not ready is no worse than the one that is given up.
    Slots,
    /// Start the old color, then move the slots.
    Start,
}

/// Whether one of the slots leads to the color, by the output of `slots.sh`.
pub fn lead_to(slots: &str, color: Color) -> bool {
    let none = format!("{color}=0");
    slots.lines().any(|line| {
        line.contains(color.name()) && !line.split_whitespace().any(|word| word == none)
    })
}

/// Decides it. `slots` is the output of `slots.sh`, or nothing if nginx does not run.
pub fn way_back(has_served: bool, slots: &str, new: Color, is_old_running: bool) -> WayBack {
    match (has_served || lead_to(slots, new), is_old_running) {
        (false, _) => WayBack::Leave,
        (true, true) => WayBack::Slots,
        (true, false) => WayBack::Start,
    }
}

/// The use of the installation by a deployment or a restore.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Occupation {
    /// Nothing.
    Free,
    /// A deployment that only keeps its old color warm; by release.
    Warm(String),
    /// A deployment that is running.
    Deploying(String),
    /// A deployment that was interrupted; by release.
    Interrupted(String),
    /// A restore.
    Restoring,
    /// A restore that was interrupted. The service may be stopped.
    RestoreInterrupted,
}

/// Decides it from the open record, whether the unit runs, and whether a restore has stopped the service.
pub fn occupation(open: Option<&Record>, is_active: bool, is_restore_open: bool) -> Occupation {
    match (open, is_active) {
        (Some(record), _) if record.step() >= Step::Warm && record.reverting.is_none() => {
            Occupation::Warm(record.release.clone())
        }
        (Some(record), true) => {
            Occupation::Deploying(format!("{}, {}", record.release, record.step().description()))
        }
        (Some(record), false) => Occupation::Interrupted(record.release.clone()),
        // A unit without a record restores. A cold rollback has none either in its first moment.
        (None, true) => Occupation::Restoring,
        (None, false) if is_restore_open => Occupation::RestoreInterrupted,
        (None, false) => Occupation::Free,
    }
}

impl Occupation {
    /// The error of a verb that needs the installation for itself.
    pub fn refusal(self) -> HostError {
        match self {
            Self::Free => HostError::Busy("another command".to_owned()),
            Self::Warm(release) => HostError::Warm(release),
            Self::Deploying(text) => HostError::Busy(text),
            Self::Interrupted(release) => HostError::Interrupted(release),
            Self::Restoring => HostError::Restoring,
            Self::RestoreInterrupted => HostError::RestoreInterrupted,
        }
    }
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
