//! One run of a task, under its lock.

use std::{
    error::Error,
    fmt, iter,
    time::{Duration, Instant},
};

use tokio_util::sync::CancellationToken;

use linnet_store::{StoreError, TaskHolder, TaskOutcome, TaskSession};

use super::{MaintenanceContext, Report, Task};

/// Time between two attempts to take a lock.
const LOCK_EVERY: Duration = Duration::from_millis(250);

/// Why a task was not done.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The upload area.
    #[error("the upload area cannot be read")]
    Io(#[from] std::io::Error),
    /// It took too long.
    #[error("not done after {} s; what was done stays", .0.as_secs())]
    TimedOut(Duration),
    /// The process stops.
    #[error("cut off: the process stops")]
    Stopped,
    /// Another process runs it.
    #[error("the task runs elsewhere{}", Holder(.0.as_ref()))]
    Elsewhere(Option<TaskHolder>),
}

impl RunError {
    /// What this is called in the table and in metrics.
    pub(super) fn outcome(&self) -> TaskOutcome {
        match self {
            Self::TimedOut(_) => TaskOutcome::TimedOut,
            Self::Stopped => TaskOutcome::Stopped,
            Self::Store(_) | Self::Io(_) | Self::Elsewhere(_) => TaskOutcome::Failed,
        }
    }
}

/// Who that is, in words.
struct Holder<'a>(Option<&'a TaskHolder>);

impl fmt::Display for Holder<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(TaskHolder { session, address, since }) = self.0 else { return Ok(()) };
        let address = address.as_deref().unwrap_or("a unix socket");
        let since = since.format("%H:%M:%S");
        write!(formatter, ": since {since} UTC, from {address}, PostgreSQL's session {session}")
    }
}

impl MaintenanceContext {
    /// Runs a task now, whether or not it is due. While it runs elsewhere, waits for `patience`, then it
    /// is [`RunError::Elsewhere`].
    pub async fn run_now(&self, task: &Task, patience: Duration) -> Result<Report, RunError> {
        let mut session = self.store.task_session(task.name, patience + task.timeout).await?;
        let end = Instant::now() + patience;
        while !session.try_lock().await? {
            if Instant::now() >= end {
                return Err(RunError::Elsewhere(session.holder().await?));
            }
            tokio::time::sleep(LOCK_EVERY).await;
        }
        self.run_locked(task, session, &CancellationToken::new()).await
    }

    /// Runs a task whose lock `session` holds, and notes what came of it. At the stop the run is cut
    /// off between two statements of its own, or its transaction comes to nothing.
    pub(super) async fn run_locked(
        &self,
        task: &Task,
        mut session: TaskSession,
        stop: &CancellationToken,
    ) -> Result<Report, RunError> {
        session.begin().await?;
        let result = tokio::select! {
            () = stop.cancelled() => Err(RunError::Stopped),
            ended = tokio::time::timeout(task.timeout, (task.work)(self)) => {
                ended.unwrap_or(Err(RunError::TimedOut(task.timeout)))
            }
        };
        let (outcome, error) = match &result {
            Ok(_) => (TaskOutcome::Succeeded, None),
            Err(error) => (error.outcome(), Some(with_causes(error))),
        };
        let noted = session.finish(outcome, error.as_deref()).await;
        session.close().await;
        let report = result?;
        noted?;
        Ok(report)
    }
}

fn with_causes(error: &(dyn Error + 'static)) -> String {
    let chain = iter::successors(Some(error), |&error| error.source());
    chain.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

#[cfg(test)]
mod tests {
    use chrono::{TimeZone, Utc};

    use super::*;

    #[test]
    fn who_holds_a_task_is_said() {
        let since = Utc.with_ymd_and_hms(2026, 11, 22, 3, 4, 5).unwrap();
        let holder = TaskHolder { session: 77, address: Some("10.0.0.5".to_owned()), since };
        assert_eq!(
            RunError::Elsewhere(Some(holder)).to_string(),
            "the task runs elsewhere: since 03:04:05 UTC, from 10.0.0.5, PostgreSQL's session 77"
        );
        assert_eq!(RunError::Elsewhere(None).to_string(), "the task runs elsewhere");
    }
}
