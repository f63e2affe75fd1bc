//! What the worker counts of its upkeep.

use std::time::Duration;

use chrono::{DateTime, Utc};
use linnet_telemetry::metrics::{Counter, Gauge, Histogram, KeyValue, Meter};

use linnet_store::TaskOutcome;

use super::{TASKS, Task};

/// From a look that finds nothing to do to the longest time-out, in seconds.
const DURATIONS: [f64; 10] = [0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0, 900.0];

/// The instruments; labels are names of tasks and of outcomes.
pub struct MaintenanceMetrics {
    runs: Counter<u64>,
    duration: Histogram<f64>,
    last_success: Gauge<f64>,
}

fn task_label(task: &Task) -> KeyValue {
    KeyValue::new("task", task.name)
}

impl MaintenanceMetrics {
    /// Registers the instruments. Every series of the counter is there from the beginning, so that a
    /// first failure is seen as an increase.
    pub fn new(meter: &Meter) -> Self {
        let runs = meter
            .u64_counter("linnet_maintenance_runs")
            .with_description("Runs of tasks of the upkeep by this process")
            .build();
        for task in &TASKS {
            for outcome in TaskOutcome::ALL {
                runs.add(0, &[task_label(task), KeyValue::new("outcome", outcome.name())]);
            }
        }
        Self {
            runs,
            duration: meter
                .f64_histogram("linnet_maintenance_duration")
                .with_description("Time of a run")
                .with_unit("s")
                .with_boundaries(DURATIONS.to_vec())
                .build(),
            last_success: meter
                .f64_gauge("linnet_maintenance_last_success_timestamp")
                .with_description(
                    "When the last run that succeeded began, in whichever process, as seen last",
                )
                .with_unit("s")
                .build(),
        }
    }

    /// Counts a run.
    pub fn ran(&self, task: &Task, outcome: TaskOutcome, duration: Duration) {
        self.runs.add(1, &[task_label(task), KeyValue::new("outcome", outcome.name())]);
        self.duration.record(duration.as_secs_f64(), &[task_label(task)]);
    }

    /// Shows when a task's last successful run began.
    pub fn succeeded_at(&self, task: &Task, time: DateTime<Utc>) {
        #[expect(clippy::cast_precision_loss, reason = "milliseconds of our time fit 53 bits")]
        self.last_success.record(time.timestamp_millis() as f64 / 1_000.0, &[task_label(task)]);
    }
}
