//! Leases: the right of a long response to continue.
//!
//! A long response (event stream, export, bulk upload) holds a lease on the key that authorized it. It ends with the
//! lease.
//!
//! Invariants:
//! - An invalidation of the key ends its leases on the thread of the invalidation bus.
//! - While the bus is stale, a verification of the key is valid for [`STALE_TTL`]. While it is live, a verification
//!   that began after the bus last changed its state stays valid. When it becomes stale, such a verification remains
//!   valid for [`STALE_TTL`] after the latest time up to which every invalidation has arrived, so that there is time for
//!   the next one. Each reader compares its own clock, so a delayed task extends no lease.
//! - A lease ends at the expiry of its key.
//! - The end names its reason: a key that cannot be verified may be valid, so its client may retry.

use std::{
    collections::HashMap,
    future::Future as _,
    pin::Pin,
    sync::{
        Arc, Mutex, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
    time::{Duration, Instant},
};

use linnet_platform::{
    invalidation_bus::{BusState, STALE_AFTER},
    lock::MutexExt as _,
};
use secrecy::SecretString;
use tokio::time::Sleep;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use super::credentials::{KeyHash, PresentedKey};

/// Time for which a verification is valid while the invalidation bus is stale.
pub(super) const STALE_TTL: Duration = Duration::from_secs(1);
/// Age of a verification at which the next one begins while the bus is stale. The check runs every 150 ms, so 450 ms of
/// [`STALE_TTL`] remain for the lookup.
const VERIFY_AFTER: Duration = Duration::from_millis(400);
/// Time after the end of a live bus for which the earlier verifications remain valid. The bus is live until
/// [`STALE_AFTER`] after a time up to which every invalidation has arrived.
const GRACE: Duration = STALE_TTL.saturating_sub(STALE_AFTER);

/// Why a lease has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum LeaseEnd {
    /// The key was revoked or has expired.
    #[error("API key was revoked or has expired")]
    KeyEnded,
    /// The key may be valid, but no shortener has confirmed it for [`STALE_TTL`].
    #[error("API key can no longer be verified")]
    KeyUnverified,
}

/// A key on which at least one response holds a lease.
pub(super) struct LeasedKey {
    pub(super) key: SecretString,
    pub(super) key_id: Box<str>,
    end: CancellationToken,
    /// Set before `end` is cancelled.
    reason: OnceLock<LeaseEnd>,
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
    latest_live: Mutex<LivePeriod>,
    bus: BusState,
}

/// A period in which the bus was live.
#[derive(Debug, Clone, Copy)]
struct LivePeriod {
    /// [`Leases::changes`] in the period; `None` before the first one has ended.
    changes: Option<u64>,
    until: Instant,
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
        let latest_live = LivePeriod { changes: None, until: bus.latest_live_until() };
        Arc::new(Self {
            keys: Mutex::default(),
            changes: AtomicU64::new(0),
            latest_live: Mutex::new(latest_live),
            bus,
        })
    }

    /// Ends every lease of the key with this public id.
    pub(super) fn end(&self, key_id: &str, reason: LeaseEnd) {
        self.keys.lock_ignoring_poison().retain(|_, holders| {
            let is_other = *holders.key.key_id != *key_id;
            if !is_other {
                holders.key.reason.get_or_init(|| reason);
                holders.key.end.cancel();
            }
            is_other
        });
    }

    /// Limits every verification from before this call to [`STALE_TTL`]. Must be called when the bus becomes live or
    /// stale.
    pub(super) fn require_verification(&self) {
        let mut latest_live = self.latest_live.lock_ignoring_poison();
        let ended = self.changes.fetch_add(1, Ordering::SeqCst);
        let until = self.bus.latest_live_until();
        if until > latest_live.until {
            *latest_live = LivePeriod { changes: Some(ended), until };
        }
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
                    reason: OnceLock::new(),
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
        now < self.usable_until(key)
    }

    /// The time until which `key` may be used without another verification or heartbeat.
    pub(super) fn usable_until(&self, key: &LeasedKey) -> Instant {
        let verified = *key.verified.lock_ignoring_poison();
        let by_itself = verified.at + STALE_TTL;
        let by_bus = self.live_until(verified.changes).map(|until| until + GRACE);
        by_bus.map_or(by_itself, |by_bus| by_itself.max(by_bus))
    }

    /// Until when the bus is or was live without interruption since a verification; `None` if it was not.
    fn live_until(&self, changes: u64) -> Option<Instant> {
        let latest_live = self.latest_live.lock_ignoring_poison();
        if latest_live.changes == Some(changes) {
            return Some(latest_live.until);
        }
        (changes == self.changes()).then(|| self.bus.latest_live_until())
    }

    fn must_verify(&self, key: &LeasedKey, now: Instant) -> bool {
        let verified = *key.verified.lock_ignoring_poison();
        let is_covered = verified.changes == self.changes() && self.bus.is_live_at(now);
        !is_covered && now >= verified.at + VERIFY_AFTER
    }

    /// The keys that must be verified now.
    pub(super) fn unverified(&self, now: Instant) -> Vec<(KeyHash, Arc<LeasedKey>)> {
        let keys = self.keys.lock_ignoring_poison();
        let unverified = keys.iter().filter(|(_, holders)| self.must_verify(&holders.key, now));
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
    pub(crate) fn poll_ended(&mut self, cx: &mut Context<'_>) -> Poll<LeaseEnd> {
        let now = Instant::now();
        if self.expires_at.is_some_and(|expires_at| expires_at <= now) {
            return Poll::Ready(LeaseEnd::KeyEnded);
        }
        if self.ended.as_mut().poll(cx).is_ready() {
            let reason = self.key.reason.get().copied();
            return Poll::Ready(reason.unwrap_or(LeaseEnd::KeyUnverified));
        }
        if !self.leases.is_usable(&self.key, now) {
            return Poll::Ready(LeaseEnd::KeyUnverified);
        }
        if let Some(expires_at) = self.expires_at {
            let at = tokio::time::Instant::from_std(expires_at);
            let expiry = self.expiry.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(at)));
            return expiry.as_mut().poll(cx).map(|()| LeaseEnd::KeyEnded);
        }
        Poll::Pending
    }

    /// Returns when the lease has ended.
    pub(crate) async fn ended(&mut self) -> LeaseEnd {
        std::future::poll_fn(|cx| self.poll_ended(cx)).await
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

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "lnt_Ab3xYz01_0123456789abcdefghijklmnopqrstuvwxyzABCDEF-";
    const ID: &str = "Ab3xYz01";

    fn leases() -> (Arc<Leases>, BusState) {
        let bus = BusState::default();
        (Leases::new(bus.clone()), bus)
    }

    fn lease(leases: &Arc<Leases>, verified_at: Instant) -> Lease {
        let key = PresentedKey::parse(KEY).unwrap();
        leases.register(key, key.hash()).confirm(leases.changes(), verified_at, None)
    }

    /// Whether the key is usable until exactly this time.
    fn ends_at(leases: &Leases, key: &LeasedKey, end: Instant) -> bool {
        let before = end.checked_sub(Duration::from_nanos(1)).unwrap();
        leases.is_usable(key, before) && !leases.is_usable(key, end)
    }

    async fn end_of(mut lease: Lease) -> LeaseEnd {
        tokio::time::timeout(Duration::from_secs(10), lease.ended()).await.expect("an end")
    }

    #[test]
    fn must_27_verification_outlives_a_live_bus_until_a_second_after_the_proof() {
        let (leases, bus) = leases();
        let now = Instant::now();
        let live_until = now + Duration::from_mins(1);
        leases.require_verification();
        bus.extend(live_until);
        let lease = lease(&leases, now);
        let end = live_until + STALE_TTL.saturating_sub(STALE_AFTER);
        assert!(!leases.must_verify(&lease.key, now + STALE_TTL), "the bus is live");
        assert!(ends_at(&leases, &lease.key, end), "no task has to run");
        bus.end();
        leases.require_verification();
        assert!(leases.must_verify(&lease.key, now + STALE_TTL));
        assert!(ends_at(&leases, &lease.key, end), "the bus is stale");
        leases.require_verification();
        bus.extend(live_until + Duration::from_hours(1));
        assert!(leases.must_verify(&lease.key, now + STALE_TTL));
        assert!(ends_at(&leases, &lease.key, end), "the bus is live again");
        lease.key.record(leases.changes(), now);
        assert!(!leases.must_verify(&lease.key, now + STALE_TTL), "it was verified again");
        assert!(leases.is_usable(&lease.key, end));
    }

    #[test]
    fn must_27_verification_while_the_bus_is_stale_is_valid_for_a_second() {
        let (leases, bus) = leases();
        let now = Instant::now();
        let lease = lease(&leases, now);
        assert!(leases.must_verify(&lease.key, now + VERIFY_AFTER));
        assert!(ends_at(&leases, &lease.key, now + STALE_TTL));
        leases.require_verification();
        bus.extend(now + Duration::from_mins(1));
        assert!(ends_at(&leases, &lease.key, now + STALE_TTL), "it may have missed a revocation");
    }

    #[tokio::test]
    async fn end_names_its_reason() {
        let (leases, _bus) = leases();
        let now = Instant::now();
        let revoked = lease(&leases, now);
        leases.end(ID, LeaseEnd::KeyEnded);
        assert_eq!(end_of(revoked).await, LeaseEnd::KeyEnded);
        let unverified = lease(&leases, now);
        leases.end(ID, LeaseEnd::KeyUnverified);
        assert_eq!(end_of(unverified).await, LeaseEnd::KeyUnverified);
        let outdated = lease(&leases, now.checked_sub(STALE_TTL).unwrap());
        assert_eq!(end_of(outdated).await, LeaseEnd::KeyUnverified);
        let mut expired = lease(&leases, now);
        expired.expires_at = Some(now);
        assert_eq!(end_of(expired).await, LeaseEnd::KeyEnded);
    }
}
