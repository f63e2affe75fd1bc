//! Tells Redis what it could not be told when it happened.
//!
//! Every process looks at the outbox, so a change reaches all of them also when the process that
//! made it died, or is the only one that cannot reach Redis. Telling twice changes nothing: versions
//! decide.

use std::{pin::Pin, sync::Arc, time::Duration};

use linnet_platform::{
    change_feed::{CHANNEL, Change},
    redis_link::jittered,
};
use redis::AsyncCommands;
use tokio::sync::{mpsc, oneshot};

use crate::store::{Pending, PendingKind, Store, StoreError};

use super::{Answer, CacheMetrics, Entry, LocalCache, SharedCache};

const POLL_EVERY: Duration = Duration::from_millis(200);
/// Younger changes are about to be told by whoever made them.
const MIN_AGE: Duration = Duration::from_millis(150);
const BATCH: i64 = 500;
/// Longest that a fresh Redis connection waits for the outbox. Without the database nothing can have
/// been changed lately, and L2 is better than no answer.
const CATCH_UP_TIMEOUT: Duration = Duration::from_secs(1);

/// The task's tools; it runs on the main runtime.
pub struct Outbox {
    /// A pool of the main runtime.
    pub store: Store,
    /// A pool of the main runtime.
    pub redis: deadpool_redis::Pool,
    /// L1 of this process.
    pub local: Arc<LocalCache>,
    /// L2's rules.
    pub shared: SharedCache,
    /// What is counted.
    pub metrics: Arc<CacheMetrics>,
}

/// Asks the outbox task to catch up now.
#[derive(Clone)]
pub struct CatchUp(mpsc::Sender<oneshot::Sender<()>>);

impl CatchUp {
    /// Returns when Redis has every change that was committed before, or after a second.
    pub fn run(&self) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        let requests = self.0.clone();
        Box::pin(async move {
            let (done, wait) = oneshot::channel();
            let caught_up = async {
                requests.send(done).await.ok()?;
                wait.await.ok()
            };
            if tokio::time::timeout(CATCH_UP_TIMEOUT, caught_up).await.ok().flatten().is_none() {
                tracing::warn!("Redis is used before it has the changes of the last moments");
            }
        })
    }
}

#[derive(Debug, thiserror::Error)]
enum CatchUpError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("no Redis connection")]
    Pool(#[from] deadpool_redis::PoolError),
    #[error("a Redis command failed")]
    Redis(#[from] redis::RedisError),
}

impl Outbox {
    /// The handle, and the task; it never ends.
    pub fn start(self) -> (CatchUp, impl Future<Output = ()> + Send + 'static) {
        let (sender, receiver) = mpsc::channel(64);
        (CatchUp(sender), self.run(receiver))
    }

    async fn run(self, mut requests: mpsc::Receiver<oneshot::Sender<()>>) {
        loop {
            let asked = tokio::time::timeout(jittered(POLL_EVERY), requests.recv()).await;
            match asked {
                Ok(Some(done)) => {
                    if self.drain(Duration::ZERO).await {
                        // Nobody waits any more after the time-out.
                        let _ = done.send(());
                    }
                }
                // All links are gone: the process is stopping.
                Ok(None) => return,
                Err(_) => {
                    self.drain(MIN_AGE).await;
                }
            }
        }
    }

    /// True when nothing is left.
    async fn drain(&self, age: Duration) -> bool {
        loop {
            match self.tell_batch(age).await {
                Ok(0) => return true,
                Ok(told) => self.metrics.caught_up.add(told),
                Err(error) => {
                    let error: &dyn std::error::Error = &error;
                    tracing::debug!(error, "the outbox waits");
                    return false;
                }
            }
        }
    }

    async fn tell_batch(&self, age: Duration) -> Result<u64, CatchUpError> {
        let pending = self.store.pending_changes(age, BATCH).await?;
        if pending.is_empty() {
            return Ok(0);
        }
        for change in pending.iter().filter(|change| change.kind == PendingKind::Link) {
            self.local.invalidate(&change.subject);
        }
        let mut redis = self.redis.get().await?;
        for change in &pending {
            self.tell(&mut redis, change).await?;
        }
        let ids: Vec<i64> = pending.iter().map(|change| change.id).collect();
        self.store.delete_pending(&ids).await?;
        Ok(ids.len() as u64)
    }

    async fn tell(
        &self,
        redis: &mut deadpool_redis::Connection,
        change: &Pending,
    ) -> Result<(), CatchUpError> {
        match change.kind {
            PendingKind::Key => {
                let message = Change::Key { id: change.subject.clone() }.encode();
                let _: i64 = redis.publish(CHANNEL, message).await?;
            }
            PendingKind::Link => {
                // The row as it is now: later changes may be in it already.
                let entry = match self.store.find_for_resolve(&change.subject).await? {
                    Some(row) => Entry::from_row(&row),
                    None => Entry { version: change.version, answer: Answer::Absent },
                };
                let call = self.shared.announcement(&change.subject, &entry);
                let _: i64 = call.invoke_async(redis).await?;
            }
        }
        Ok(())
    }
}
