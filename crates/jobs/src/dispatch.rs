//! Announces what should be looked at and nobody was told of: jobs whose time has come, whose owner
//! may run another, whose worker is dead, or whose notice Redis has lost.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use linnet_platform::{redis_client::jittered, settings::RedisSettings};
use tokio::{sync::Notify, time::Instant};

use linnet_store::{JobCounts, Store, StoreError};

use super::{JobSettings, queue::Queue};

const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Time between two counts, for metrics.
const COUNT_EVERY: Duration = Duration::from_secs(5);
/// A notice that was made longer ago and is not in the stream is lost.
const LOST_AFTER: Duration = Duration::from_secs(3);
/// Time between two announcements of the same dead worker's job.
const AGAIN_AFTER: Duration = Duration::from_secs(5);

/// What was last counted.
pub(super) type Counted = Arc<Mutex<JobCounts>>;

#[derive(Debug, thiserror::Error)]
enum DispatchError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("the queue does not answer")]
    Redis(#[from] redis::RedisError),
}

/// The task's tools. Every worker has one; that two announce the same job does no harm.
pub(super) struct Dispatcher {
    pub(super) store: Store,
    pub(super) redis: RedisSettings,
    pub(super) settings: JobSettings,
    pub(super) ended: Arc<Notify>,
    pub(super) counted: Counted,
}

impl Dispatcher {
    /// Never ends.
    pub(super) async fn run(self) {
        loop {
            if let Err(error) = self.dispatch().await {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "waiting jobs are not announced: trying on"
                );
                tokio::time::sleep(jittered(LOOK_EVERY)).await;
            }
        }
    }

    async fn dispatch(&self) -> Result<(), DispatchError> {
        let mut queue = Queue::open(&self.redis, "dispatcher".to_owned()).await?;
        let mut count_at = Instant::now();
        loop {
            let per_user = self.settings.running_per_user.into();
            for (job_id, lane) in self.store.due_jobs(per_user, AGAIN_AFTER).await? {
                queue.announce(lane, job_id).await?;
            }
            let waiting = self.store.count_announced(LOST_AFTER).await?;
            if waiting > queue.length().await? {
                let count = self.store.forget_announcements(LOST_AFTER).await?;
                tracing::warn!(count, "the queue has lost jobs: they are announced again");
                continue;
            }
            if Instant::now() >= count_at {
                let counts = self.store.count_jobs().await?;
                *self.counted.lock().unwrap_or_else(PoisonError::into_inner) = counts;
                queue.forget_consumers().await?;
                count_at = Instant::now() + jittered(COUNT_EVERY);
            }
            // An ended job makes room for another of its owner.
            let _ = tokio::time::timeout(jittered(LOOK_EVERY), self.ended.notified()).await;
        }
    }
}
