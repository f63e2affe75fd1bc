//! The outbox relay: publishes changes that their own process could not publish.
//!
//! Every shortener polls the outbox, so a change reaches all processes even if the process that made it
//! has died or has lost Redis. Publishing a change twice is harmless: a cache never replaces a version
//! with a lower one.

use std::{
    collections::HashMap,
    pin::Pin,
    sync::Arc,
    time::{Duration, Instant},
};

use linnet_platform::{
    backoff::jittered,
    redis_client::BeforeUse,
    redis_connection::{NoConnection, RedisPool},
};
use linnet_protocol::invalidation::{CHANNEL, Invalidation};
use redis::{AsyncCommands as _, aio::MultiplexedConnection};
use tokio::sync::{mpsc, oneshot};

use linnet_store::{InvalidationKind, PendingInvalidation, Store, StoreError};

use super::{
    Absence, CacheEntry, CacheMetrics, L1Cache, L2Cache, Resolution,
    l2_restart::empty_after_restart,
};

const POLL_EVERY: Duration = Duration::from_millis(200);
/// Age from which a row is relayed. A younger one is about to be published by the process that made it.
const MIN_AGE: Duration = Duration::from_millis(150);
const BATCH: i64 = 2_000;
/// The maximum number of entries in one script call.
const SCRIPT_CHUNK: usize = 200;
/// Longest time for one batch. A batch that takes longer waits for a hung dependency.
const BATCH_TIMEOUT: Duration = Duration::from_secs(5);
/// Longest wait of a new Redis connection for the outbox to be emptied.
const RELAY_TIMEOUT: Duration = Duration::from_mins(1);
/// Time without PostgreSQL after which Redis is used although the outbox could not be read: L2 is then better than no
/// redirect. A single error is not enough. After a restart of PostgreSQL the relay's connection is broken, while
/// changes are committed through new ones.
const POSTGRES_TIMEOUT: Duration = Duration::from_secs(2);
/// Time between two attempts to empty the outbox for a caller.
const RETRY_EVERY: Duration = Duration::from_millis(50);

/// The outbox relay before its start. It runs on a thread of its own, which no other task can delay.
pub struct Outbox {
    /// The database pool of its thread.
    pub store: Store,
    /// The Redis pool of its thread.
    pub redis: RedisPool,
    /// L1 of this process.
    pub l1: Arc<L1Cache>,
    /// TTLs and keys of L2.
    pub l2: L2Cache,
    /// Counts relayed changes.
    pub metrics: Arc<CacheMetrics>,
}

/// Triggers the relay.
#[derive(Clone)]
pub struct OutboxRelay {
    requests: mpsc::Sender<oneshot::Sender<()>>,
    metrics: Arc<CacheMetrics>,
}

impl OutboxRelay {
    /// [`OutboxRelay::relay_now`] as a hook, which counts the connections that it refuses.
    pub fn before_use(&self) -> BeforeUse {
        let relay = self.clone();
        Arc::new(move || {
            let (relayed, metrics) = (relay.relay_now(), Arc::clone(&relay.metrics));
            Box::pin(async move {
                let is_relayed = relayed.await;
                metrics.refused_connections.add(u64::from(!is_relayed));
                is_relayed
            })
        })
    }

    /// Returns true when every change that was committed before is published, and also if PostgreSQL does not respond
    /// ([`POSTGRES_TIMEOUT`]) or the outbox is not empty after [`RELAY_TIMEOUT`]. Returns false if Redis does not
    /// respond.
    pub fn relay_now(&self) -> Pin<Box<dyn Future<Output = bool> + Send>> {
        let requests = self.requests.clone();
        Box::pin(async move {
            let (done, wait) = oneshot::channel();
            let relayed = async {
                requests.send(done).await.ok()?;
                wait.await.ok()
            };
            match tokio::time::timeout(RELAY_TIMEOUT, relayed).await {
                Ok(relayed) => relayed.is_some(),
                Err(_) => {
                    tracing::warn!("outbox not emptied; using Redis without the latest changes");
                    true
                }
            }
        })
    }
}

#[derive(Debug, thiserror::Error)]
enum RelayError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Pool(#[from] NoConnection),
    #[error("a Redis command failed")]
    Redis(#[from] redis::RedisError),
    #[error("the Redis master is no longer confirmed")]
    Unconfirmed,
    #[error("a batch timed out")]
    TimedOut,
}

impl Outbox {
    /// Returns the handle, and the task to spawn. The task ends when every handle is dropped.
    pub fn start(self) -> (OutboxRelay, impl Future<Output = ()> + Send + 'static) {
        let (sender, receiver) = mpsc::channel(64);
        let relay = OutboxRelay { requests: sender, metrics: Arc::clone(&self.metrics) };
        (relay, self.run(receiver))
    }

    async fn run(self, mut requests: mpsc::Receiver<oneshot::Sender<()>>) {
        let mut postgres_failed_at = None;
        loop {
            let request = tokio::time::timeout(jittered(POLL_EVERY), requests.recv()).await;
            match request {
                Ok(Some(done)) => {
                    if self.catch_up(&mut postgres_failed_at).await {
                        // The caller may have timed out.
                        let _ = done.send(());
                    }
                }
                // Every handle is dropped: the process is stopping.
                Ok(None) => return,
                Err(_) => {
                    if self.drain(MIN_AGE).await.is_ok() {
                        postgres_failed_at = None;
                    }
                }
            }
        }
    }

    /// Publishes every committed change, in Redis without entries of its last run. Returns false if Redis does not
    /// respond. `postgres_failed_at` is the time of the first of the failures in a row of PostgreSQL.
    async fn catch_up(&self, postgres_failed_at: &mut Option<Instant>) -> bool {
        loop {
            if !self.prepare_l2().await {
                return false;
            }
            match self.drain(Duration::ZERO).await {
                Ok(()) => {
                    *postgres_failed_at = None;
                    return true;
                }
                Err(RelayError::Pool(_) | RelayError::Redis(_) | RelayError::Unconfirmed) => {
                    return false;
                }
                Err(RelayError::Store(_) | RelayError::TimedOut) => {
                    let failed_at = *postgres_failed_at.get_or_insert_with(Instant::now);
                    if failed_at.elapsed() >= POSTGRES_TIMEOUT {
                        tracing::warn!("outbox not read; using Redis without the latest changes");
                        return true;
                    }
                    tokio::time::sleep(jittered(RETRY_EVERY)).await;
                }
            }
        }
    }

    /// Empties L2 if Redis has restarted; false if Redis cannot be reached.
    async fn prepare_l2(&self) -> bool {
        let emptied = async {
            let mut redis = self.redis.get().await?;
            let entries = empty_after_restart(redis.connection(), self.l2.key_layout()).await?;
            if redis.is_confirmed() { Ok(entries) } else { Err(RelayError::Unconfirmed) }
        };
        match tokio::time::timeout(RELAY_TIMEOUT, emptied).await {
            Ok(Ok(0)) => true,
            Ok(Ok(entries)) => {
                tracing::info!(entries, "Redis has restarted; L2 emptied");
                true
            }
            Ok(Err(error)) => {
                let error: &dyn std::error::Error = &error;
                tracing::debug!(error, "L2 not checked after a restart of Redis");
                false
            }
            Err(_) => false,
        }
    }

    /// Publishes batches until the outbox is empty.
    async fn drain(&self, age: Duration) -> Result<(), RelayError> {
        loop {
            let batch = tokio::time::timeout(BATCH_TIMEOUT, self.publish_batch(age)).await;
            match batch.map_err(|_| RelayError::TimedOut).flatten() {
                Ok(0) => return Ok(()),
                Ok(count) => self.metrics.relayed.add(count),
                Err(error) => {
                    let cause: &dyn std::error::Error = &error;
                    tracing::debug!(error = cause, "outbox batch failed");
                    return Err(error);
                }
            }
        }
    }

    /// Publishes and deletes one batch; returns its size.
    async fn publish_batch(&self, age: Duration) -> Result<u64, RelayError> {
        let pending = self.store.pending_invalidations(age, BATCH).await?;
        if pending.is_empty() {
            return Ok(0);
        }
        let links = latest_versions(&pending);
        for code in links.keys() {
            self.l1.invalidate(code);
        }
        let mut redis = self.redis.get().await?;
        self.publish_links(redis.connection(), links).await?;
        for key in pending.iter().filter(|change| change.kind == InvalidationKind::Key) {
            let message = Invalidation::Key { id: key.subject.clone() }.encode();
            let _: i64 = redis.connection().publish(CHANNEL, message).await?;
        }
        // A master that was replaced accepts the batch too, but no other process receives it.
        if !redis.is_confirmed() {
            return Err(RelayError::Unconfirmed);
        }
        let ids: Vec<_> = pending.iter().map(|change| change.id).collect();
        self.store.delete_pending_invalidations(&ids).await?;
        Ok(ids.len() as u64)
    }

    async fn publish_links(
        &self,
        redis: &mut MultiplexedConnection,
        links: HashMap<String, i64>,
    ) -> Result<(), RelayError> {
        let codes: Vec<String> = links.keys().cloned().collect();
        // The current rows, which may have later changes already.
        let rows = self.store.find_many_for_resolve(&codes).await?;
        let resolution = Resolution::Negative(Absence::Inactive);
        let negative = |version| CacheEntry { version, resolution: resolution.clone() };
        let mut entries: HashMap<String, CacheEntry> =
            links.into_iter().map(|(code, version)| (code, negative(version))).collect();
        for row in rows {
            let entry = CacheEntry::from_row(&row);
            entries.insert(row.short_code, entry);
        }
        let entries: Vec<(String, CacheEntry)> = entries.into_iter().collect();
        for chunk in entries.chunks(SCRIPT_CHUNK) {
            let changes = chunk.iter().map(|(code, entry)| (code.as_str(), entry));
            let _: i64 = self.l2.publication(changes).invoke_async(redis).await?;
        }
        Ok(())
    }
}

/// Each changed code once, with its highest version.
fn latest_versions(pending: &[PendingInvalidation]) -> HashMap<String, i64> {
    let mut links = HashMap::new();
    for change in pending.iter().filter(|change| change.kind == InvalidationKind::Link) {
        let version = links.entry(change.subject.clone()).or_insert(change.version);
        *version = change.version.max(*version);
    }
    links
}
