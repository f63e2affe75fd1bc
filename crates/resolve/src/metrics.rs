//! Metrics of the cache tiers.

use linnet_telemetry::metrics::{BoundCounter, KeyValue, Meter};

/// Lookups by tier, errors of L2, and the outbox relay.
pub struct CacheMetrics {
    /// Resolved from L1.
    pub local: BoundCounter<u64>,
    /// Resolved from L2.
    pub shared: BoundCounter<u64>,
    /// Statements sent to PostgreSQL, including failed ones.
    pub database: BoundCounter<u64>,
    /// Joined an in-flight lookup.
    pub coalesced: BoundCounter<u64>,
    /// Lookups that continued without L2.
    pub l2_errors: BoundCounter<u64>,
    /// Links loaded into L1 at start.
    pub warmup_links: BoundCounter<u64>,
    /// Changes published from the outbox.
    pub relayed: BoundCounter<u64>,
    /// Connections to Redis that were not used, because the outbox was not relayed.
    pub refused_connections: BoundCounter<u64>,
}

impl CacheMetrics {
    /// Registers the instruments.
    pub fn new(meter: &Meter) -> Self {
        let lookups = meter
            .u64_counter("linnet_cache_lookups")
            .with_description("Lookups of short codes, by the tier that resolved them.")
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
            l2_errors: counter(
                "linnet_cache_l2_errors",
                "Lookups that continued without Redis because it was unreachable or failed.",
            ),
            warmup_links: counter("linnet_cache_warmup_links", "Links loaded into L1 at start."),
            relayed: counter(
                "linnet_outbox_relayed",
                "Changes published from the outbox, because they could not be published when they were made.",
            ),
            refused_connections: counter(
                "linnet_outbox_refused_connections",
                "New connections to Redis that were not used, because missed changes could not be published to it.",
            ),
        }
    }
}
