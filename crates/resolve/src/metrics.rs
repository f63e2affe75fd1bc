//! What the caches count.

use linnet_telemetry::metrics::{BoundCounter, KeyValue, Meter};

/// Look-ups by the tier that answered, and what went wrong on the way.
pub struct CacheMetrics {
    /// Answered by L1.
    pub local: BoundCounter<u64>,
    /// Answered by L2.
    pub shared: BoundCounter<u64>,
    /// Asked of PostgreSQL: one for each statement, also when it failed.
    pub database: BoundCounter<u64>,
    /// Shared the answer of a look-up that was under way.
    pub coalesced: BoundCounter<u64>,
    /// L2 was away or failed when it was asked.
    pub shared_errors: BoundCounter<u64>,
    /// Entries loaded at start.
    pub warmed: BoundCounter<u64>,
    /// Changes told from the outbox, because Redis could not be told at once.
    pub caught_up: BoundCounter<u64>,
}

impl CacheMetrics {
    /// Registers the instruments.
    pub fn new(meter: &Meter) -> Self {
        let lookups = meter
            .u64_counter("linnet_cache_lookups")
            .with_description("Look-ups of short codes by the tier that answered")
            .build();
        let tier = |tier: &'static str| lookups.bind(&[KeyValue::new("tier", tier)]);
        let counter = |name: &'static str, description: &'static str| {
            meter.u64_counter(name).with_description(description).build().bind(&[])
        };
        Self {
            local: tier("local"),
            shared: tier("shared"),
            database: tier("database"),
            coalesced: tier("coalesced"),
            shared_errors: counter(
                "linnet_cache_l2_errors",
                "Look-ups that went on without Redis because it was away or failed",
            ),
            warmed: counter(
                "linnet_cache_warmup_links",
                "Links loaded into the local cache at start",
            ),
            caught_up: counter(
                "linnet_outbox_relayed",
                "Changes told from the outbox after Redis had been away",
            ),
        }
    }
}
