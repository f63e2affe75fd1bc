//! Keeps the time in a worker: looks at what is due, and runs it unless another worker does.

use std::{
    collections::HashMap,
    error::Error,
    time::{Duration, Instant},
};

use linnet_platform::redis_client::jittered;
use tokio_util::sync::CancellationToken;

use linnet_store::{StoreError, TaskOutcome, TaskRecord};

use super::{
    MaintenanceContext, MaintenanceMetrics, Report, RunError, TASKS, Task,
    schedule::{RETRY_AFTER, back_off, wait},
};

/// Longest time between two looks: clocks are set, and rows deleted.
const LOOK_EVERY: Duration = Duration::from_mins(5);
/// Most that is added to a wait, so that workers do not come in step.
const MAX_SPREAD: Duration = Duration::from_secs(5);

/// The clock of one worker.
pub struct Scheduler {
    upkeep: MaintenanceContext,
    metrics: MaintenanceMetrics,
    stop: CancellationToken,
    /// Tasks that this worker leaves alone for a while, whatever the table says.
    not_before: HashMap<&'static str, Instant>,
}

impl Scheduler {
    /// A clock that stops with `stop`.
    pub fn new(
        upkeep: MaintenanceContext,
        metrics: MaintenanceMetrics,
        stop: CancellationToken,
    ) -> Self {
        Self { upkeep, metrics, stop, not_before: HashMap::new() }
    }

    /// Runs what is due, until the stop.
    pub async fn run(mut self) {
        let mut failures = 0;
        while !self.stop.is_cancelled() {
            let wait = match self.look().await {
                Ok(wait) => {
                    failures = 0;
                    wait
                }
                Err(error) => {
                    failures += 1;
                    let error: &dyn Error = &error;
                    tracing::warn!(error, "what is due of the upkeep is not known: asking again");
                    back_off(failures, LOOK_EVERY)
                }
            };
            let wait = wait + jittered((wait / 5).min(MAX_SPREAD));
            // Ends either way; the loop sees which.
            let _ = tokio::time::timeout(wait, self.stop.cancelled()).await;
        }
    }

    /// Runs what is due, one after the other; the time until something may be due again.
    async fn look(&mut self) -> Result<Duration, StoreError> {
        let records = self.upkeep.store.task_records().await?;
        let records: HashMap<&str, &TaskRecord> =
            records.iter().map(|record| (record.task.as_str(), record)).collect();
        let mut next = LOOK_EVERY;
        for task in &TASKS {
            let record = records.get(task.name).copied();
            if let Some(time) = record.and_then(|record| record.succeeded_at) {
                self.metrics.succeeded_at(task, time);
            }
            let wait = wait(task.every, record).max(self.time_off(task));
            if wait > Duration::ZERO {
                next = next.min(wait);
            } else if !self.stop.is_cancelled() {
                self.attend(task).await;
                // The table says when the task is due again.
                next = Duration::ZERO;
            }
        }
        Ok(next)
    }

    fn time_off(&self, task: &Task) -> Duration {
        let until = self.not_before.get(task.name);
        until.map_or(Duration::ZERO, |until| until.saturating_duration_since(Instant::now()))
    }

    /// Runs a task that seems due, counts the run, and tells of its failure.
    async fn attend(&mut self, task: &'static Task) {
        let began = Instant::now();
        let result = self.run_if_due(task).await;
        let outcome = match &result {
            Ok(None) => return,
            Ok(Some(_)) => TaskOutcome::Succeeded,
            Err(error) => {
                self.not_before.insert(task.name, Instant::now() + RETRY_AFTER);
                error.outcome()
            }
        };
        match &result {
            Err(RunError::Elsewhere(_)) => return,
            Err(RunError::Stopped) => tracing::info!(task = task.name, "a run is cut off"),
            Err(error) => {
                let error: &dyn Error = error;
                tracing::warn!(task = task.name, error, "a run failed: it is tried again");
            }
            Ok(Some(report)) if report.has_work() => {
                tracing::info!(task = task.name, %report, "a run did its work");
            }
            Ok(_) => tracing::debug!(task = task.name, "a run found nothing to do"),
        }
        self.metrics.ran(task, outcome, began.elapsed());
    }

    /// `None` when another worker has run it meanwhile.
    async fn run_if_due(&self, task: &'static Task) -> Result<Option<Report>, RunError> {
        let mut session = self.upkeep.store.task_session(task.name, task.timeout).await?;
        if !session.try_lock().await? {
            return Err(RunError::Elsewhere(None));
        }
        if wait(task.every, session.record().await?.as_ref()) > Duration::ZERO {
            session.close().await;
            return Ok(None);
        }
        self.upkeep.run_locked(task, session, &self.stop).await.map(Some)
    }
}
