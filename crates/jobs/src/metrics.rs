//! What workers count of jobs.

use std::sync::PoisonError;

use linnet_telemetry::metrics::{BoundCounter, BoundHistogram, Counter, KeyValue, Meter};

use linnet_domain::JobKind;
use linnet_store::JobCounts;

use super::dispatch::Counted;

/// Time to write one chunk, in seconds.
const DURATIONS: [f64; 9] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0];

/// The instruments of the process.
pub(super) struct JobMetrics {
    ended: Counter<u64>,
    written: BoundCounter<u64>,
    skipped: BoundCounter<u64>,
    failed: BoundCounter<u64>,
    /// Attempts that failed.
    pub(super) failed_attempts: BoundCounter<u64>,
    /// Chunks that were tried again because the database was away.
    pub(super) chunk_retries: BoundCounter<u64>,
    /// Time to write a chunk, in seconds, retries included.
    pub(super) chunk_duration: BoundHistogram<f64>,
}

impl JobMetrics {
    pub(super) fn new(meter: &Meter, counted: &Counted) -> Self {
        register(meter, counted);
        let count_of = |name: &'static str, description: &'static str| {
            meter.u64_counter(name).with_description(description).build()
        };
        let rows = count_of("linnet_jobs_rows", "Rows of jobs, by what became of them");
        let outcome = |outcome: &'static str| rows.bind(&[KeyValue::new("outcome", outcome)]);
        Self {
            ended: count_of("linnet_jobs_ended", "Attempts that ended, by kind and outcome"),
            written: outcome("written"),
            skipped: outcome("skipped"),
            failed: outcome("failed"),
            failed_attempts: count_of("linnet_jobs_failed_attempts", "Attempts that failed")
                .bind(&[]),
            chunk_retries: count_of("linnet_jobs_chunk_retries", "Chunks that were tried again")
                .bind(&[]),
            chunk_duration: meter
                .f64_histogram("linnet_jobs_chunk_duration")
                .with_unit("s")
                .with_description("Time to write one chunk of rows")
                .with_boundaries(DURATIONS.to_vec())
                .build()
                .bind(&[]),
        }
    }

    pub(super) fn ended(&self, kind: JobKind, outcome: &'static str) {
        let labels = [KeyValue::new("kind", kind.as_str()), KeyValue::new("outcome", outcome)];
        self.ended.add(1, &labels);
    }

    pub(super) fn rows(&self, written: usize, skipped: usize, failed: usize) {
        for (counter, rows) in
            [(&self.written, written), (&self.skipped, skipped), (&self.failed, failed)]
        {
            counter.add(rows as u64);
        }
    }
}

type CountOf = fn(&JobCounts) -> i64;

fn register(meter: &Meter, counted: &Counted) {
    let counts = |counted: &Counted| *counted.lock().unwrap_or_else(PoisonError::into_inner);
    let states: [(&'static str, CountOf); 4] = [
        ("queued_small", |counts| counts.queued_small),
        ("queued_large", |counts| counts.queued_large),
        ("running", |counts| counts.running),
        ("dead", |counts| counts.dead),
    ];
    let seen = counted.clone();
    meter
        .u64_observable_gauge("linnet_jobs")
        .with_description("Jobs that wait, run, or are dead letters")
        .with_callback(move |gauge| {
            let counts = counts(&seen);
            for (state, of) in states {
                let count = u64::try_from(of(&counts)).unwrap_or(0);
                gauge.observe(count, &[KeyValue::new("state", state)]);
            }
        })
        .build();
    let seen = counted.clone();
    meter
        .f64_observable_gauge("linnet_jobs_oldest_queued")
        .with_unit("s")
        .with_description("How long the job that waits longest has been waiting")
        .with_callback(move |gauge| gauge.observe(counts(&seen).oldest_queued_s, &[]))
        .build();
}
