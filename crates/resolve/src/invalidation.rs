//! Publishes invalidations right after a change is committed.
//!
//! The change's own statement has written an outbox row. It is deleted once the invalidation is
//! published; until then the outbox relay retries.

use std::{sync::Arc, time::Duration};

use linnet_domain::{Link, OutboxId};
use linnet_platform::redis_client::{RedisClient, RedisUnavailable};
use linnet_protocol::invalidation::{CHANNEL, Invalidation};
use linnet_store::{ChangedLink, Store};

use super::{Absence, CacheEntry, L1Cache, L2Cache, OutboxRelay, Resolution};

/// Longest wait of a request whose change could not be published, until the outbox relay has published it.
const PUBLISH_TIMEOUT: Duration = Duration::from_secs(2);

/// The publisher of one API server thread.
#[derive(Clone)]
pub struct InvalidationPublisher {
    /// L1 of this process, invalidated first, so that the client that made a change sees it.
    pub l1: Arc<L1Cache>,
    /// TTLs and keys of L2.
    pub l2: L2Cache,
    /// The server thread's Redis client.
    pub redis: RedisClient,
    /// The outbox table.
    pub store: Store,
    /// The task that publishes from the outbox.
    pub outbox: OutboxRelay,
}

impl InvalidationPublisher {
    /// Publishes a created link, because caches may have a negative entry for its code.
    pub async fn created(&self, link: &Link) {
        if self.publish(&link.short_code, &CacheEntry::from_link(link)).await.is_err() {
            let recorded =
                self.store.add_pending_invalidation(&link.short_code, link.version).await;
            if let Err(error) = recorded {
                // A negative entry expires by itself within `cache.l2_negative_ttl_s`.
                tracing::warn!(%error, "invalidation not recorded; negative entries expire by themselves");
            }
        }
    }

    /// Publishes an edited link.
    pub async fn updated(&self, changed: &ChangedLink) {
        self.publish_and_settle(changed, &CacheEntry::from_link(&changed.link)).await;
    }

    /// Publishes a deleted link.
    pub async fn deleted(&self, changed: &ChangedLink) {
        let resolution = Resolution::Negative(Absence::Inactive);
        let gone = CacheEntry { version: changed.link.version, resolution };
        self.publish_and_settle(changed, &gone).await;
    }

    /// Publishes that an API key was revoked or changed. `outbox_id` is the row that the change's statement wrote.
    pub async fn key_revoked(&self, id: &str, outbox_id: OutboxId) {
        let message = Invalidation::Key { id: id.to_owned() }.encode();
        let published: Result<i64, _> =
            self.redis.query(redis::cmd("PUBLISH").arg(CHANNEL).arg(message)).await;
        if published.is_ok() {
            self.delete_outbox_row(outbox_id).await;
        }
    }

    /// Triggers the relay after a statement that changed many links and wrote an outbox row for each.
    pub async fn relay_outbox(&self) {
        if !self.outbox.relay_now().await {
            tracing::warn!("changes not published; the outbox relay retries");
        }
    }

    async fn publish_and_settle(&self, changed: &ChangedLink, entry: &CacheEntry) {
        let Some(outbox_id) = changed.outbox_id else { return };
        if self.publish(&changed.link.short_code, entry).await.is_ok() {
            self.delete_outbox_row(outbox_id).await;
        } else if self.l1.bus_is_live() {
            // Other processes may use their old entries until the change is published, so it is not acknowledged before.
            // Without the bus they use none for longer than a second.
            let relayed = tokio::time::timeout(PUBLISH_TIMEOUT, self.outbox.relay_now()).await;
            if relayed != Ok(true) {
                tracing::warn!("invalidation not published; the outbox relay retries");
            }
        }
    }

    async fn publish(&self, code: &str, entry: &CacheEntry) -> Result<(), RedisUnavailable> {
        self.l1.invalidate(code);
        let published = self.l2.publish(&self.redis, code, entry).await;
        if let Err(RedisUnavailable::CommandFailed(error)) = &published {
            tracing::warn!(%error, "invalidation not published; the outbox relay retries");
        }
        published
    }

    async fn delete_outbox_row(&self, outbox_id: OutboxId) {
        // If this fails, the relay publishes the row again, which is harmless.
        if let Err(error) = self.store.delete_pending_invalidations(&[outbox_id]).await {
            tracing::debug!(%error, "outbox row not deleted");
        }
    }
}
