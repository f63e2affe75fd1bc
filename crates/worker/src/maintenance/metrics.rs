//! Metrics of maintenance.

use std::time::Duration;

use chrono::{DateTime, Utc};
use linnet_telemetry::metrics::{Counter, Gauge, Histogram, KeyValue, Meter};

use linnet_store::TaskOutcome;

use super::{TASKS, Task};

/// Buckets of the duration of a run, in seconds: from a run without work to the longest time limit.
const DURATIONS: [f64; 10] = [0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0, 900.0];

/// The instruments of maintenance. Their labels are names of tasks and outcomes.
pub struct MaintenanceMetrics {
    runs: Counter<u64>,
    duration: Histogram<f64>,
    last_success: Gauge<f64>,
}

fn task_label(task: &Task) -> KeyValue {
    KeyValue::new("task", task.name)
}

impl MaintenanceMetrics {
    /// Registers the instruments. Every series of the counter starts at 0, so `increase()` includes a first failure.
    pub fn new(meter: &Meter) -> Self {
        let runs = meter
            .u64_counter("linnet_maintenance_runs")
            .with_description("Runs of maintenance tasks in this process, by task and outcome.")
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
                .with_description("Duration of a run of a maintenance task, in seconds.")
                .with_unit("s")
                .with_boundaries(DURATIONS.to_vec())
                .build(),
            last_success: meter
                .f64_gauge("linnet_maintenance_last_success_timestamp")
                .with_description(
                    "Start of the last successful run of a maintenance task in any process, \
                     in seconds since 1970.",
                )
                .with_unit("s")
                .build(),
        }
    }

    /// Records a run.
    pub(super) fn record_run(&self, task: &Task, outcome: TaskOutcome, duration: Duration) {
        self.runs.add(1, &[task_label(task), KeyValue::new("outcome", outcome.name())]);
        self.duration.record(duration.as_secs_f64(), &[task_label(task)]);
    }

    /// Records the start of a task's last successful run.
    pub(super) fn record_last_success(&self, task: &Task, began_at: DateTime<Utc>) {
        #[expect(clippy::cast_precision_loss, reason = "milliseconds since 1970 fit 53 bits")]
        let seconds = began_at.timestamp_millis() as f64 / 1_000.0;
        self.last_success.record(seconds, &[task_label(task)]);
    }
}
