//! Leases: the right of a long response to continue.
//!
//! A response that lasts (events, exports, uploads) holds a lease on the key that authorized it, and ends with the lease.
//!
//! Invariants:
//! - An invalidation of the key ends its leases on the thread of the invalidation bus.
//! - While the bus is stale, and once after each of its changes, the key must have been verified within [`STALE_TTL`]. Each
//!   reader compares its own clock, so a delayed task extends no lease.
//! - A lease ends at the expiry of its key.

use std::{
    collections::HashMap,
    future::Future as _,
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
    time::{Duration, Instant},
};

use futures::StreamExt as _;
use linnet_platform::{invalidation_bus::BusState, lock::MutexExt as _};
use secrecy::{ExposeSecret as _, SecretString};
use tokio::time::{MissedTickBehavior, Sleep};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use super::{
    KeyAuthenticator, KeyStatus, LookupError, PresentedKey,
    cache::{CachedKey, STALE_TTL},
    credentials::KeyHash,
};
use crate::upstream::UpstreamClient;

/// Interval at which [`keep`] looks for keys to verify.
const CHECK_EVERY: Duration = Duration::from_millis(150);
/// Age of a verification at which the next one begins while the bus is stale. With the interval and the time of a lookup
/// it stays below [`STALE_TTL`].
const VERIFY_AFTER: Duration = Duration::from_millis(400);
/// Most lookups for a new lease. A lookup that an invalidation overtakes is not cached, and is repeated.
const LOOKUPS: u32 = 3;
/// Most concurrent verifications.
const CONCURRENT_VERIFICATIONS: usize = 32;

/// A key with leases.
struct LeasedKey {
    key: SecretString,
    key_id: Box<str>,
    end: CancellationToken,
    /// The latest verification.
    verified: Mutex<Verification>,
}

#[derive(Debug, Clone, Copy)]
struct Verification {
    at: Instant,
    /// The number of changes of the bus before it.
    changes: u64,
}

struct Holders {
    count: usize,
    key: Arc<LeasedKey>,
}

/// The leases of the process.
pub(super) struct Leases {
    keys: Mutex<HashMap<KeyHash, Holders>>,
    /// The number of changes of the bus.
    changes: AtomicU64,
    bus: BusState,
}

/// A lease; dropping it gives it back.
pub(crate) struct Lease {
    leases: Arc<Leases>,
    hash: KeyHash,
    key: Arc<LeasedKey>,
    expires_at: Option<Instant>,
    ended: Pin<Box<WaitForCancellationFutureOwned>>,
    expiry: Option<Pin<Box<Sleep>>>,
}

impl Leases {
    pub(super) fn new(bus: BusState) -> Arc<Self> {
        Arc::new(Self { keys: Mutex::default(), changes: AtomicU64::new(0), bus })
    }

    /// Ends every lease of the key with this public id.
    pub(super) fn end(&self, key_id: &str) {
        self.keys.lock_ignoring_poison().retain(|_, holders| {
            let is_other = *holders.key.key_id != *key_id;
            if !is_other {
                holders.key.end.cancel();
            }
            is_other
        });
    }

    /// Makes every verification from before this call insufficient once it is older than [`STALE_TTL`].
    pub(super) fn require_verification(&self) {
        self.changes.fetch_add(1, Ordering::SeqCst);
    }

    /// Registers a lease. The caller reads the key's status afterwards, and drops the lease if it is not valid.
    pub(super) fn register(self: &Arc<Self>, key: PresentedKey<'_>, hash: KeyHash) -> Lease {
        let now = Instant::now();
        let key = {
            let mut keys = self.keys.lock_ignoring_poison();
            let holders = keys.entry(hash).or_insert_with(|| Holders {
                count: 0,
                key: Arc::new(LeasedKey {
                    key: key.expose().into(),
                    key_id: key.id().into(),
                    end: CancellationToken::new(),
                    verified: Mutex::new(Verification { at: now, changes: u64::MAX }),
                }),
            });
            holders.count += 1;
            Arc::clone(&holders.key)
        };
        let ended = Box::pin(key.end.clone().cancelled_owned());
        Lease { leases: Arc::clone(self), hash, key, expires_at: None, ended, expiry: None }
    }

    /// The number of changes of the bus. A verification that begins afterwards counts from here.
    fn changes(&self) -> u64 {
        self.changes.load(Ordering::SeqCst)
    }

    fn is_verified(&self, key: &LeasedKey, now: Instant, within: Duration) -> bool {
        let verified = *key.verified.lock_ignoring_poison();
        now < verified.at + within
            || (verified.changes == self.changes() && self.bus.is_live_at(now))
    }

    /// The keys that must be verified now.
    fn unverified(&self, now: Instant) -> Vec<(KeyHash, Arc<LeasedKey>)> {
        let keys = self.keys.lock_ignoring_poison();
        let unverified =
            keys.iter().filter(|(_, holders)| !self.is_verified(&holders.key, now, VERIFY_AFTER));
        unverified.map(|(hash, holders)| (*hash, Arc::clone(&holders.key))).collect()
    }
}

impl Lease {
    /// Records the status that was read after the registration. Returns `None` unless it is valid.
    fn confirm(mut self, changes: u64, cached: &CachedKey) -> Option<Self> {
        let KeyStatus::Valid(_) = cached.status else { return None };
        self.key.record(changes, cached.verified_at);
        self.expires_at = cached.expires_at;
        Some(self)
    }

    /// Ready when the lease has ended.
    pub(crate) fn poll_ended(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let now = Instant::now();
        if self.expires_at.is_some_and(|expires_at| expires_at <= now)
            || !self.leases.is_verified(&self.key, now, STALE_TTL)
            || self.ended.as_mut().poll(cx).is_ready()
        {
            return Poll::Ready(());
        }
        if let Some(expires_at) = self.expires_at {
            let at = tokio::time::Instant::from_std(expires_at);
            let expiry = self.expiry.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(at)));
            return expiry.as_mut().poll(cx);
        }
        Poll::Pending
    }

    /// Returns when the lease has ended.
    pub(crate) async fn ended(&mut self) {
        std::future::poll_fn(|cx| self.poll_ended(cx)).await;
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let mut keys = self.leases.keys.lock_ignoring_poison();
        // After an end, the same key may have a new entry, which this lease does not hold.
        if let Some(holders) = keys.get_mut(&self.hash)
            && Arc::ptr_eq(&holders.key, &self.key)
        {
            holders.count -= 1;
            if holders.count == 0 {
                keys.remove(&self.hash);
            }
        }
    }
}

impl LeasedKey {
    fn record(&self, changes: u64, at: Instant) {
        let mut verified = self.verified.lock_ignoring_poison();
        if verified.changes == u64::MAX || at >= verified.at {
            *verified = Verification { at, changes };
        }
    }
}

impl KeyAuthenticator {
    /// A lease on a key; `None` if the key is not valid.
    pub(crate) async fn lease(
        self: &Arc<Self>,
        client: &UpstreamClient,
        key: PresentedKey<'_>,
        hash: KeyHash,
    ) -> Result<Option<Lease>, Arc<LookupError>> {
        let lease = self.cache.leases().register(key, hash);
        for _ in 0..LOOKUPS {
            let changes = lease.leases.changes();
            if let Some(cached) = self.cache.get(&hash, Instant::now()) {
                return Ok(lease.confirm(changes, &cached));
            }
            self.look_up(client, key, hash).await?;
        }
        Err(Arc::new(LookupError::Overtaken))
    }

    /// Verifies a leased key, and ends its leases if it is no longer valid.
    async fn verify(self: &Arc<Self>, client: &UpstreamClient, hash: KeyHash, key: &LeasedKey) {
        let leases = self.cache.leases();
        let changes = leases.changes();
        let Some(presented) = PresentedKey::parse(key.key.expose_secret()) else { return };
        match self.look_up(client, presented, hash).await {
            Ok(KeyStatus::Valid(_)) => {
                // The entry has the start of the lookup, which may have been another request's.
                if let Some(cached) = self.cache.get(&hash, Instant::now()) {
                    key.record(changes, cached.verified_at);
                }
            }
            Ok(KeyStatus::Invalid) => leases.end(&key.key_id),
            Err(_) if leases.is_verified(key, Instant::now(), STALE_TTL) => {}
            Err(_) => {
                tracing::warn!("long responses ended: their key cannot be verified");
                leases.end(&key.key_id);
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
