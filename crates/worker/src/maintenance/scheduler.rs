//! Runs due tasks in a worker, unless another worker runs them.

use std::{
    collections::HashMap,
    error::Error,
    time::{Duration, Instant},
};

use linnet_platform::backoff::{doubled, jittered};
use tokio_util::sync::CancellationToken;

use linnet_store::{StoreError, TaskOutcome, TaskRecord};

use super::{
    MaintenanceContext, MaintenanceMetrics, Report, RunError, TASKS, Task,
    schedule::{RETRY_AFTER, time_until_due},
};

/// Longest time between two checks. Clocks may be adjusted and records deleted, so a computed wait is limited to it.
const CHECK_EVERY: Duration = Duration::from_mins(5);
/// Largest random addition to a wait, so that workers do not check at the same moment.
const MAX_JITTER: Duration = Duration::from_secs(5);

/// The scheduler of one worker.
pub struct Scheduler {
    context: MaintenanceContext,
    metrics: MaintenanceMetrics,
    stop: CancellationToken,
    /// Earliest time of this worker's next attempt at each failed task, in case PostgreSQL has not recorded the
    /// failure.
    retry_at: HashMap<&'static str, Instant>,
}

impl Scheduler {
    /// A scheduler that runs until `stop` is cancelled.
    pub fn new(
        context: MaintenanceContext,
        metrics: MaintenanceMetrics,
        stop: CancellationToken,
    ) -> Self {
        Self { context, metrics, stop, retry_at: HashMap::new() }
    }

    /// Runs due tasks until the stop.
    pub async fn run(mut self) {
        let mut failures = 0;
        while !self.stop.is_cancelled() {
            let wait = match self.run_due_tasks().await {
                Ok(wait) => {
                    failures = 0;
                    wait
                }
                Err(error) => {
                    failures += 1;
                    let error: &dyn Error = &error;
                    tracing::warn!(error, "maintenance schedule not read; retrying");
                    doubled(RETRY_AFTER, failures, CHECK_EVERY)
                }
            };
            let wait = wait + jittered((wait / 5).min(MAX_JITTER));
            let _ = tokio::time::timeout(wait, self.stop.cancelled()).await;
        }
    }

    /// Runs due tasks, one after the other. Returns the time until a task may be due.
    async fn run_due_tasks(&mut self) -> Result<Duration, StoreError> {
        let records = self.context.store.task_records().await?;
        let records: HashMap<&str, &TaskRecord> =
            records.iter().map(|record| (record.task.as_str(), record)).collect();
        let mut next = CHECK_EVERY;
        for task in &TASKS {
            let record = records.get(task.name).copied();
            if let Some(began_at) = record.and_then(|record| record.succeeded_at) {
                self.metrics.record_last_success(task, began_at);
            }
            let wait = time_until_due(task.every, record).max(self.time_until_retry(task));
            if wait > Duration::ZERO {
                next = next.min(wait);
            } else if !self.stop.is_cancelled() {
                self.run_task(task).await;
                // The next check reads when the task is due again.
                next = Duration::ZERO;
            }
        }
        Ok(next)
    }

    fn time_until_retry(&self, task: &Task) -> Duration {
        let retry_at = self.retry_at.get(task.name);
        retry_at.map_or(Duration::ZERO, |at| at.saturating_duration_since(Instant::now()))
    }

    /// Runs a task that was due when the schedule was read; logs and counts the run.
    async fn run_task(&mut self, task: &'static Task) {
        let began = Instant::now();
        // The lock ends with the server that granted it, and then another worker may run the task.
        let result = self.context.store.on_one_primary(Box::pin(self.run_if_due(task))).await;
        let outcome = match &result {
            Ok(None) => return,
            Ok(Some(_)) => TaskOutcome::Succeeded,
            Err(error) => {
                self.retry_at.insert(task.name, Instant::now() + RETRY_AFTER);
                error.outcome()
            }
        };
        match &result {
            Err(RunError::RunsElsewhere(_)) => return,
            Err(RunError::Stopped) => {
                tracing::info!(task = task.name, "maintenance task cancelled by shutdown");
            }
            Err(error) => {
                let error: &dyn Error = error;
                tracing::warn!(task = task.name, error, "maintenance task failed; retrying later");
            }
            Ok(Some(report)) if report.has_work() => {
                tracing::info!(task = task.name, %report, "maintenance task finished");
            }
            Ok(_) => tracing::debug!(task = task.name, "maintenance task finished without work"),
        }
        self.metrics.record_run(task, outcome, began.elapsed());
    }

    /// Takes the task's lock and checks again, under the lock, whether the task is due. `None` if it is not, because another
    /// worker has run it.
    async fn run_if_due(&self, task: &'static Task) -> Result<Option<Report>, RunError> {
        let mut session = self.context.store.task_session(task.name, task.timeout).await?;
        if !session.try_lock().await? {
            return Err(RunError::RunsElsewhere(None));
        }
        let record = session.record().await?;
        if time_until_due(task.every, record.as_ref()) > Duration::ZERO {
            session.close().await;
            return Ok(None);
        }
        self.context.run_locked(task, session, &self.stop).await.map(Some)
    }
}
