//! Errors of maintenance runs.

use std::{fmt, io, time::Duration};

use linnet_store::{StoreError, TaskHolder, TaskOutcome};

/// Why a run did not finish its task.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// PostgreSQL failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The upload area cannot be read.
    #[error("the upload area cannot be read")]
    Io(#[from] io::Error),
    /// The run exceeded the task's time limit.
    #[error("time limit of {} s exceeded; finished batches stay", .0.as_secs())]
    TimedOut(Duration),
    /// The process stops.
    #[error("cancelled because the process stops")]
    Stopped,
    /// Another process runs the task.
    #[error("the task runs in another process{}", HolderDetails(.0.as_ref()))]
    RunsElsewhere(Option<TaskHolder>),
}

impl RunError {
    /// The outcome that `maintenance_runs` and metrics record.
    pub(super) fn outcome(&self) -> TaskOutcome {
        match self {
            Self::TimedOut(_) => TaskOutcome::TimedOut,
            Self::Stopped => TaskOutcome::Stopped,
            Self::Store(_) | Self::Io(_) | Self::RunsElsewhere(_) => TaskOutcome::Failed,
        }
    }
}

struct HolderDetails<'a>(Option<&'a TaskHolder>);

impl fmt::Display for HolderDetails<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(TaskHolder { session, address, since }) = self.0 else { return Ok(()) };
        let address = address.as_deref().unwrap_or("a unix socket");
        let since = since.format("%H:%M:%S");
        write!(formatter, ": since {since} UTC, from {address}, PostgreSQL session {session}")
    }
}

#[cfg(test)]
mod tests {
    use chrono::{TimeZone, Utc};

    use super::*;

    #[test]
    fn message_names_the_process_that_runs_the_task() {
        let since = Utc.with_ymd_and_hms(2026, 11, 22, 3, 4, 5).unwrap();
        let holder = TaskHolder { session: 77, address: Some("10.0.0.5".to_owned()), since };
        assert_eq!(
            RunError::RunsElsewhere(Some(holder)).to_string(),
            "the task runs in another process: since 03:04:05 UTC, from 10.0.0.5, PostgreSQL session 77"
        );
        assert_eq!(RunError::RunsElsewhere(None).to_string(), "the task runs in another process");
    }
}
