//! What the worker counts.

use linnet_telemetry::metrics::{self, BoundCounter, BoundHistogram, KeyValue, Meter};

use linnet_domain::ClickKind;

/// Clicks written in one transaction.
const GROUP_SIZES: [f64; 8] = [1.0, 10.0, 100.0, 1_000.0, 5_000.0, 10_000.0, 25_000.0, 50_000.0];

/// The instruments of the process.
pub struct IngestMetrics {
    ingested: [BoundCounter<u64>; 4],
    /// Batches that were written before and changed nothing.
    pub duplicates: BoundCounter<u64>,
    /// Batches that went to the dead letters.
    pub dead_letters: BoundCounter<u64>,
    /// Clicks of those, as far as they say.
    pub dead_letter_clicks: BoundCounter<u64>,
    /// Groups that failed and were tried again.
    pub retries: BoundCounter<u64>,
    /// Entries taken over from other workers.
    pub claimed: BoundCounter<u64>,
    /// Clicks written in one transaction.
    pub group_size: BoundHistogram<f64>,
    /// Time from having a group to its being acknowledged, in seconds.
    pub duration: BoundHistogram<f64>,
}

impl IngestMetrics {
    /// Registers the instruments.
    pub fn new(meter: &Meter) -> Self {
        let counter = |name: &'static str, description: &'static str| {
            meter.u64_counter(name).with_description(description).build().bind(&[])
        };
        let ingested = meter
            .u64_counter("linnet_clicks_ingested")
            .with_description("Clicks written to the database, by kind")
            .build();
        Self {
            ingested: ClickKind::ALL
                .map(|kind| ingested.bind(&[KeyValue::new("kind", kind.name())])),
            duplicates: counter(
                "linnet_clicks_duplicate_batches",
                "Batches that came again and changed nothing",
            ),
            dead_letters: counter(
                "linnet_clicks_dead_letters",
                "Batches that could not be written and went to the dead letters",
            ),
            dead_letter_clicks: counter(
                "linnet_clicks_dead_letter_clicks",
                "Clicks of the batches that went to the dead letters",
            ),
            retries: counter("linnet_clicks_ingest_retries", "Groups that were tried again"),
            claimed: counter(
                "linnet_clicks_claimed_batches",
                "Batches taken over from another worker",
            ),
            group_size: meter
                .f64_histogram("linnet_clicks_ingest_group_size")
                .with_description("Clicks written in one transaction")
                .with_boundaries(GROUP_SIZES.to_vec())
                .build()
                .bind(&[]),
            duration: metrics::latency_histogram(
                meter,
                "linnet_clicks_ingest_duration",
                "Time to write and acknowledge a group of batches",
            )
            .bind(&[]),
        }
    }

    /// Counts clicks of one kind.
    pub fn count(&self, kind: ClickKind, clicks: u64) {
        if let Some(counter) = self.ingested.get(kind as usize) {
            counter.add(clicks);
        }
    }
}
