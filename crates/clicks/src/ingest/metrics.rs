//! Metrics of ingestion.

use linnet_telemetry::metrics::{self, BoundCounter, BoundHistogram, KeyValue, Meter};

use linnet_domain::ClickKind;

/// Buckets of the clicks in a group.
const GROUP_SIZES: [f64; 8] = [1.0, 10.0, 100.0, 1_000.0, 5_000.0, 10_000.0, 25_000.0, 50_000.0];

/// The instruments of ingestion.
pub struct IngestMetrics {
    ingested: [BoundCounter<u64>; 4],
    /// Clicks of the link with the most clicks in each group. Its share of the written clicks reveals a hot link without
    /// a label that names it.
    pub(super) top_link: BoundCounter<u64>,
    /// Repeated batches that were already written.
    pub(super) duplicates: BoundCounter<u64>,
    /// Batches moved to the dead letters.
    pub(super) dead_letters: BoundCounter<u64>,
    /// Clicks in those batches, by their headers.
    pub(super) dead_letter_clicks: BoundCounter<u64>,
    /// Groups that failed and are retried.
    pub(super) retries: BoundCounter<u64>,
    /// Batches taken over from other consumers.
    pub(super) claimed: BoundCounter<u64>,
    /// Clicks in a group.
    pub(super) group_size: BoundHistogram<f64>,
    /// Time from reading a group to its acknowledgment, in seconds.
    pub(super) duration: BoundHistogram<f64>,
}

impl IngestMetrics {
    /// Registers the instruments. Counters start at 0, so `increase()` includes the first event.
    pub fn new(meter: &Meter) -> Self {
        let counter = |name: &'static str, description: &'static str| {
            let counter = meter.u64_counter(name).with_description(description).build().bind(&[]);
            // The exporter omits a series until a value is added.
            counter.add(0);
            counter
        };
        let ingested = meter
            .u64_counter("linnet_clicks_ingested")
            .with_description("Clicks written to PostgreSQL, by kind.")
            .build();
        Self {
            ingested: ClickKind::ALL
                .map(|kind| ingested.bind(&[KeyValue::new("kind", kind.name())])),
            top_link: counter(
                "linnet_clicks_top_link",
                "Clicks of the link with the most clicks in each group of batches.",
            ),
            duplicates: counter(
                "linnet_clicks_duplicate_batches",
                "Repeated batches that were already written.",
            ),
            dead_letters: counter(
                "linnet_clicks_dead_letters",
                "Batches moved to the stream of dead letters.",
            ),
            dead_letter_clicks: counter(
                "linnet_clicks_dead_letter_clicks",
                "Clicks in batches moved to the stream of dead letters.",
            ),
            retries: counter(
                "linnet_clicks_ingest_retries",
                "Retries of groups of batches that could not be written.",
            ),
            claimed: counter(
                "linnet_clicks_claimed_batches",
                "Batches taken over from other consumers.",
            ),
            group_size: meter
                .f64_histogram("linnet_clicks_ingest_group_size")
                .with_description("Clicks in a group of batches.")
                .with_boundaries(GROUP_SIZES.to_vec())
                .build()
                .bind(&[]),
            duration: metrics::latency_histogram(
                meter,
                "linnet_clicks_ingest_duration",
                "Time to write and acknowledge one group of batches, in seconds.",
            )
            .bind(&[]),
        }
    }

    /// Adds written clicks of one kind.
    pub(super) fn add_ingested(&self, kind: ClickKind, clicks: u64) {
        if let Some(counter) = self.ingested.get(kind as usize) {
            counter.add(clicks);
        }
    }
}
