//! What the recording of clicks counts in the shortener. The worker's are in `crate::ingest`.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use linnet_telemetry::metrics::{self, BoundCounter, BoundHistogram, KeyValue, Meter};

/// Clicks in a batch: from a quiet service to a full flush.
const BATCH_SIZES: [f64; 8] = [1.0, 5.0, 20.0, 100.0, 300.0, 1_000.0, 2_000.0, 5_000.0];

/// The instruments of the process.
pub struct ClickMetrics {
    /// Clicks that were taken into a buffer: each will be recorded, or counted as dropped.
    pub accepted: BoundCounter<u64>,
    /// Clicks that Redis took.
    pub published: BoundCounter<u64>,
    /// Clicks that went into the spool; they are published later.
    pub spooled: BoundCounter<u64>,
    /// Dropped because a buffer was full.
    pub dropped_buffer: BoundCounter<u64>,
    /// Dropped because the spool was full.
    pub dropped_spool: BoundCounter<u64>,
    /// Dropped because the spool could not be written, or there is none.
    pub dropped_no_spool: BoundCounter<u64>,
    /// Clicks of a batch.
    pub batch_size: BoundHistogram<f64>,
    /// Time from taking the buffers to Redis's answer, in seconds.
    pub flush_duration: BoundHistogram<f64>,
    /// Bytes that wait in the spool, for a gauge.
    pub(super) spool_bytes: Arc<AtomicU64>,
}

impl ClickMetrics {
    /// Registers the instruments.
    pub fn new(meter: &Meter) -> Self {
        let spool_bytes = Arc::new(AtomicU64::new(0));
        let observed = Arc::clone(&spool_bytes);
        meter
            .u64_observable_gauge("linnet_clicks_spool")
            .with_unit("By")
            .with_description("Size of what waits in the spool")
            .with_callback(move |gauge| gauge.observe(observed.load(Ordering::Relaxed), &[]))
            .build();
        let counter = |name: &'static str, description: &'static str| {
            meter.u64_counter(name).with_description(description).build().bind(&[])
        };
        let dropped = meter
            .u64_counter("linnet_clicks_dropped")
            .with_description("Clicks that will never be recorded, by reason")
            .build();
        let dropped = |reason: &'static str| dropped.bind(&[KeyValue::new("reason", reason)]);
        Self {
            accepted: counter("linnet_clicks_accepted", "Clicks taken from redirects"),
            published: counter("linnet_clicks_published", "Clicks that the stream took"),
            spooled: counter(
                "linnet_clicks_spooled",
                "Clicks that waited in the spool because the stream did not take them",
            ),
            dropped_buffer: dropped("buffer_full"),
            dropped_spool: dropped("spool_full"),
            dropped_no_spool: dropped("spool_unusable"),
            batch_size: meter
                .f64_histogram("linnet_clicks_batch_size")
                .with_description("Clicks of a batch")
                .with_boundaries(BATCH_SIZES.to_vec())
                .build()
                .bind(&[]),
            flush_duration: metrics::latency_histogram(
                meter,
                "linnet_clicks_flush_duration",
                "Time to pack and publish what the buffers held",
            )
            .bind(&[]),
            spool_bytes,
        }
    }
}
