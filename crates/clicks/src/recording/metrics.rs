//! Metrics of recording in a serving process.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use linnet_telemetry::metrics::{self, BoundCounter, BoundHistogram, KeyValue, Meter};

/// Buckets of the clicks in a batch: from a quiet service to a full flush.
const BATCH_SIZES: [f64; 8] = [1.0, 5.0, 20.0, 100.0, 300.0, 1_000.0, 2_000.0, 5_000.0];

/// The instruments of recording.
pub(super) struct RecordingMetrics {
    /// Clicks appended to a buffer. Each is recorded later, or counted as dropped.
    pub(super) accepted: BoundCounter<u64>,
    /// Clicks added to the stream.
    pub(super) published: BoundCounter<u64>,
    /// Clicks appended to the spool. They are published later.
    pub(super) spooled: BoundCounter<u64>,
    pub(super) dropped_buffer_full: BoundCounter<u64>,
    pub(super) dropped_spool_full: BoundCounter<u64>,
    /// Clicks dropped because the spool cannot be opened or written.
    pub(super) dropped_spool_unusable: BoundCounter<u64>,
    /// Clicks in a batch.
    pub(super) batch_size: BoundHistogram<f64>,
    /// Time from draining the buffers to the response of Redis, in seconds.
    pub(super) flush_duration: BoundHistogram<f64>,
    /// Size of the spool for its gauge, in bytes.
    pub(super) spool_bytes: Arc<AtomicU64>,
}

impl RecordingMetrics {
    /// Registers the instruments. Counters start at 0, so `increase()` includes the first event.
    pub(super) fn new(meter: &Meter) -> Self {
        let spool_bytes = Arc::new(AtomicU64::new(0));
        let observed = Arc::clone(&spool_bytes);
        meter
            .u64_observable_gauge("linnet_clicks_spool")
            .with_unit("By")
            .with_description("Size of the batches in the spool, in bytes.")
            .with_callback(move |gauge| gauge.observe(observed.load(Ordering::Relaxed), &[]))
            .build();
        let counter = |name: &'static str, description: &'static str| {
            from_zero(meter.u64_counter(name).with_description(description).build().bind(&[]))
        };
        let dropped = meter
            .u64_counter("linnet_clicks_dropped")
            .with_description("Clicks that are lost, by reason.")
            .build();
        let dropped =
            |reason: &'static str| from_zero(dropped.bind(&[KeyValue::new("reason", reason)]));
        Self {
            accepted: counter("linnet_clicks_accepted", "Clicks that redirects added to a buffer."),
            published: counter("linnet_clicks_published", "Clicks added to the stream."),
            spooled: counter(
                "linnet_clicks_spooled",
                "Clicks written to the spool because the stream did not accept them.",
            ),
            dropped_buffer_full: dropped("buffer_full"),
            dropped_spool_full: dropped("spool_full"),
            dropped_spool_unusable: dropped("spool_unusable"),
            batch_size: meter
                .f64_histogram("linnet_clicks_batch_size")
                .with_description("Clicks in a batch.")
                .with_boundaries(BATCH_SIZES.to_vec())
                .build()
                .bind(&[]),
            flush_duration: metrics::latency_histogram(
                meter,
                "linnet_clicks_flush_duration",
                "Time to pack and publish the clicks of all buffers, in seconds.",
            )
            .bind(&[]),
            spool_bytes,
        }
    }
}

/// Adds 0, because the exporter omits a series until a value is added.
fn from_zero(counter: BoundCounter<u64>) -> BoundCounter<u64> {
    counter.add(0);
    counter
}
