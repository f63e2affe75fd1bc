//! Leases: the right of a long response to continue.
//!
//! A long response (event stream, export, bulk upload) holds a lease on the key that authorized it. It ends with the
//! lease.
//!
//! Invariants:
//! - An invalidation of the key ends its leases on the thread of the invalidation bus.
//! - While the bus is stale, a verification of the key is valid for [`STALE_TTL`]. While it is live, a verification
//!   that began after the bus last changed its state stays valid. Each reader compares its own clock, so a delayed task
//!   extends no lease.
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

use linnet_platform::{invalidation_bus::BusState, lock::MutexExt as _};
use secrecy::SecretString;
use tokio::time::Sleep;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use super::credentials::{KeyHash, PresentedKey};

/// Time for which a verification is valid while the invalidation bus is stale.
pub(super) const STALE_TTL: Duration = Duration::from_secs(1);
/// Age of a verification at which the next one begins while the bus is stale. The check runs every 150 ms, so 450 ms of
/// [`STALE_TTL`] remain for the lookup.
const VERIFY_AFTER: Duration = Duration::from_millis(400);

/// A key on which at least one response holds a lease.
pub(super) struct LeasedKey {
    pub(super) key: SecretString,
    pub(super) key_id: Box<str>,
    end: CancellationToken,
    /// The latest verification.
    verified: Mutex<Verification>,
}

#[derive(Debug, Clone, Copy)]
struct Verification {
    at: Instant,
    /// [`Leases::changes`] when the verification began.
    changes: u64,
}

struct Holders {
    count: usize,
    key: Arc<LeasedKey>,
}

/// The leases of the process.
pub(super) struct Leases {
    keys: Mutex<HashMap<KeyHash, Holders>>,
    /// How often the bus has become live or stale.
    changes: AtomicU64,
    bus: BusState,
}

/// A lease. Dropping it releases it.
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

    /// Limits every verification from before this call to [`STALE_TTL`]. Must be called when the bus becomes live or
    /// stale.
    pub(super) fn require_verification(&self) {
        self.changes.fetch_add(1, Ordering::SeqCst);
    }

    /// Registers a lease. The caller reads the key's status afterwards, and drops the lease if the key is not valid.
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

    /// How often the bus has become live or stale. Must be read before a verification begins.
    pub(super) fn changes(&self) -> u64 {
        self.changes.load(Ordering::SeqCst)
    }

    /// Whether `key` may be used at `now`.
    pub(super) fn is_usable(&self, key: &LeasedKey, now: Instant) -> bool {
        self.is_verified(key, now, STALE_TTL)
    }

    fn is_verified(&self, key: &LeasedKey, now: Instant, within: Duration) -> bool {
        let verified = *key.verified.lock_ignoring_poison();
        now < verified.at + within
            || (verified.changes == self.changes() && self.bus.is_live_at(now))
    }

    /// The keys that must be verified now.
    pub(super) fn unverified(&self, now: Instant) -> Vec<(KeyHash, Arc<LeasedKey>)> {
        let keys = self.keys.lock_ignoring_poison();
        let unverified =
            keys.iter().filter(|(_, holders)| !self.is_verified(&holders.key, now, VERIFY_AFTER));
        unverified.map(|(hash, holders)| (*hash, Arc::clone(&holders.key))).collect()
    }
}

impl Lease {
    /// Records a verification that the caller read from the cache after the registration. `changes` is
    /// [`Leases::changes`] before that read, `at` the start of the verification, `expires_at` the expiry of the key.
    pub(super) fn confirm(
        mut self,
        changes: u64,
        at: Instant,
        expires_at: Option<Instant>,
    ) -> Self {
        self.key.record(changes, at);
        self.expires_at = expires_at;
        self
    }

    /// Ready when the lease has ended.
    pub(crate) fn poll_ended(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let now = Instant::now();
        if self.expires_at.is_some_and(|expires_at| expires_at <= now)
            || !self.leases.is_usable(&self.key, now)
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
        // If this lease was ended, the key may have a new entry, which counts later leases only.
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
    pub(super) fn record(&self, changes: u64, at: Instant) {
        let mut verified = self.verified.lock_ignoring_poison();
        if verified.changes == u64::MAX || at >= verified.at {
            *verified = Verification { at, changes };
        }
    }
}
