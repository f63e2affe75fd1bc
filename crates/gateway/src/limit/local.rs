//! Rate limits of this process alone, used while Redis is unavailable.
//!
//! Invariants:
//! - The policy is the same as in Redis, so N gateways together allow up to N times the rate.
//! - A table has at most [`MAX_KEYS`] keys. Further keys share one quota, so a client with many
//!   addresses exhausts that quota instead of memory.

use std::time::Duration;

use governor::{
    Quota, RateLimiter,
    clock::{Clock as _, DefaultClock},
    middleware::StateInformationMiddleware,
    state::keyed::DashMapStateStore,
};

use super::policy::{RateDecision, RatePolicy};

/// Maximum number of keys that have their own quota, for each policy.
pub(crate) const MAX_KEYS: usize = 5_000;
/// The key that all further keys share.
const OVERFLOW_KEY: &str = "";
/// Interval at which keys with a full quota are evicted.
const SWEEP_EVERY: Duration = Duration::from_secs(10);

type Limiter =
    RateLimiter<String, DashMapStateStore<String>, DefaultClock, StateInformationMiddleware>;

/// The quotas of one policy.
pub(crate) struct LocalRateLimiter {
    limiter: Limiter,
    clock: DefaultClock,
    interval: Duration,
    burst: u32,
    max_keys: usize,
}

impl LocalRateLimiter {
    pub(crate) fn new(policy: &RatePolicy) -> Self {
        Self::bounded(policy, MAX_KEYS)
    }

    fn bounded(policy: &RatePolicy, max_keys: usize) -> Self {
        // `with_period` fails only for zero, and an interval is at least 1 µs.
        let quota = Quota::with_period(policy.interval())
            .unwrap_or(Quota::per_second(std::num::NonZeroU32::MIN))
            .allow_burst(policy.burst());
        Self {
            limiter: RateLimiter::dashmap(quota).with_middleware(),
            clock: DefaultClock::default(),
            interval: policy.interval(),
            burst: policy.burst().get(),
            max_keys,
        }
    }

    /// Counts one request against the quota of `key`.
    pub(crate) fn charge(&self, key: &str) -> RateDecision {
        let key = if self.limiter.len() < self.max_keys { key } else { OVERFLOW_KEY };
        match self.limiter.check_key(&key.to_owned()) {
            Ok(state) => {
                let remaining = state.remaining_burst_capacity().min(self.burst);
                RateDecision {
                    is_allowed: true,
                    remaining,
                    retry_after: Duration::ZERO,
                    more_after: self.interval,
                }
            }
            Err(rejection) => {
                let retry_after = rejection.wait_time_from(self.clock.now());
                let more_after = retry_after;
                RateDecision { is_allowed: false, remaining: 0, retry_after, more_after }
            }
        }
    }

    fn evict_full_quotas(&self) {
        self.limiter.retain_recent();
        self.limiter.shrink_to_fit();
    }
}

/// Evicts keys with a full quota every [`SWEEP_EVERY`]; never returns.
pub(crate) async fn sweep(limiters: std::sync::Arc<[LocalRateLimiter; 3]>) {
    let mut ticks = tokio::time::interval(SWEEP_EVERY);
    loop {
        ticks.tick().await;
        limiters.iter().for_each(LocalRateLimiter::evict_full_quotas);
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

    #[test]
    fn request_after_the_burst_is_rejected_until_the_quota_refills() {
        let limiter = LocalRateLimiter::new(&policy(3));
        let burst: Vec<_> = (0..3).map(|_| limiter.charge("a")).collect();
        assert!(burst.iter().all(|decision| decision.is_allowed));
        assert_eq!(burst.iter().map(|decision| decision.remaining).collect::<Vec<_>>(), [2, 1, 0]);
        let rejected = limiter.charge("a");
        assert!(!rejected.is_allowed);
        assert!((50..=60).contains(&rejected.retry_after_s()), "{rejected:?}");
        assert!(limiter.charge("b").is_allowed, "another key has its own quota");
    }

    #[test]
    fn keys_beyond_the_bound_share_one_quota() {
        let limiter = LocalRateLimiter::bounded(&policy(1), 10);
        let allowed = (0..100).filter(|n| limiter.charge(&n.to_string()).is_allowed).count();
        assert_eq!(allowed, 11, "ten quotas of their own, one shared");
        assert!(limiter.limiter.len() <= 11);
    }

    #[test]
    fn allowed_request_states_when_the_quota_has_one_more() {
        let limiter = LocalRateLimiter::new(&policy(3));
        let allowed = limiter.charge("a");
        assert_eq!(
            (allowed.retry_after, allowed.more_after),
            (Duration::ZERO, Duration::from_mins(1))
        );
        assert_eq!(limiter.max_keys, MAX_KEYS);
    }

    #[test]
    fn only_keys_with_a_full_quota_are_evicted() {
        let limiter = LocalRateLimiter::new(&policy(3));
        limiter.charge("used");
        limiter.evict_full_quotas();
        assert_eq!(limiter.limiter.len(), 1);
        let fast = RatePolicy::new(
            "p",
            LimitReason::Key,
            (NonZeroU32::new(60_000_000).unwrap(), NonZeroU32::new(1).unwrap()),
        );
        let limiter = LocalRateLimiter::new(&fast);
        limiter.charge("full again");
        std::thread::sleep(Duration::from_millis(2));
        limiter.evict_full_quotas();
        assert_eq!(limiter.limiter.len(), 0);
    }
}
