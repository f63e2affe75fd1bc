//! A lane of a worker: leases jobs and runs them, one after the other.

use std::{sync::Arc, time::Duration};

use linnet_platform::{backoff::jittered, settings::RedisSettings};
use redis::RedisError;
use tokio::{sync::Notify, time::Instant};
use tokio_util::sync::CancellationToken;

use linnet_domain::Lane;
use linnet_store::JobClaim;

use super::{
    queue::{JobNotice, JobQueue},
    run::{JobRunner, new_backoff},
};

/// Time between two takeovers of notices that dead workers hold.
const CLAIM_EVERY: Duration = Duration::from_secs(10);

/// One lane of a worker.
pub(super) struct LaneWorker {
    pub(super) runner: JobRunner,
    pub(super) redis: RedisSettings,
    /// Unique among all lanes of all workers.
    pub(super) name: String,
    /// The lanes that it serves, in order of preference.
    pub(super) lanes: &'static [Lane],
    /// Notified when an attempt has ended, because another job of the same user may now run.
    pub(super) attempt_ended: Arc<Notify>,
}

impl LaneWorker {
    /// Runs jobs until `stop` is cancelled. Then finishes the current chunk and releases the job.
    pub(super) async fn run(self, stop: CancellationToken) {
        let mut backoff = new_backoff();
        while !stop.is_cancelled() {
            let error = match JobQueue::open(&self.redis, self.name.clone()).await {
                Ok(mut queue) => match self.consume(&mut queue, &stop).await {
                    Ok(()) => return,
                    Err(error) => {
                        backoff.reset();
                        error
                    }
                },
                Err(error) => error,
            };
            tracing::warn!(%error, "job queue not readable; retrying");
            if backoff.wait_unless_cancelled(&stop).await.is_break() {
                return;
            }
        }
    }

    async fn consume(
        &self,
        queue: &mut JobQueue,
        stop: &CancellationToken,
    ) -> Result<(), RedisError> {
        let mut claim_at = Instant::now();
        while !stop.is_cancelled() {
            if Instant::now() >= claim_at {
                claim_at = Instant::now() + jittered(CLAIM_EVERY);
                for lane in self.lanes {
                    for notice in queue.claim(*lane).await? {
                        self.handle(queue, &notice, stop).await?;
                    }
                }
            }
            if let Some(notice) = queue.next(self.lanes).await? {
                self.handle(queue, &notice, stop).await?;
            }
        }
        Ok(())
    }

    /// Tries to lease the job of a notice, removes the notice, and runs the job if it was leased.
    async fn handle(
        &self,
        queue: &mut JobQueue,
        notice: &JobNotice,
        stop: &CancellationToken,
    ) -> Result<(), RedisError> {
        let Some(job_id) = notice.job_id else { return queue.remove(notice).await };
        let settings = &self.runner.settings;
        let per_user = settings.running_per_user.into();
        let mut backoff = new_backoff();
        let claim = loop {
            let claim = self.runner.store.claim_job(job_id, &self.name, settings.lease(), per_user);
            match claim.await {
                Ok(claim) => break claim,
                Err(error) => {
                    tracing::warn!(%error, "job not leased; retrying");
                    if backoff.wait_unless_cancelled(stop).await.is_break() {
                        // Another worker claims the notice later.
                        return Ok(());
                    }
                }
            }
        };
        // PostgreSQL has recorded the lease, so the notice is no longer needed. If its removal fails, it is handled again
        // without effect.
        let removed = queue.remove(notice).await;
        if let JobClaim::Claimed(run) = claim {
            tracing::info!(job = run.id.get(), attempt = run.attempts, "job attempt started");
            self.runner.run(*run, stop).await;
            self.attempt_ended.notify_one();
        }
        removed
    }
}
