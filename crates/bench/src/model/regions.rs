//! Longest staleness across regions, as sums of the cache protocol's constants and round-trip times.
//!
//! PostgreSQL's primary and the central bus are in the home region. Another region has its own Redis (L2 and bus) and a
//! **relay**, which subscribes to the central bus and publishes each invalidation in its region. A process's heartbeat
//! travels through the region's Redis, the relay and the central bus, and back: a returned heartbeat proves, as in one
//! region, that every earlier invalidation has arrived.

/// Interval of heartbeats.
pub const HEARTBEAT_MS: f64 = 150.0;
/// Age of the last returned heartbeat at which the bus is stale.
pub const STALE_MS: f64 = 500.0;
/// Longest life of an L1 entry while the bus is stale.
pub const LIFE_MS: f64 = 900.0;
/// The same for an entry from L2.
pub const LIFE_FROM_L2_MS: f64 = 500.0;
/// Age at which the outbox relay publishes a row.
pub const OUTBOX_AGE_MS: f64 = 150.0;
/// Longest interval between two polls of the outbox.
pub const OUTBOX_POLL_MS: f64 = 200.0;
/// The bound that the documents promise.
pub const BOUND_MS: f64 = 1_000.0;

/// Longest times after a commit until no process of a region uses the old target, in milliseconds. Each is without the
/// time of processing.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Staleness {
    /// No fault: the change is published after its commit.
    pub published_ms: f64,
    /// The process that made the change died before it could publish: the outbox relay of the home region publishes.
    pub relayed_ms: f64,
    /// The region is cut off at the worst moment: the bus becomes stale, then entries end.
    pub cut_off_ms: f64,
    /// A lookup that misses L1 and L2 waits for PostgreSQL this long.
    pub lookup_ms: f64,
    /// Part of the time in which L1 may be used for its normal life: 0 if heartbeats return too late.
    pub bus_is_live: bool,
}

impl Staleness {
    /// The longest of all cases.
    pub fn longest_ms(&self) -> f64 {
        self.published_ms.max(self.relayed_ms).max(self.cut_off_ms)
    }
}

/// For a region at `here_ms` from the home region and a writer in the region at `writer_ms`; both are round-trip times.
///
/// The writer learns of its commit after half its round trip and publishes to the central bus with another half. If that
/// takes longer, the outbox relay of the home region publishes first.
pub fn staleness(here_ms: f64, writer_ms: f64) -> Staleness {
    let one_way = here_ms / 2.0;
    let sent = writer_ms.min(OUTBOX_AGE_MS + OUTBOX_POLL_MS);
    Staleness {
        published_ms: sent + one_way,
        relayed_ms: OUTBOX_AGE_MS + OUTBOX_POLL_MS + one_way,
        // A heartbeat that returned passed the central bus before the change did, so it was sent before.
        cut_off_ms: (sent + STALE_MS).max(LIFE_MS),
        lookup_ms: here_ms,
        bus_is_live: here_ms + HEARTBEAT_MS < STALE_MS,
    }
}

/// The longest round-trip time of all regions for which the bound holds and L1 keeps its normal life, in milliseconds.
pub fn longest_round_trip_ms() -> f64 {
    let holds = |round_trip: f64| {
        let staleness = staleness(round_trip, round_trip);
        staleness.longest_ms() <= BOUND_MS && staleness.bus_is_live
    };
    (1..1_000).map(f64::from).take_while(|&round_trip| holds(round_trip)).last().unwrap_or(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn constants_are_those_of_the_table_in_architecture() {
        let text = include_str!("../../../../docs/ARCHITECTURE.md");
        for (what, value) in [
            ("heartbeat interval of the invalidation bus", HEARTBEAT_MS),
            ("heartbeat age at which the bus is stale", STALE_MS),
            ("longest life of an L1 entry while the bus is stale", LIFE_MS),
            ("the same for an entry that was read from L2", LIFE_FROM_L2_MS),
            ("longest interval between two polls of the outbox", OUTBOX_POLL_MS),
            ("age at which the relay publishes an outbox row", OUTBOX_AGE_MS),
        ] {
            assert!(text.contains(&format!("| {what} | {value} ms |")), "{what}: {value} ms");
        }
    }

    #[test]
    fn one_region_has_the_bound_of_architecture() {
        let staleness = staleness(0.0, 0.0);
        assert!((staleness.longest_ms() - LIFE_MS).abs() < f64::EPSILON);
        assert!(staleness.bus_is_live && staleness.relayed_ms <= 350.0);
    }

    #[test]
    fn a_distant_region_loses_its_cache_before_the_bound() {
        assert!(!staleness(400.0, 0.0).bus_is_live);
        let longest = longest_round_trip_ms();
        assert!((200.0..350.0).contains(&longest), "{longest}");
    }
}
