//! `restore`: replaces the database from the backups, in the unit, because a restore that dies with its connection leaves
//! the service stopped.
//!
//! The script `deploy/host/restore` notes the services that it stops in a file. While that file exists, the restore is
//! open: `resume` completes it, and no other verb changes the installation.

use std::fs::File;

use crate::{
    attempt::{self, Attempt},
    deploy::Deployment,
    error::HostError,
    paths,
    plan::Occupation,
    state::{self, State, now},
    unit::{self, Lock},
};

/// Starts a restore with the options of the script, and follows it.
pub fn start(options: &[String]) -> Result<(), HostError> {
    let prepare = unit::lock_to_prepare()?;
    let change = unit::lock(Lock::Change)?;
    let state = State::read()?;
    current_with_backups(&state)?;
    match unit::occupied()? {
        // A restore that was interrupted can be repeated: its file has the services that ran before.
        Occupation::Free | Occupation::RestoreInterrupted => {}
        // The release that serves may be the reason. `run` ends its deployment.
        Occupation::Warm(_) => {
            if unit::is_active() {
                unit::stop()?;
            }
        }
        other => return Err(other.refusal()),
    }
    let words: Vec<&str> =
        std::iter::once("restore").chain(options.iter().map(String::as_str)).collect();
    let began = unit::start(paths::PROGRAM, &words)?;
    drop((prepare, change));
    follow(Some(began))
}

/// Starts what an interrupted restore has stopped, with the steps that follow a restore. The lock is that of changes.
pub fn complete(lock: File) -> Result<(), HostError> {
    let began = unit::start(paths::PROGRAM, &["restore", "--continue"])?;
    drop(lock);
    follow(Some(began))
}

/// Prints the journal until the restore that began at `began` or later, or any if that is unknown, has ended.
pub fn follow(began: Option<u64>) -> Result<(), HostError> {
    unit::follow_journal(began.unwrap_or_else(now), || Ok(!unit::is_active()))?;
    end_of(attempt::read()?, began.unwrap_or(0))
}

fn end_of(attempt: Option<Attempt>, began: u64) -> Result<(), HostError> {
    match attempt.filter(|attempt| attempt.started >= began) {
        Some(Attempt { ended: Some(_), error: None, .. }) => Ok(()),
        Some(Attempt { error: Some(error), .. }) => Err(HostError::Step(error)),
        _ => Err(HostError::RestoreInterrupted),
    }
}

/// Runs in the unit.
pub fn run(options: &[String]) -> Result<(), HostError> {
    let mut attempt = Attempt { started: now(), ended: None, error: None };
    attempt.write()?;
    let result = restore(options);
    attempt.ended = Some(now());
    attempt.error = result.as_ref().err().map(ToString::to_string);
    attempt.write()?;
    result
}

fn restore(options: &[String]) -> Result<(), HostError> {
    Deployment::end_warm(None)?;
    let state = State::read()?;
    state.restore(current_with_backups(&state)?, options, Some(&state::stopped_file()))
}

/// The release that serves, on a server with backups.
pub fn current_with_backups(state: &State) -> Result<&str, HostError> {
    let current = state.installation.current.as_deref();
    current.filter(|_| state.config.backup.is_some()).ok_or_else(|| {
        HostError::Refused(
            "no release with backups runs here; run `deploy.sh init` with --backup, and deploy a release".to_owned(),
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn restore_has_succeeded_only_if_its_own_record_has_an_end_without_an_error() {
        let attempt = |started, ended, error: Option<&str>| {
            Some(Attempt { started, ended, error: error.map(str::to_owned) })
        };
        assert!(end_of(attempt(10, Some(20), None), 10).is_ok());
        // Of an earlier restore.
        assert!(end_of(attempt(9, Some(20), None), 10).is_err());
        assert!(end_of(attempt(10, Some(20), Some("no space")), 10).is_err());
        assert!(matches!(end_of(attempt(10, None, None), 10), Err(HostError::RestoreInterrupted)));
        assert!(end_of(None, 10).is_err());
    }
}
