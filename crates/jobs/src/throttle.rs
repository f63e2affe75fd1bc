//! Throttles a job while other processes wait for a CPU.
//!
//! A job keeps one core of PostgreSQL busy, which delays redirects. It therefore writes small chunks and pauses between them
//! while Linux reports CPU pressure (pressure stall information, `Documentation/accounting/psi.rst` of the kernel). On an
//! idle machine it does not pause.

use std::{fs, time::Duration};

use tokio::time::Instant;

/// CPU pressure of the whole machine, even when read inside a container.
const PRESSURE: &str = "/proc/pressure/cpu";
/// Lowest CPU pressure at which a job pauses: the share of time in which at least one process waits for a CPU. A job alone
/// stays below it; redirects at half of their peak rate far exceed it.
const PRESSURE_THRESHOLD: f64 = 0.2;

/// The throttle of one job.
#[derive(Debug)]
pub(super) struct Throttle {
    /// Share of time in which the job writes under pressure: above 0, at most 1.
    share: f64,
    max_pause: Duration,
    last: Option<PressureSample>,
}

/// The total time in which at least one process has waited for a CPU.
#[derive(Debug, Clone, Copy)]
struct PressureSample {
    at: Instant,
    stalled: Duration,
}

impl Throttle {
    /// A throttle that lets the job write for `throttle_percent` of the time under pressure.
    pub(super) fn new(throttle_percent: u32, max_pause: Duration) -> Self {
        Self { share: f64::from(throttle_percent) / 100.0, max_pause, last: sample_pressure() }
    }

    /// The pause after a chunk whose writing took `write_duration`.
    pub(super) fn pause_after(&mut self, write_duration: Duration) -> Duration {
        self.pause_under(sample_pressure(), write_duration)
    }

    /// The pause after a chunk, with the pressure at its end.
    fn pause_under(&mut self, now: Option<PressureSample>, write_duration: Duration) -> Duration {
        let is_under_pressure = match (self.last, now) {
            (Some(last), Some(now)) => stalled_share(last, now) >= PRESSURE_THRESHOLD,
            // Without pressure information, assume that the machine is busy.
            _ => true,
        };
        self.last = now;
        if is_under_pressure {
            write_duration.mul_f64(1.0 / self.share - 1.0).min(self.max_pause)
        } else {
            Duration::ZERO
        }
    }
}

fn sample_pressure() -> Option<PressureSample> {
    let text = fs::read_to_string(PRESSURE).ok()?;
    Some(PressureSample { at: Instant::now(), stalled: parse_stalled(&text)? })
}

/// Parses the total from a line such as `some avg10=0.17 avg60=15.45 avg300=18.99 total=12249768706`, in microseconds.
fn parse_stalled(text: &str) -> Option<Duration> {
    let line = text.lines().find(|line| line.starts_with("some "))?;
    let total = line.split(' ').find_map(|word| word.strip_prefix("total="))?;
    Some(Duration::from_micros(total.parse().ok()?))
}

fn stalled_share(last: PressureSample, now: PressureSample) -> f64 {
    let passed = now.at.saturating_duration_since(last.at).as_secs_f64();
    let stalled = now.stalled.saturating_sub(last.stalled).as_secs_f64();
    if passed > 0.0 { stalled / passed } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pressure_file_is_parsed() {
        let text = "some avg10=0.17 avg60=15.45 avg300=18.99 total=12249768706\n\
                    full avg10=0.00 avg60=0.00 avg300=0.00 total=7\n";
        assert_eq!(parse_stalled(text), Some(Duration::from_micros(12_249_768_706)));
        for invalid in ["", "full total=7", "some avg10=0", "some total=x"] {
            assert_eq!(parse_stalled(invalid), None, "{invalid}");
        }
    }

    #[test]
    fn stalled_share_is_relative_to_the_elapsed_time() {
        let at = Instant::now();
        let sample = |passed, stalled| PressureSample {
            at: at + Duration::from_millis(passed),
            stalled: Duration::from_millis(stalled),
        };
        let share = stalled_share(sample(0, 100), sample(1_000, 350));
        assert!((share - 0.25).abs() < 1e-9, "{share}");
        assert!(stalled_share(sample(5, 1), sample(5, 1)).abs() < 1e-9);
    }

    #[test]
    fn pause_follows_from_the_pressure_since_the_last_chunk() {
        let at = Instant::now();
        let sample = |passed, stalled| {
            let stalled = Duration::from_millis(stalled);
            Some(PressureSample { at: at + Duration::from_millis(passed), stalled })
        };
        let mut throttle =
            Throttle { share: 0.25, max_pause: Duration::from_secs(1), last: sample(0, 0) };
        let wrote = Duration::from_millis(100);
        // It writes for a quarter of the time, so it pauses three times as long as it wrote.
        let paused = Duration::from_millis(300);
        for (now, pause, case) in [
            (sample(1_000, 200), paused, "the threshold"),
            (sample(2_000, 399), Duration::ZERO, "just below it"),
            (sample(3_000, 1_399), paused, "no idle processor"),
            (None, paused, "no sample"),
            (sample(4_000, 1_399), paused, "no sample before it"),
            (sample(5_000, 1_399), Duration::ZERO, "no pressure"),
        ] {
            assert_eq!(throttle.pause_under(now, wrote), pause, "{case}");
        }
        let hour = Duration::from_hours(1);
        assert_eq!(throttle.pause_under(None, hour), Duration::from_secs(1), "at most that");
        let mut throttle = Throttle { share: 1.0, ..throttle };
        assert_eq!(throttle.pause_under(None, hour), Duration::ZERO, "all of the time");
    }

    #[test]
    fn share_is_the_setting_and_samples_are_those_of_the_kernel() {
        let throttle = Throttle::new(30, Duration::from_secs(5));
        assert!((throttle.share - 0.3).abs() < 1e-9, "{}", throttle.share);
        assert_eq!(throttle.max_pause, Duration::from_secs(5));
        // Containers without the file and kernels without the feature have no samples.
        let has_pressure = fs::read_to_string(PRESSURE).is_ok();
        assert_eq!(throttle.last.is_some(), has_pressure);
        let mut throttle = Throttle { last: None, ..throttle };
        let write = Duration::from_millis(30);
        assert_eq!(throttle.pause_after(write), Duration::from_millis(70), "no sample before it");
        assert_eq!(throttle.last.is_some(), has_pressure);
    }
}
