//! A worker's lane: takes jobs one after the other.

use std::{sync::Arc, time::Duration};

use linnet_platform::{redis_client::jittered, settings::RedisSettings};
use redis::RedisError;
use tokio::{sync::Notify, time::Instant};
use tokio_util::sync::CancellationToken;

use linnet_domain::Lane;
use linnet_store::Claim;

use super::{
    queue::{Notice, Queue},
    run::Runner,
};

const RETRY_FIRST: Duration = Duration::from_millis(50);
const RETRY_MAX: Duration = Duration::from_secs(2);
/// Time between two looks for what dead workers have left.
const CLAIM_EVERY: Duration = Duration::from_secs(10);

/// One of a worker's lanes.
pub(super) struct LaneWorker {
    pub(super) runner: Runner,
    pub(super) redis: RedisSettings,
    /// Who this is, among all lanes of all workers.
    pub(super) name: String,
    /// What it takes, best first.
    pub(super) lanes: &'static [Lane],
    /// Told when a job has ended, since its owner may now run another.
    pub(super) ended: Arc<Notify>,
}

impl LaneWorker {
    /// Runs jobs until `stop`; the one under way is given back after its chunk.
    pub(super) async fn run(self, stop: CancellationToken) {
        let mut backoff = RETRY_FIRST;
        while !stop.is_cancelled() {
            let error = match Queue::open(&self.redis, self.name.clone()).await {
                Ok(mut queue) => match self.consume(&mut queue, &stop).await {
                    Ok(()) => return,
                    Err(error) => {
                        backoff = RETRY_FIRST;
                        error
                    }
                },
                Err(error) => error,
            };
            tracing::warn!(%error, "the queue of jobs cannot be read: trying on");
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(jittered(backoff)) => {}
            }
            backoff = (backoff * 2).min(RETRY_MAX);
        }
    }

    async fn consume(&self, queue: &mut Queue, stop: &CancellationToken) -> Result<(), RedisError> {
        let mut claim_at = Instant::now();
        while !stop.is_cancelled() {
            if Instant::now() >= claim_at {
                claim_at = Instant::now() + jittered(CLAIM_EVERY);
                for lane in self.lanes {
                    for notice in queue.claim(*lane).await? {
                        self.look_at(queue, &notice, stop).await?;
                    }
                }
            }
            if let Some(notice) = queue.next(self.lanes).await? {
                self.look_at(queue, &notice, stop).await?;
            }
        }
        Ok(())
    }

    async fn look_at(
        &self,
        queue: &mut Queue,
        notice: &Notice,
        stop: &CancellationToken,
    ) -> Result<(), RedisError> {
        let Some(job_id) = notice.job_id else { return queue.done(notice).await };
        let settings = &self.runner.settings;
        let per_user = settings.running_per_user.into();
        let mut backoff = RETRY_FIRST;
        let claim = loop {
            let claim = self.runner.store.claim_job(job_id, &self.name, settings.lease(), per_user);
            match claim.await {
                Ok(claim) => break claim,
                Err(error) => {
                    tracing::warn!(%error, "jobs wait for the database: trying on");
                    tokio::select! {
                        // The entry is another worker's after a while.
                        () = stop.cancelled() => return Ok(()),
                        () = tokio::time::sleep(jittered(backoff)) => {}
                    }
                    backoff = (backoff * 2).min(RETRY_MAX);
                }
            }
        };
        // The job is in the database's hands; a notice that is not removed is only looked at again.
        let removed = queue.done(notice).await;
        if let Claim::Run(run) = claim {
            tracing::info!(job = run.id.get(), attempt = run.attempts, "a job begins");
            self.runner.run(&run, stop).await;
            self.ended.notify_one();
        }
        removed
    }
}
