//! Resolves short codes: L1 in the process, L2 in Redis, then PostgreSQL.
//!
//! Invariants:
//! * A cache entry carries the version of its row, and a lower version never replaces a higher one: in
//!   L2 a script compares them, and L1 drops a fill that raced a change ([`L1Cache`]).
//! * Every process stops serving an old target within 1 s of a change. The invalidation bus reaches L1
//!   in milliseconds. A stale bus flushes L1 and caps its TTLs. A change that cannot be published waits
//!   in PostgreSQL's outbox, and L2 is not used again before the outbox is empty.
//! * Concurrent misses of one code share one lookup.

mod entry;
mod epochs;
mod hot;
mod in_flight;
mod invalidation;
mod l1;
mod l2;
mod l2_restart;
pub mod listener;
mod metrics;
mod outbox;
mod resolver;
mod settings;
mod warmup;

/// The atomics and locks of [`epochs`].
mod sync {
    pub(super) use std::sync::{
        Mutex, MutexGuard,
        atomic::{AtomicU64, Ordering},
    };
}

pub use entry::{Absence, CacheEntry, Redirect, Resolution};
pub use hot::{HotLinks, PLACES as HOT_LINKS};
pub use in_flight::{InFlightLookups, LookupError};
pub use invalidation::InvalidationPublisher;
pub use l1::L1Cache;
pub use l2::L2Cache;
pub use metrics::CacheMetrics;
pub use outbox::{Outbox, OutboxRelay};
pub use resolver::{Resolved, Resolver};
pub use settings::CacheSettings;
pub use warmup::warm_up;
