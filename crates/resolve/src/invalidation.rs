//! Tells the caches of a change, right after it is committed.

use std::sync::Arc;

use linnet_platform::redis_client::{RedisAway, RedisClient};
use linnet_protocol::invalidation::{CHANNEL, Invalidation};

use linnet_domain::{Link, OutboxId};
use linnet_store::{Changed, Store};

use super::{Answer, Entry, L1Cache, L2Cache, OutboxRelay, Redirect};

/// One API worker's voice.
#[derive(Clone)]
pub struct InvalidationPublisher {
    /// L1 of this process, told first: whoever made the change sees it.
    pub local: Arc<L1Cache>,
    /// L2's rules.
    pub shared: L2Cache,
    /// L2's connection.
    pub redis: RedisClient,
    /// Where news wait when Redis is away.
    pub store: Store,
    /// Tells what is in the outbox.
    pub outbox: OutboxRelay,
}

impl InvalidationPublisher {
    /// A link was made. A cache may hold that its code is absent.
    pub async fn created(&self, link: &Link) {
        if self.tell(&link.short_code, &entry_of(link)).await.is_err() {
            let noted = self.store.note_pending_link(&link.short_code, link.version).await;
            if let Err(error) = noted {
                // A cached absence ends by itself within `cache.l2_negative_ttl_s`.
                tracing::warn!(%error, "a new link may seem absent for a while");
            }
        }
    }

    /// A link was edited.
    pub async fn updated(&self, changed: &Changed) {
        self.tell_outboxed(changed, &entry_of(&changed.link)).await;
    }

    /// A link was deleted.
    pub async fn deleted(&self, changed: &Changed) {
        let gone = Entry { version: changed.link.version, answer: Answer::Absent };
        self.tell_outboxed(changed, &gone).await;
    }

    /// A key was revoked; `outbox_id` says so in the database.
    pub async fn key_revoked(&self, id: &str, outbox_id: OutboxId) {
        let message = Invalidation::Key { id: id.to_owned() }.encode();
        let told: Result<i64, _> =
            self.redis.query(redis::cmd("PUBLISH").arg(CHANNEL).arg(message)).await;
        if told.is_ok() {
            self.forget(outbox_id).await;
        }
    }

    /// Many things changed at once, and the outbox has them all.
    pub async fn catch_up(&self) {
        self.outbox.run().await;
    }

    async fn tell_outboxed(&self, changed: &Changed, entry: &Entry) {
        let Some(outbox_id) = changed.outbox_id else { return };
        if self.tell(&changed.link.short_code, entry).await.is_ok() {
            self.forget(outbox_id).await;
        }
    }

    async fn tell(&self, code: &str, entry: &Entry) -> Result<(), RedisAway> {
        self.local.invalidate(code);
        let told = self.shared.announce(&self.redis, code, entry).await;
        if let Err(RedisAway::Failed(error)) = &told {
            tracing::warn!(%error, "a change waits in the outbox: Redis was not told");
        }
        told
    }

    async fn forget(&self, outbox_id: OutboxId) {
        // What is left behind is told once more, which changes nothing.
        if let Err(error) = self.store.delete_pending(&[outbox_id]).await {
            tracing::debug!(%error, "an outbox row stays behind");
        }
    }
}

/// What caches hold of a link.
fn entry_of(link: &Link) -> Entry {
    let answer = if !link.is_active {
        Answer::Absent
    } else if link.max_clicks.is_some() {
        Answer::Limited
    } else {
        let expires_at = link.expires_at.map(|time| time.timestamp_millis());
        Redirect::new(&link.original_url, link.redirect_status.code(), expires_at, link.id)
            .map_or(Answer::Absent, Answer::Redirect)
    };
    Entry { version: link.version, answer }
}
