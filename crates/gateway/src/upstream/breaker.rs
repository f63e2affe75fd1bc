//! A passive circuit breaker: it learns from the calls that are made anyway.
//!
//! Closed until a number of calls in a row has failed; then open for a while, with jitter, so that
//! gateways don't come back in step; then one call, the probe, decides. Only the transport counts
//! (no connection, broken connection, no answer in time): an answer with status 500 proves that
//! somebody is there, and one broken route must not take the others down.
//!
//! Invariants:
//! - While closed, passing costs two atomic loads and no lock.
//! - At most one probe is under way; an abandoned one makes room for the next.
//! - A call that was admitted before the breaker opened can't close it.

use std::{
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::Duration,
};

use rand::RngExt as _;
use tokio::time::Instant;

/// How a call was let through; handed back with its outcome.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pass {
    /// The breaker was closed.
    Normal,
    /// This call decides whether the breaker closes.
    Probe,
}

/// What the breaker does with the next call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Lets it pass.
    Closed,
    /// Refuses it.
    Open,
    /// A probe is due or under way.
    HalfOpen,
}

/// The breaker of one upstream.
#[derive(Debug)]
pub(crate) struct Breaker {
    failures_to_open: u32,
    open_for: Duration,
    closed: AtomicBool,
    failures: AtomicU32,
    state: Mutex<State>,
}

#[derive(Debug)]
enum State {
    Closed,
    Open { until: Instant },
    Probing,
}

impl Breaker {
    /// Opens after `failures_to_open` in a row, for `open_for` to one and a half times that.
    pub(crate) fn new(failures_to_open: u32, open_for: Duration) -> Self {
        Self {
            failures_to_open,
            open_for,
            closed: AtomicBool::new(true),
            failures: AtomicU32::new(0),
            state: Mutex::new(State::Closed),
        }
    }

    /// Whether a call may be made now. An answer of `Some` must be followed by exactly one of
    /// [`Self::succeeded`], [`Self::failed`] and [`Self::abandoned`].
    pub(crate) fn admit(&self) -> Option<Pass> {
        if self.closed.load(Ordering::Acquire) {
            return Some(Pass::Normal);
        }
        let mut state = self.lock();
        match *state {
            State::Closed => Some(Pass::Normal),
            State::Open { until } if Instant::now() >= until => {
                *state = State::Probing;
                Some(Pass::Probe)
            }
            State::Open { .. } | State::Probing => None,
        }
    }

    /// The call was answered. True if that closed the breaker.
    pub(crate) fn succeeded(&self, pass: Pass) -> bool {
        // Loaded first: the common case must not write to a line that workers share.
        if self.failures.load(Ordering::Relaxed) != 0 {
            self.failures.store(0, Ordering::Relaxed);
        }
        if pass == Pass::Normal {
            return false;
        }
        *self.lock() = State::Closed;
        self.closed.store(true, Ordering::Release);
        true
    }

    /// The call failed. True if that opened the breaker.
    pub(crate) fn failed(&self, pass: Pass) -> bool {
        match pass {
            Pass::Probe => {
                self.open();
                true
            }
            Pass::Normal => {
                let failures = self.failures.fetch_add(1, Ordering::Relaxed) + 1;
                let opens =
                    failures >= self.failures_to_open && self.closed.swap(false, Ordering::AcqRel);
                if opens {
                    self.open();
                }
                opens
            }
        }
    }

    /// The call ended without an outcome, such as when the client left.
    pub(crate) fn abandoned(&self, pass: Pass) {
        if pass == Pass::Probe {
            *self.lock() = State::Open { until: Instant::now() };
        }
    }

    /// For the metrics.
    pub(crate) fn mode(&self) -> Mode {
        if self.closed.load(Ordering::Relaxed) {
            return Mode::Closed;
        }
        match *self.lock() {
            State::Closed => Mode::Closed,
            State::Open { until } if Instant::now() < until => Mode::Open,
            State::Open { .. } | State::Probing => Mode::HalfOpen,
        }
    }

    fn open(&self) {
        let open_for = self.open_for.mul_f64(rand::rng().random_range(1.0..=1.5));
        *self.lock() = State::Open { until: Instant::now() + open_for };
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::advance;

    const OPEN_FOR: Duration = Duration::from_secs(1);

    fn opened() -> Breaker {
        let breaker = Breaker::new(3, OPEN_FOR);
        for last in [false, false, true] {
            assert_eq!(breaker.admit(), Some(Pass::Normal));
            assert_eq!(breaker.failed(Pass::Normal), last);
        }
        breaker
    }

    #[tokio::test(start_paused = true)]
    async fn failures_in_a_row_open_it_and_a_success_starts_the_count_anew() {
        let breaker = Breaker::new(3, OPEN_FOR);
        for _ in 0..5 {
            breaker.failed(Pass::Normal);
            breaker.failed(Pass::Normal);
            breaker.succeeded(Pass::Normal);
        }
        assert_eq!(breaker.mode(), Mode::Closed);
        assert_eq!(opened().mode(), Mode::Open);
    }

    #[tokio::test(start_paused = true)]
    async fn it_stays_open_for_its_time_then_one_probe_closes_it() {
        let breaker = opened();
        advance(OPEN_FOR.mul_f64(0.99)).await;
        assert_eq!(breaker.admit(), None);
        advance(OPEN_FOR.mul_f64(0.52)).await;
        assert_eq!(breaker.admit(), Some(Pass::Probe));
        assert_eq!(breaker.admit(), None, "one probe at a time");
        assert_eq!(breaker.mode(), Mode::HalfOpen);
        assert!(breaker.succeeded(Pass::Probe));
        assert_eq!(breaker.admit(), Some(Pass::Normal));
        assert_eq!(breaker.mode(), Mode::Closed);
    }

    #[tokio::test(start_paused = true)]
    async fn a_failed_probe_opens_it_again() {
        let breaker = opened();
        advance(OPEN_FOR * 2).await;
        assert_eq!(breaker.admit(), Some(Pass::Probe));
        breaker.failed(Pass::Probe);
        assert_eq!(breaker.admit(), None);
        assert_eq!(breaker.mode(), Mode::Open);
    }

    #[tokio::test(start_paused = true)]
    async fn an_abandoned_probe_makes_room_for_the_next() {
        let breaker = opened();
        advance(OPEN_FOR * 2).await;
        assert_eq!(breaker.admit(), Some(Pass::Probe));
        breaker.abandoned(Pass::Probe);
        assert_eq!(breaker.admit(), Some(Pass::Probe));
    }

    #[tokio::test(start_paused = true)]
    async fn a_late_success_of_an_earlier_call_does_not_close_it() {
        let breaker = opened();
        breaker.succeeded(Pass::Normal);
        assert_eq!(breaker.admit(), None);
    }
}
