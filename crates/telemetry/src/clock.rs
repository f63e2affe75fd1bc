//! Metrics of the wall clock, which reveal a clock that is wrong or that was stepped.
//!
//! Invariant: the monotonic clock follows NTP's gradual corrections and never a step. The difference between both clocks
//! therefore changes by exactly the steps of the wall clock. This detects a step even if Prometheus runs on the same
//! machine and its own clock is stepped too.

use std::{
    collections::HashMap,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use prometheus::{
    core::{Collector, Desc},
    proto::{MetricFamily, MetricType},
};

use crate::process::family;

const TIMESTAMP: (&str, &str) =
    ("linnet_clock_timestamp_seconds", "Wall clock, in seconds since the Unix epoch.");
const STEPS: (&str, &str) = (
    "linnet_clock_step_seconds",
    "Sum of the steps of the wall clock since the process started, in seconds.",
);

/// Reads both clocks at each scrape.
pub(crate) struct ClockCollector {
    descs: Vec<Desc>,
    started: Reading,
}

/// Both clocks at one moment.
#[derive(Debug, Clone, Copy)]
struct Reading {
    wall_s: f64,
    monotonic: Instant,
}

impl Reading {
    fn now() -> Self {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
        Self { wall_s: wall.as_secs_f64(), monotonic: Instant::now() }
    }

    /// How far the wall clock has moved beyond the monotonic clock since `earlier`, in seconds.
    fn steps_since(self, earlier: Self) -> f64 {
        let passed = self.monotonic.saturating_duration_since(earlier.monotonic);
        self.wall_s - earlier.wall_s - passed.as_secs_f64()
    }
}

impl ClockCollector {
    pub(crate) fn new() -> Result<Self, prometheus::Error> {
        let describe = |(name, help): (&str, &str)| {
            Desc::new(name.to_owned(), help.to_owned(), Vec::new(), HashMap::new())
        };
        let descs = [TIMESTAMP, STEPS].into_iter().map(describe).collect::<Result<_, _>>()?;
        Ok(Self { descs, started: Reading::now() })
    }
}

impl Collector for ClockCollector {
    fn desc(&self) -> Vec<&Desc> {
        self.descs.iter().collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let now = Reading::now();
        vec![
            family(TIMESTAMP.0, TIMESTAMP.1, MetricType::GAUGE, now.wall_s),
            family(STEPS.0, STEPS.1, MetricType::GAUGE, now.steps_since(self.started)),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_of_either_sign_are_reported_and_passing_time_is_not() {
        let monotonic = Instant::now();
        let earlier = Reading { wall_s: 1_000.0, monotonic };
        let later = |wall_s| Reading { wall_s, monotonic: monotonic + Duration::from_mins(1) };
        let steps = |wall_s| later(wall_s).steps_since(earlier);
        assert!(steps(1_060.0).abs() < 1e-6);
        assert!((steps(4_660.0) - 3_600.0).abs() < 1e-6);
        assert!((steps(970.0) + 90.0).abs() < 1e-6);
    }

    #[test]
    fn both_metrics_are_exposed_and_close_to_the_truth() {
        let families = ClockCollector::new().unwrap().collect();
        let value = |family: &MetricFamily| family.get_metric()[0].get_gauge().get_value();
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64();
        assert_eq!(families[0].name(), TIMESTAMP.0);
        assert!((value(&families[0]) - now).abs() < 60.0);
        assert_eq!(families[1].name(), STEPS.0);
        assert!(value(&families[1]).abs() < 60.0);
    }
}
