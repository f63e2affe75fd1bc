//! Rates without Redis: the same numbers, counted by this process alone.
//!
//! Several gateways then allow several times the rate, which is the price of going on. The table is
//! bounded: beyond [`MAX_KEYS`] new keys share one allowance, so an attacker with many addresses
//! uses up that one and no memory.

use std::time::Duration;

use governor::{
    Quota, RateLimiter,
    clock::{Clock as _, DefaultClock},
    middleware::StateInformationMiddleware,
    state::keyed::DashMapStateStore,
};

use super::policy::{Policy, Verdict};

/// Keys that one policy remembers.
const MAX_KEYS: usize = 50_000;
/// What further keys share.
const OVERFLOW: &str = "";
/// How often keys that are full again are forgotten.
const SWEEP_EVERY: Duration = Duration::from_secs(10);

type Limiter =
    RateLimiter<String, DashMapStateStore<String>, DefaultClock, StateInformationMiddleware>;

/// One policy's table.
pub(crate) struct LocalRate {
    limiter: Limiter,
    clock: DefaultClock,
    interval: Duration,
    burst: u32,
    max_keys: usize,
}

impl LocalRate {
    pub(crate) fn new(policy: &Policy) -> Self {
        Self::bounded(policy, MAX_KEYS)
    }

    fn bounded(policy: &Policy, max_keys: usize) -> Self {
        // `with_period` refuses zero only, which an interval never is.
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

    /// Charges one request to `key`.
    pub(crate) fn charge(&self, key: &str) -> Verdict {
        let key = if self.limiter.len() < self.max_keys { key } else { OVERFLOW };
        match self.limiter.check_key(&key.to_owned()) {
            Ok(state) => {
                let remaining = state.remaining_burst_capacity().min(self.burst);
                Verdict {
                    allowed: true,
                    remaining,
                    retry_after: Duration::ZERO,
                    reset: self.interval * (self.burst - remaining),
                }
            }
            Err(refusal) => Verdict {
                allowed: false,
                remaining: 0,
                retry_after: refusal.wait_time_from(self.clock.now()),
                reset: self.interval * self.burst,
            },
        }
    }

    fn sweep(&self) {
        self.limiter.retain_recent();
        self.limiter.shrink_to_fit();
    }
}

/// Forgets what need not be remembered; never ends.
pub(crate) async fn sweep(rates: std::sync::Arc<[LocalRate; 2]>) {
    let mut ticks = tokio::time::interval(SWEEP_EVERY);
    loop {
        ticks.tick().await;
        rates.iter().for_each(LocalRate::sweep);
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use super::*;

    fn policy(burst: u32) -> Policy {
        Policy::new("p", (NonZeroU32::new(1).unwrap(), NonZeroU32::new(burst).unwrap()))
    }

    #[test]
    fn a_burst_passes_and_the_next_waits() {
        let rate = LocalRate::new(&policy(3));
        let left: Vec<_> = (0..3).map(|_| rate.charge("a")).collect();
        assert!(left.iter().all(|verdict| verdict.allowed));
        assert_eq!(left.iter().map(|verdict| verdict.remaining).collect::<Vec<_>>(), [2, 1, 0]);
        let refused = rate.charge("a");
        assert!(!refused.allowed);
        assert!((50..=60).contains(&refused.retry_after_seconds()), "{refused:?}");
        assert!(rate.charge("b").allowed, "another key has its own");
    }

    #[test]
    fn beyond_its_bound_new_keys_share_one_allowance() {
        let rate = LocalRate::bounded(&policy(1), 10);
        let allowed = (0..100).filter(|n| rate.charge(&n.to_string()).allowed).count();
        assert_eq!(allowed, 11, "ten of their own, one shared");
        assert!(rate.limiter.len() <= 11);
    }
}
