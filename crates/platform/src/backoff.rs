//! Waits between failed attempts.

use std::{ops::ControlFlow, time::Duration};

use rand::RngExt as _;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

/// Waits that double from `first` up to `longest`, each jittered.
#[derive(Debug, Clone)]
pub struct Backoff {
    first: Duration,
    longest: Duration,
    failures: u32,
}

impl Backoff {
    /// The first wait is `first`, and none is longer than `longest`.
    pub const fn new(first: Duration, longest: Duration) -> Self {
        Self { first, longest, failures: 0 }
    }

    /// Starts again at the first wait. Call it after a success.
    pub const fn reset(&mut self) {
        self.failures = 0;
    }

    /// Waits before the next attempt.
    pub async fn wait(&mut self) {
        sleep(self.next_wait()).await;
    }

    /// Waits before the next attempt; breaks at once when `stop` is cancelled.
    pub async fn wait_unless_cancelled(&mut self, stop: &CancellationToken) -> ControlFlow<()> {
        match stop.run_until_cancelled(self.wait()).await {
            Some(()) => ControlFlow::Continue(()),
            None => ControlFlow::Break(()),
        }
    }

    fn next_wait(&mut self) -> Duration {
        self.failures = self.failures.saturating_add(1);
        jittered(doubled(self.first, self.failures, self.longest))
    }
}

/// The wait after the given number of consecutive failures: `first` after one, doubled with each further one, at most
/// `longest`.
pub fn doubled(first: Duration, failures: u32, longest: Duration) -> Duration {
    let doublings = failures.saturating_sub(1).min(31);
    first.saturating_mul(1 << doublings).min(longest)
}

/// A random duration from half of `base` to all of it, so that processes do not retry in step.
pub fn jittered(base: Duration) -> Duration {
    base.mul_f64(rand::rng().random_range(0.5..=1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: Duration = Duration::from_millis(50);
    const LONGEST: Duration = Duration::from_secs(2);

    #[test]
    fn waits_double_up_to_the_longest() {
        let wait = |failures| doubled(FIRST, failures, LONGEST).as_millis();
        assert_eq!([0, 1, 2, 3, 6].map(wait), [50, 50, 100, 200, 1_600]);
        assert_eq!([7, 32, u32::MAX].map(wait), [2_000; 3]);
    }

    #[test]
    fn each_wait_is_jittered_and_a_reset_begins_anew() {
        let mut backoff = Backoff::new(FIRST, LONGEST);
        for longest_ms in [50, 100, 200] {
            let wait = backoff.next_wait().as_millis();
            assert!((longest_ms / 2..=longest_ms).contains(&wait), "{wait} ms");
        }
        backoff.reset();
        assert!(backoff.next_wait() <= FIRST);
    }

    #[tokio::test(start_paused = true)]
    async fn cancellation_ends_a_wait_at_once() {
        let stop = CancellationToken::new();
        let mut backoff = Backoff::new(LONGEST, LONGEST);
        assert_eq!(backoff.wait_unless_cancelled(&stop).await, ControlFlow::Continue(()));
        stop.cancel();
        let began = tokio::time::Instant::now();
        assert_eq!(backoff.wait_unless_cancelled(&stop).await, ControlFlow::Break(()));
        assert_eq!(began.elapsed(), Duration::ZERO);
    }
}
