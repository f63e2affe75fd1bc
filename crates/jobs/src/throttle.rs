//! How fast a job writes while others need the processors.
//!
//! PostgreSQL writes a job's rows on a core of its own for as long as there are any, and a redirect
//! that comes meanwhile waits for its turn. So a job writes little at a time, and rests in between
//! while Linux says that somebody waits for a processor (pressure stall information, see
//! `Documentation/accounting/psi.rst` of the kernel). On an idle machine it does not rest.

use std::{fs, time::Duration};

use tokio::time::Instant;

/// Of all processes of the machine, also from within a container.
const PRESSURE: &str = "/proc/pressure/cpu";
/// Share of the time in which somebody waits for a processor, from which on a job rests. Above what a
/// job alone on the machine makes, far below what redirects at half of their peak do.
const BUSY: f64 = 0.2;

/// The pace of one job.
#[derive(Debug)]
pub(super) struct Throttle {
    /// Share of the time in which it may write while others wait: above 0, at most 1.
    share: f64,
    longest: Duration,
    last: Option<Look>,
}

/// How long somebody had waited, until when.
#[derive(Debug, Clone, Copy)]
struct Look {
    at: Instant,
    stalled: Duration,
}

impl Throttle {
    /// No rest is longer than `longest`.
    pub(super) fn new(throttle_percent: u32, longest: Duration) -> Self {
        Self { share: f64::from(throttle_percent) / 100.0, longest, last: look() }
    }

    /// How long to rest after writing for so long.
    pub(super) fn rest_after(&mut self, wrote: Duration) -> Duration {
        let now = look();
        let busy = match (self.last, now) {
            (Some(last), Some(now)) => share_between(last, now) >= BUSY,
            // A kernel that does not tell may be busy.
            _ => true,
        };
        self.last = now;
        if busy { wrote.mul_f64(1.0 / self.share - 1.0).min(self.longest) } else { Duration::ZERO }
    }
}

fn look() -> Option<Look> {
    let text = fs::read_to_string(PRESSURE).ok()?;
    Some(Look { at: Instant::now(), stalled: stalled(&text)? })
}

/// `some avg10=0.17 avg60=15.45 avg300=18.99 total=12249768706`, in microseconds.
fn stalled(text: &str) -> Option<Duration> {
    let line = text.lines().find(|line| line.starts_with("some "))?;
    let total = line.split(' ').find_map(|word| word.strip_prefix("total="))?;
    Some(Duration::from_micros(total.parse().ok()?))
}

fn share_between(last: Look, now: Look) -> f64 {
    let passed = now.at.saturating_duration_since(last.at).as_secs_f64();
    let stalled = now.stalled.saturating_sub(last.stalled).as_secs_f64();
    if passed > 0.0 { stalled / passed } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_text_is_read() {
        let text = "some avg10=0.17 avg60=15.45 avg300=18.99 total=12249768706\n\
                    full avg10=0.00 avg60=0.00 avg300=0.00 total=7\n";
        assert_eq!(stalled(text), Some(Duration::from_micros(12_249_768_706)));
        for odd in ["", "full total=7", "some avg10=0", "some total=x"] {
            assert_eq!(stalled(odd), None, "{odd}");
        }
    }

    #[test]
    fn pressure_is_a_share_of_the_time() {
        let at = Instant::now();
        let look = |passed, stalled| Look {
            at: at + Duration::from_millis(passed),
            stalled: Duration::from_millis(stalled),
        };
        let share = share_between(look(0, 100), look(1_000, 350));
        assert!((share - 0.25).abs() < 1e-9, "{share}");
        assert!(share_between(look(5, 1), look(5, 1)).abs() < 1e-9);
    }

    #[test]
    fn a_rest_has_an_end_and_all_of_the_time_has_none() {
        let hour = Duration::from_hours(1);
        let mut pace = Throttle { share: 0.25, longest: Duration::from_secs(1), last: None };
        assert!(pace.rest_after(hour) <= Duration::from_secs(1));
        assert_eq!(Throttle::new(100, hour).rest_after(hour), Duration::ZERO);
    }
}
