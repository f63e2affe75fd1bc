//! Rate limits of this process alone, used while Redis is unavailable.
//!
//! Invariants:
//! - The policy and the decisions are the same as in Redis (`gcra.lua`), so N gateways together allow up to N times the
//!   rate. A request is charged to all of its quotas or to none.
//! - A table has at most [`MAX_KEYS`] keys. Further keys share one quota, so a client with many
//!   addresses exhausts that quota instead of memory.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard},
    time::{Duration, Instant},
};

use linnet_platform::lock::MutexExt as _;

use super::policy::{RateDecision, RatePolicy};

/// Maximum number of keys that have their own quota, for each policy.
pub(crate) const MAX_KEYS: usize = 5_000;
/// The key that all further keys share.
const OVERFLOW_KEY: &str = "";
/// Interval at which keys with a full quota are evicted.
const SWEEP_EVERY: Duration = Duration::from_secs(10);

/// For each key the theoretical arrival time: its quota is full from then on.
type Table = HashMap<String, Instant>;

/// The quotas of one policy.
pub(crate) struct LocalRateLimiter {
    quotas: Mutex<Table>,
    /// Time in which one request refills.
    interval: Duration,
    /// Time in which an empty quota refills.
    tolerance: Duration,
    max_keys: usize,
}

impl LocalRateLimiter {
    pub(crate) fn new(policy: &RatePolicy) -> Self {
        Self::bounded(policy, MAX_KEYS)
    }

    fn bounded(policy: &RatePolicy, max_keys: usize) -> Self {
        let interval = policy.interval();
        let tolerance = interval.saturating_mul(policy.burst().get());
        Self { quotas: Mutex::default(), interval, tolerance, max_keys }
    }

    /// Returns one request to the quota of `key`.
    pub(crate) fn give_back(&self, key: &str) {
        let mut table = self.table();
        let now = Instant::now();
        let key = self.key_in(&table, key);
        if let Some(full_at) = table.get_mut(key) {
            *full_at = full_at.checked_sub(self.interval).map_or(now, |full_at| full_at.max(now));
        }
    }

    /// The key under which `key` is counted.
    fn key_in<'a>(&self, table: &Table, key: &'a str) -> &'a str {
        let has_own = table.len() < self.max_keys || table.contains_key(key);
        if has_own { key } else { OVERFLOW_KEY }
    }

    /// Time until one more request is allowed; zero if it is allowed now.
    fn wait(&self, full_at: Instant, now: Instant) -> Duration {
        (full_at + self.interval).saturating_duration_since(now + self.tolerance)
    }

    fn decision(&self, full_at: Instant, now: Instant, retry_after: Duration) -> RateDecision {
        let used = full_at.saturating_duration_since(now);
        let left = self.tolerance.saturating_sub(used);
        let interval = self.interval.as_nanos();
        let refilling = Duration::from_nanos_u128(left.as_nanos() % interval);
        RateDecision {
            is_allowed: retry_after.is_zero(),
            remaining: u32::try_from(left.as_nanos() / interval).unwrap_or(u32::MAX),
            retry_after,
            more_after: if used.is_zero() {
                Duration::ZERO
            } else {
                self.interval.saturating_sub(refilling)
            },
        }
    }

    fn evict_full_quotas(&self, now: Instant) {
        let mut table = self.table();
        table.retain(|_, full_at| *full_at > now);
        table.shrink_to_fit();
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.quotas.lock_ignoring_poison()
    }
}

/// Counts one request against all of these quotas or, if one of them is exhausted, against none. Each limiter occurs at
/// most once, and every caller has them in the same order, because all of them are locked.
pub(crate) fn charge(quotas: &[(&LocalRateLimiter, &str)]) -> Vec<RateDecision> {
    let mut tables: Vec<_> = quotas.iter().map(|(limiter, _)| limiter.table()).collect();
    let now = Instant::now();
    let found = quotas.iter().zip(&tables).map(|((limiter, key), table)| {
        let key = limiter.key_in(table, key);
        let full_at = table.get(key).map_or(now, |full_at| (*full_at).max(now));
        (*limiter, key, full_at, limiter.wait(full_at, now))
    });
    let found: Vec<_> = found.collect();
    let is_allowed = found.iter().all(|(_, _, _, wait)| wait.is_zero());
    let decisions =
        found.into_iter().zip(&mut tables).map(|((limiter, key, full_at, wait), table)| {
            let full_at = if is_allowed { full_at + limiter.interval } else { full_at };
            if is_allowed {
                table.insert(key.to_owned(), full_at);
            }
            limiter.decision(full_at, now, wait)
        });
    decisions.collect()
}

/// Evicts keys with a full quota every [`SWEEP_EVERY`]; never returns.
pub(crate) async fn sweep(limiters: Arc<[LocalRateLimiter; 3]>) {
    let mut ticks = tokio::time::interval(SWEEP_EVERY);
    loop {
        ticks.tick().await;
        let now = Instant::now();
        limiters.iter().for_each(|limiter| limiter.evict_full_quotas(now));
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use super::*;
    use crate::counters::LimitReason;

    fn policy(burst: u32) -> RatePolicy {
        RatePolicy::new(
            "p",
            LimitReason::Key,
            (NonZeroU32::new(1).unwrap(), NonZeroU32::new(burst).unwrap()),
        )
    }

    fn charge_one(limiter: &LocalRateLimiter, key: &str) -> RateDecision {
        charge(&[(limiter, key)])[0]
    }

    #[test]
    fn request_after_the_burst_is_rejected_until_the_quota_refills() {
        let limiter = LocalRateLimiter::new(&policy(3));
        let burst: Vec<_> = (0..3).map(|_| charge_one(&limiter, "a")).collect();
        assert!(burst.iter().all(|decision| decision.is_allowed));
        assert_eq!(burst.iter().map(|decision| decision.remaining).collect::<Vec<_>>(), [2, 1, 0]);
        let rejected = charge_one(&limiter, "a");
        assert!(!rejected.is_allowed);
        assert!((50..=60).contains(&rejected.retry_after_s()), "{rejected:?}");
        assert!(charge_one(&limiter, "b").is_allowed, "another key has its own quota");
    }

    #[test]
    fn must_26_rejected_request_is_charged_to_none_of_its_quotas() {
        let (key, user) = (LocalRateLimiter::new(&policy(5)), LocalRateLimiter::new(&policy(2)));
        let request = || charge(&[(&key, "k"), (&user, "u")]);
        let remaining = |decisions: &[RateDecision]| -> Vec<_> {
            decisions.iter().map(|quota| (quota.is_allowed, quota.remaining)).collect()
        };
        assert_eq!(remaining(&request()), [(true, 4), (true, 1)]);
        assert_eq!(remaining(&request()), [(true, 3), (true, 0)]);
        for _ in 0..10 {
            assert_eq!(remaining(&request()), [(true, 3), (false, 0)]);
        }
        // Neither the order nor the number of exhausted quotas matters.
        for _ in 0..10 {
            let swapped = charge(&[(&user, "u"), (&key, "k")]);
            assert_eq!(remaining(&swapped), [(false, 0), (true, 3)]);
        }
        assert_eq!(charge_one(&key, "k").remaining, 2);
    }

    #[test]
    fn request_that_is_given_back_is_allowed_again() {
        let limiter = LocalRateLimiter::new(&policy(2));
        let remaining = || charge_one(&limiter, "a").remaining;
        assert_eq!((remaining(), remaining()), (1, 0));
        assert!(!charge_one(&limiter, "a").is_allowed);
        limiter.give_back("a");
        assert!(charge_one(&limiter, "a").is_allowed);
        assert!(!charge_one(&limiter, "a").is_allowed);
        // A quota never exceeds its burst.
        for _ in 0..5 {
            limiter.give_back("a");
            limiter.give_back("unknown");
        }
        assert_eq!((remaining(), remaining()), (1, 0));
    }

    #[test]
    fn key_that_is_known_keeps_its_quota_when_the_table_is_full() {
        let limiter = LocalRateLimiter::bounded(&policy(2), 2);
        assert_eq!(charge_one(&limiter, "a").remaining, 1);
        assert_eq!(charge_one(&limiter, "b").remaining, 1);
        assert_eq!(charge_one(&limiter, "c").remaining, 1);
        assert_eq!(charge_one(&limiter, "d").remaining, 0, "shared with c");
        assert_eq!(charge_one(&limiter, "a").remaining, 0);
    }

    #[test]
    fn keys_beyond_the_bound_share_one_quota() {
        let limiter = LocalRateLimiter::bounded(&policy(1), 10);
        let allowed = (0..100).filter(|n| charge_one(&limiter, &n.to_string()).is_allowed).count();
        assert_eq!(allowed, 11, "ten quotas of their own, one shared");
        assert!(limiter.table().len() <= 11);
    }

    #[test]
    fn allowed_request_states_when_the_quota_has_one_more() {
        let limiter = LocalRateLimiter::new(&policy(3));
        let allowed = charge_one(&limiter, "a");
        assert_eq!(
            (allowed.retry_after, allowed.more_after),
            (Duration::ZERO, Duration::from_mins(1))
        );
        assert_eq!(limiter.max_keys, MAX_KEYS);
    }

    #[test]
    fn only_keys_with_a_full_quota_are_evicted() {
        let limiter = LocalRateLimiter::new(&policy(3));
        charge_one(&limiter, "a");
        let full_at = limiter.table()["a"];
        charge_one(&limiter, "b");
        charge_one(&limiter, "b");
        limiter.evict_full_quotas(full_at.checked_sub(Duration::from_nanos(1)).unwrap());
        assert_eq!(limiter.table().len(), 2);
        limiter.evict_full_quotas(full_at);
        assert_eq!(limiter.table().keys().collect::<Vec<_>>(), ["b"]);
    }
}
