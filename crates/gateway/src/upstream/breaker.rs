//! A circuit breaker that observes regular calls.
//!
//! It opens after consecutive failures, stays open for a time with jitter (so that gateways do not
//! retry in step), and is then half-open: one trial call decides. Only transport failures count (no
//! connection, a broken connection, no response in time). A response with status 500 is a success:
//! one broken route must not block the others.
//!
//! Invariants:
//! - While closed, admitting a call takes atomic loads and no lock.
//! - At most one trial is in flight; an abandoned trial permits the next one.
//! - A call that was admitted before the breaker opened cannot close it.

use std::{
    sync::{
        Mutex, MutexGuard,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::Duration,
};

use linnet_platform::lock::MutexExt as _;
use rand::RngExt as _;
use tokio::time::Instant;

/// Permission to make one call; returned to the breaker with the call's result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Permit {
    /// The breaker was closed.
    Normal,
    /// The breaker was half-open: this call's result closes or opens it.
    Trial,
}

/// The state of a breaker, for metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BreakerState {
    /// Calls are admitted.
    Closed,
    /// Calls are rejected.
    Open,
    /// One trial is due or in flight; other calls are rejected.
    HalfOpen,
}

/// The circuit breaker of one upstream.
#[derive(Debug)]
pub(super) struct CircuitBreaker {
    failures_to_open: u32,
    open_for: Duration,
    is_closed: AtomicBool,
    failures: AtomicU32,
    phase: Mutex<Phase>,
}

#[derive(Debug)]
enum Phase {
    Closed,
    Open { until: Instant },
    TrialInFlight,
}

impl CircuitBreaker {
    /// Opens after `failures_to_open` consecutive failures, for 1 to 1.5 times `open_for`.
    pub(super) fn new(failures_to_open: u32, open_for: Duration) -> Self {
        Self {
            failures_to_open,
            open_for,
            is_closed: AtomicBool::new(true),
            failures: AtomicU32::new(0),
            phase: Mutex::new(Phase::Closed),
        }
    }

    /// A permit for one call; `None` if the call is rejected. The caller returns the permit through
    /// exactly one of [`Self::record_success`], [`Self::record_failure`] and [`Self::abandon`].
    pub(super) fn admit(&self) -> Option<Permit> {
        if self.is_closed.load(Ordering::Acquire) {
            return Some(Permit::Normal);
        }
        let mut phase = self.phase();
        match *phase {
            Phase::Closed => Some(Permit::Normal),
            Phase::Open { until } if Instant::now() >= until => {
                *phase = Phase::TrialInFlight;
                Some(Permit::Trial)
            }
            Phase::Open { .. } | Phase::TrialInFlight => None,
        }
    }

    /// Records a response. Returns whether it closed the breaker.
    pub(super) fn record_success(&self, permit: Permit) -> bool {
        // Loaded first: server threads share this cache line, and the count is usually 0.
        if self.failures.load(Ordering::Relaxed) != 0 {
            self.failures.store(0, Ordering::Relaxed);
        }
        if permit == Permit::Normal {
            return false;
        }
        *self.phase() = Phase::Closed;
        self.is_closed.store(true, Ordering::Release);
        true
    }

    /// Records a transport failure. Returns whether it opened the breaker.
    pub(super) fn record_failure(&self, permit: Permit) -> bool {
        match permit {
            Permit::Trial => {
                self.open();
                true
            }
            Permit::Normal => {
                let failures = self.failures.fetch_add(1, Ordering::Relaxed) + 1;
                let opens = failures >= self.failures_to_open
                    && self.is_closed.swap(false, Ordering::AcqRel);
                if opens {
                    self.open();
                }
                opens
            }
        }
    }

    /// Returns the permit of a call without a result, for example because its client disconnected.
    pub(super) fn abandon(&self, permit: Permit) {
        if permit == Permit::Trial {
            *self.phase() = Phase::Open { until: Instant::now() };
        }
    }

    /// The current state.
    pub(super) fn state(&self) -> BreakerState {
        if self.is_closed.load(Ordering::Relaxed) {
            return BreakerState::Closed;
        }
        match *self.phase() {
            Phase::Closed => BreakerState::Closed,
            Phase::Open { until } if Instant::now() < until => BreakerState::Open,
            Phase::Open { .. } | Phase::TrialInFlight => BreakerState::HalfOpen,
        }
    }

    fn open(&self) {
        let open_for = self.open_for.mul_f64(rand::rng().random_range(1.0..=1.5));
        *self.phase() = Phase::Open { until: Instant::now() + open_for };
    }

    fn phase(&self) -> MutexGuard<'_, Phase> {
        self.phase.lock_ignoring_poison()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::advance;

    const OPEN_FOR: Duration = Duration::from_secs(1);

    fn opened() -> CircuitBreaker {
        let breaker = CircuitBreaker::new(3, OPEN_FOR);
        for opens in [false, false, true] {
            assert_eq!(breaker.admit(), Some(Permit::Normal));
            assert_eq!(breaker.record_failure(Permit::Normal), opens);
        }
        breaker
    }

    #[tokio::test(start_paused = true)]
    async fn consecutive_failures_open_the_breaker_and_a_success_resets_the_count() {
        let breaker = CircuitBreaker::new(3, OPEN_FOR);
        for _ in 0..5 {
            breaker.record_failure(Permit::Normal);
            breaker.record_failure(Permit::Normal);
            breaker.record_success(Permit::Normal);
        }
        assert_eq!(breaker.state(), BreakerState::Closed);
        assert_eq!(opened().state(), BreakerState::Open);
    }

    #[tokio::test(start_paused = true)]
    async fn breaker_stays_open_for_the_configured_time_and_one_trial_closes_it() {
        let breaker = opened();
        advance(OPEN_FOR.mul_f64(0.99)).await;
        assert_eq!(breaker.admit(), None);
        advance(OPEN_FOR.mul_f64(0.52)).await;
        assert_eq!(breaker.admit(), Some(Permit::Trial));
        assert_eq!(breaker.admit(), None, "one trial at a time");
        assert_eq!(breaker.state(), BreakerState::HalfOpen);
        assert!(breaker.record_success(Permit::Trial));
        assert_eq!(breaker.admit(), Some(Permit::Normal));
        assert_eq!(breaker.state(), BreakerState::Closed);
    }

    #[tokio::test(start_paused = true)]
    async fn failed_trial_opens_the_breaker_again() {
        let breaker = opened();
        advance(OPEN_FOR * 2).await;
        assert_eq!(breaker.admit(), Some(Permit::Trial));
        breaker.record_failure(Permit::Trial);
        assert_eq!(breaker.admit(), None);
        assert_eq!(breaker.state(), BreakerState::Open);
    }

    #[tokio::test(start_paused = true)]
    async fn an_abandoned_trial_permits_the_next() {
        let breaker = opened();
        advance(OPEN_FOR * 2).await;
        assert_eq!(breaker.admit(), Some(Permit::Trial));
        breaker.abandon(Permit::Trial);
        assert_eq!(breaker.admit(), Some(Permit::Trial));
    }

    #[tokio::test(start_paused = true)]
    async fn success_of_a_call_from_before_the_opening_does_not_close_the_breaker() {
        let breaker = opened();
        breaker.record_success(Permit::Normal);
        assert_eq!(breaker.admit(), None);
    }
}
