//! Verifies the keys of leases: at the beginning, and while the invalidation bus is stale.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use futures::StreamExt as _;
use secrecy::ExposeSecret as _;
use tokio::time::{MissedTickBehavior, timeout_at};

use super::{
    KeyAuthenticator, KeyStatus, LookupError, PresentedKey,
    credentials::KeyHash,
    lease::{Lease, LeaseEnd, LeasedKey},
};
use crate::upstream::UpstreamClient;

/// Interval at which [`keep`] looks for keys to verify.
const CHECK_EVERY: Duration = Duration::from_millis(150);
/// Maximum number of lookups for a new lease. A lookup that an invalidation overtakes is not cached, and is repeated.
const LOOKUPS: u32 = 3;
/// Maximum number of concurrent verifications.
const CONCURRENT_VERIFICATIONS: usize = 32;

impl KeyAuthenticator {
    /// A lease on a key; `None` if the key is not valid.
    pub(crate) async fn lease(
        self: &Arc<Self>,
        client: &UpstreamClient,
        key: PresentedKey<'_>,
        hash: KeyHash,
    ) -> Result<Option<Lease>, Arc<LookupError>> {
        let leases = self.cache.leases();
        let lease = leases.register(key, hash);
        for _ in 0..LOOKUPS {
            let changes = leases.changes();
            if let Some(cached) = self.cache.get(&hash, Instant::now()) {
                let KeyStatus::Valid(_) = cached.status else { return Ok(None) };
                let lease = lease.confirm(changes, cached.verified_at, cached.expires_at);
                return Ok(Some(lease));
            }
            self.look_up(client, key, hash).await?;
        }
        Err(Arc::new(LookupError::Overtaken))
    }

    /// Verifies a leased key, and ends its leases if it is no longer valid, or if this fails for too long.
    async fn verify(self: &Arc<Self>, client: &UpstreamClient, hash: KeyHash, key: &LeasedKey) {
        let leases = self.cache.leases();
        let changes = leases.changes();
        let text = key.key.expose_secret();
        let presented = PresentedKey::parse(text).or_else(|| PresentedKey::parse_token(text));
        let Some(presented) = presented else { return };
        let until = leases.usable_until(key).into();
        match timeout_at(until, self.look_up(client, presented, hash)).await {
            Ok(Ok(KeyStatus::Valid(_))) => {
                // `look_up` may have joined a lookup of another request. The entry has the start of that lookup.
                if let Some(cached) = self.cache.get(&hash, Instant::now()) {
                    key.record(changes, cached.verified_at);
                }
            }
            Ok(Ok(KeyStatus::Invalid)) => leases.end(&key.key_id, LeaseEnd::KeyEnded),
            Ok(Err(_)) | Err(_) => {
                // A new lease of the key may have verified it meanwhile.
                if !leases.is_usable(key, Instant::now()) {
                    tracing::warn!("long responses ended: their key cannot be verified");
                    leases.end(&key.key_id, LeaseEnd::KeyUnverified);
                }
            }
        }
    }
}

/// Verifies the keys of leases while the invalidation bus is stale. Never returns.
pub(crate) async fn keep(authenticator: Arc<KeyAuthenticator>, client: UpstreamClient) {
    let mut ticks = tokio::time::interval(CHECK_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let unverified = authenticator.cache.leases().unverified(Instant::now());
        let (authenticator, client) = (&authenticator, &client);
        futures::stream::iter(unverified)
            .for_each_concurrent(CONCURRENT_VERIFICATIONS, |(hash, key)| async move {
                authenticator.verify(client, hash, &key).await;
            })
            .await;
    }
}
