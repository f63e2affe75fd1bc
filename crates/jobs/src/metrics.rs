//! Metrics of jobs in a worker.

use linnet_platform::lock::MutexExt as _;
use linnet_telemetry::metrics::{BoundCounter, BoundHistogram, Counter, KeyValue, Meter};

use linnet_domain::JobKind;
use linnet_store::JobCounts;

use super::dispatch::SharedJobCounts;

/// Buckets of the time to write one chunk, in seconds.
const CHUNK_SECONDS: [f64; 9] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0];

/// The instruments of jobs.
pub(super) struct JobMetrics {
    ended: Counter<u64>,
    written: BoundCounter<u64>,
    skipped: BoundCounter<u64>,
    failed: BoundCounter<u64>,
    pub(super) failed_attempts: BoundCounter<u64>,
    /// Retries of chunks while PostgreSQL is unreachable.
    pub(super) chunk_retries: BoundCounter<u64>,
    /// Time to write a chunk, in seconds, including retries.
    pub(super) chunk_duration: BoundHistogram<f64>,
}

impl JobMetrics {
    pub(super) fn new(meter: &Meter, counts: &SharedJobCounts) -> Self {
        register_gauges(meter, counts);
        let counter = |name: &'static str, description: &'static str| {
            meter.u64_counter(name).with_description(description).build()
        };
        let rows = counter("linnet_jobs_rows", "Rows of jobs, by outcome.");
        let outcome = |outcome: &'static str| rows.bind(&[KeyValue::new("outcome", outcome)]);
        Self {
            ended: counter("linnet_jobs_ended", "Ended attempts of jobs, by kind and outcome."),
            written: outcome("written"),
            skipped: outcome("skipped"),
            failed: outcome("failed"),
            failed_attempts: counter("linnet_jobs_failed_attempts", "Failed attempts of jobs.")
                .bind(&[]),
            chunk_retries: counter(
                "linnet_jobs_chunk_retries",
                "Retries of chunks of rows while PostgreSQL is unreachable.",
            )
            .bind(&[]),
            chunk_duration: meter
                .f64_histogram("linnet_jobs_chunk_duration")
                .with_unit("s")
                .with_description("Time to write one chunk of rows to PostgreSQL, in seconds.")
                .with_boundaries(CHUNK_SECONDS.to_vec())
                .build()
                .bind(&[]),
        }
    }

    pub(super) fn add_ended(&self, kind: JobKind, outcome: &'static str) {
        let labels = [KeyValue::new("kind", kind.as_str()), KeyValue::new("outcome", outcome)];
        self.ended.add(1, &labels);
    }

    pub(super) fn add_rows(&self, written: usize, skipped: usize, failed: usize) {
        for (counter, rows) in
            [(&self.written, written), (&self.skipped, skipped), (&self.failed, failed)]
        {
            counter.add(rows as u64);
        }
    }
}

type CountOf = fn(&JobCounts) -> i64;

fn register_gauges(meter: &Meter, counts: &SharedJobCounts) {
    let latest = |counts: &SharedJobCounts| *counts.lock_ignoring_poison();
    let states: [(&'static str, CountOf); 4] = [
        ("queued_small", |counts| counts.queued_small),
        ("queued_large", |counts| counts.queued_large),
        ("running", |counts| counts.running),
        ("dead", |counts| counts.dead),
    ];
    let shared = counts.clone();
    meter
        .u64_observable_gauge("linnet_jobs")
        .with_description("Queued, running and dead jobs, by state.")
        .with_callback(move |gauge| {
            let counts = latest(&shared);
            for (state, count_of) in states {
                let count = u64::try_from(count_of(&counts)).unwrap_or(0);
                gauge.observe(count, &[KeyValue::new("state", state)]);
            }
        })
        .build();
    let shared = counts.clone();
    meter
        .f64_observable_gauge("linnet_jobs_oldest_queued")
        .with_unit("s")
        .with_description("Time in the queue of the job that has waited longest, in seconds.")
        .with_callback(move |gauge| gauge.observe(latest(&shared).oldest_queued_s, &[]))
        .build();
    let shared = counts.clone();
    meter
        .u64_observable_gauge("linnet_jobs_uploads")
        .with_unit("By")
        .with_description("Size of the uploads in PostgreSQL, compressed, in bytes.")
        .with_callback(move |gauge| {
            gauge.observe(u64::try_from(latest(&shared).upload_bytes).unwrap_or(0), &[]);
        })
        .build();
}

#[cfg(test)]
mod tests {
    use linnet_telemetry::testing;

    use super::*;

    #[test]
    fn rows_attempts_and_states_are_counted() {
        let (telemetry, reader) = testing::telemetry();
        let counts = SharedJobCounts::default();
        let metrics = JobMetrics::new(&telemetry.meter(), &counts);
        metrics.add_ended(JobKind::ImportUrls, "succeeded");
        metrics.add_rows(1, 2, 3);
        metrics.add_rows(10, 20, 30);
        *counts.lock_ignoring_poison() = JobCounts {
            queued_small: 1,
            queued_large: 2,
            running: 3,
            dead: 4,
            oldest_queued_s: 5.5,
            upload_bytes: 6,
        };
        let kind = JobKind::ImportUrls.as_str();
        let ended = [("kind", kind), ("outcome", "succeeded")];
        assert_eq!(reader.value("linnet_jobs_ended_total", &ended), Some(1.0));
        for (outcome, rows) in [("written", 11.0), ("skipped", 22.0), ("failed", 33.0)] {
            let found = reader.value("linnet_jobs_rows_total", &[("outcome", outcome)]);
            assert_eq!(found, Some(rows), "{outcome}");
        }
        for (state, jobs) in
            [("queued_small", 1.0), ("queued_large", 2.0), ("running", 3.0), ("dead", 4.0)]
        {
            assert_eq!(reader.value("linnet_jobs", &[("state", state)]), Some(jobs), "{state}");
        }
        assert_eq!(reader.value("linnet_jobs_oldest_queued_seconds", &[]), Some(5.5));
        assert_eq!(reader.value("linnet_jobs_uploads_bytes", &[]), Some(6.0));
    }
}
