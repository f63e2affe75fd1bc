//! Tells Redis what it could not be told when it happened.
//!
//! Every process looks at the outbox, so a change reaches all of them also when the process that
//! made it died, or is the only one that cannot reach Redis. Telling twice changes nothing: versions
//! decide.

use std::{collections::HashMap, pin::Pin, sync::Arc, time::Duration};

use linnet_platform::redis_client::{BeforeUse, jittered};
use linnet_protocol::invalidation::{CHANNEL, Invalidation};
use redis::AsyncCommands;
use tokio::sync::{mpsc, oneshot};

use linnet_store::{Pending, PendingKind, Store, StoreError};

use super::{Answer, CacheMetrics, Entry, L1Cache, L2Cache};

const POLL_EVERY: Duration = Duration::from_millis(200);
/// Younger changes are about to be told by whoever made them.
const MIN_AGE: Duration = Duration::from_millis(150);
const BATCH: i64 = 2_000;
/// Entries of one script call.
const SCRIPT_CHUNK: usize = 200;
/// Longest time for one batch; more means that a dependency hangs.
const BATCH_TIMEOUT: Duration = Duration::from_secs(5);
/// Longest that a fresh Redis connection waits while the outbox shrinks. When the database is away
/// the wait ends at once: nothing can have been changed lately, and L2 is better than no answer.
const CATCH_UP_TIMEOUT: Duration = Duration::from_mins(1);

/// The task's tools; it runs on the main runtime.
pub struct Outbox {
    /// A pool of the main runtime.
    pub store: Store,
    /// A pool of the main runtime.
    pub redis: deadpool_redis::Pool,
    /// L1 of this process.
    pub local: Arc<L1Cache>,
    /// L2's rules.
    pub shared: L2Cache,
    /// What is counted.
    pub metrics: Arc<CacheMetrics>,
}

/// Asks the outbox task to catch up now.
#[derive(Clone)]
pub struct OutboxRelay(mpsc::Sender<oneshot::Sender<()>>);

impl OutboxRelay {
    /// [`OutboxRelay::run`] as a hook.
    pub fn before_use(&self) -> BeforeUse {
        let catch_up = self.clone();
        Arc::new(move || catch_up.run())
    }

    /// Returns when Redis has every change that was committed before, or when the database is away.
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
    pub fn start(self) -> (OutboxRelay, impl Future<Output = ()> + Send + 'static) {
        let (sender, receiver) = mpsc::channel(64);
        (OutboxRelay(sender), self.run(receiver))
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
            match tokio::time::timeout(BATCH_TIMEOUT, self.tell_batch(age)).await {
                Ok(Ok(0)) => return true,
                Ok(Ok(told)) => self.metrics.caught_up.add(told),
                Ok(Err(error)) => {
                    let error: &dyn std::error::Error = &error;
                    tracing::debug!(error, "the outbox waits");
                    return false;
                }
                Err(_) => {
                    tracing::warn!("the outbox waits: a dependency does not answer");
                    return false;
                }
            }
        }
    }

    /// Tells one batch, and how many that were.
    async fn tell_batch(&self, age: Duration) -> Result<u64, CatchUpError> {
        let pending = self.store.pending_changes(age, BATCH).await?;
        if pending.is_empty() {
            return Ok(0);
        }
        let links = latest_versions(&pending);
        for code in links.keys() {
            self.local.invalidate(code);
        }
        let mut redis = self.redis.get().await?;
        self.tell_links(&mut redis, links).await?;
        for key in pending.iter().filter(|change| change.kind == PendingKind::Key) {
            let message = Invalidation::Key { id: key.subject.clone() }.encode();
            let _: i64 = redis.publish(CHANNEL, message).await?;
        }
        let ids: Vec<_> = pending.iter().map(|change| change.id).collect();
        self.store.delete_pending(&ids).await?;
        Ok(ids.len() as u64)
    }

    async fn tell_links(
        &self,
        redis: &mut deadpool_redis::Connection,
        links: HashMap<String, i64>,
    ) -> Result<(), CatchUpError> {
        let codes: Vec<String> = links.keys().cloned().collect();
        // The rows as they are now: later changes may be in them already.
        let rows = self.store.find_many_for_resolve(&codes).await?;
        let gone = |version| Entry { version, answer: Answer::Absent };
        let mut entries: HashMap<String, Entry> =
            links.into_iter().map(|(code, version)| (code, gone(version))).collect();
        for row in rows {
            let entry = Entry::from_row(&row);
            entries.insert(row.short_code, entry);
        }
        let entries: Vec<(String, Entry)> = entries.into_iter().collect();
        for chunk in entries.chunks(SCRIPT_CHUNK) {
            let changes = chunk.iter().map(|(code, entry)| (code.as_str(), entry));
            let _: i64 = self.shared.announcement(changes).invoke_async(redis).await?;
        }
        Ok(())
    }
}

/// Each changed code once, with its highest version.
fn latest_versions(pending: &[Pending]) -> HashMap<String, i64> {
    let mut links = HashMap::new();
    for change in pending.iter().filter(|change| change.kind == PendingKind::Link) {
        let version = links.entry(change.subject.clone()).or_insert(change.version);
        *version = change.version.max(*version);
    }
    links
}
