//! Publishes notices for jobs that need one: due jobs without a notice, jobs whose lease has expired, and jobs whose notice
//! Redis has lost. Cancels jobs whose key has ended.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use linnet_platform::{backoff::jittered, lock::MutexExt as _, settings::RedisSettings};
use linnet_telemetry::error_chain;
use tokio::{sync::Notify, time::Instant};

use linnet_store::{JobCounts, Store, StoreError};

use super::{JobSettings, queue::JobQueue};

/// Longest time between two queries for due jobs.
const DISPATCH_EVERY: Duration = Duration::from_secs(1);
/// Time between two counts of jobs, for metrics, and two searches for jobs whose key has ended.
const COUNT_EVERY: Duration = Duration::from_secs(5);
/// Age at which a notice that is missing from the stream counts as lost.
const LOST_AFTER: Duration = Duration::from_secs(3);
/// Time between two notices for the same job whose lease has expired.
const REPEAT_AFTER: Duration = Duration::from_secs(5);

/// The latest counts of jobs, shared with the metrics.
pub(super) type SharedJobCounts = Arc<Mutex<JobCounts>>;

#[derive(Debug, thiserror::Error)]
enum DispatchError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("the job queue in Redis failed")]
    Redis(#[from] redis::RedisError),
}

/// The dispatcher of a worker. Notices of several dispatchers for one job are harmless.
pub(super) struct Dispatcher {
    pub(super) store: Store,
    pub(super) redis: RedisSettings,
    pub(super) settings: JobSettings,
    pub(super) attempt_ended: Arc<Notify>,
    pub(super) counts: SharedJobCounts,
}

impl Dispatcher {
    /// Dispatches due jobs; reconnects after an error. Never returns.
    pub(super) async fn run(self) {
        loop {
            if let Err(error) = self.dispatch().await {
                tracing::warn!(error = error_chain(&error), "due jobs not dispatched; retrying");
                tokio::time::sleep(jittered(DISPATCH_EVERY)).await;
            }
        }
    }

    async fn dispatch(&self) -> Result<(), DispatchError> {
        let mut queue = JobQueue::open(&self.redis, "dispatcher".to_owned()).await?;
        let mut count_at = Instant::now();
        loop {
            let per_user = self.settings.running_per_user.into();
            for (job_id, lane) in self.store.due_jobs(per_user, REPEAT_AFTER).await? {
                queue.publish(lane, job_id).await?;
            }
            let noticed = self.store.count_unclaimed_announcements(LOST_AFTER).await?;
            if noticed > queue.length().await? {
                let count = self.store.reset_announcements(LOST_AFTER).await?;
                tracing::warn!(count, "job notices lost in Redis; publishing them again");
                continue;
            }
            if Instant::now() >= count_at {
                let ended = self.store.cancel_jobs_of_ended_keys().await?;
                if ended > 0 {
                    tracing::info!(count = ended, "jobs of ended keys cancelled");
                }
                let counts = self.store.count_jobs().await?;
                *self.counts.lock_ignoring_poison() = counts;
                queue.delete_idle_consumers().await?;
                count_at = Instant::now() + jittered(COUNT_EVERY);
            }
            // When an attempt ends, its user's next job may become due.
            let ended = self.attempt_ended.notified();
            let _ = tokio::time::timeout(jittered(DISPATCH_EVERY), ended).await;
        }
    }
}
