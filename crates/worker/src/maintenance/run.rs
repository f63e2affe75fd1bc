//! Runs a task under its lock.

use std::time::{Duration, Instant};

use linnet_store::{TaskOutcome, TaskSession};
use linnet_telemetry::error_chain;
use tokio_util::sync::CancellationToken;

use super::{MaintenanceContext, Report, RunError, Task};

/// Time between two attempts to take a lock.
const LOCK_EVERY: Duration = Duration::from_millis(250);

impl MaintenanceContext {
    /// Runs a task now, even if it is not due. While another process runs it, waits for at most `lock_timeout`.
    ///
    /// # Errors
    /// [`RunError::RunsElsewhere`] if another process still runs the task after `lock_timeout`; otherwise the error of the
    /// run.
    pub async fn run_now(&self, task: &Task, lock_timeout: Duration) -> Result<Report, RunError> {
        let mut session = self.store.task_session(task.name, lock_timeout + task.timeout).await?;
        let deadline = Instant::now() + lock_timeout;
        while !session.try_lock().await? {
            if Instant::now() >= deadline {
                return Err(RunError::RunsElsewhere(session.holder().await?));
            }
            tokio::time::sleep(LOCK_EVERY).await;
        }
        self.run_locked(task, session, &CancellationToken::new()).await
    }

    /// Runs a task whose lock `session` holds, and records its outcome. Cancelling `stop` interrupts the run between two
    /// statements, or rolls back its current transaction.
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
            Err(error) => (error.outcome(), Some(error_chain(error))),
        };
        let recorded = session.finish(outcome, error.as_deref()).await;
        session.close().await;
        let report = result?;
        recorded?;
        Ok(report)
    }
}
