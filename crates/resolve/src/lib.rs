//! The way from a code to a redirect: L1 in the process, L2 in Redis, L3 in PostgreSQL.
//!
//! Invariants:
//! * An entry carries its row's version, and a lower version never replaces a higher one, neither in
//!   L2 (a script compares) nor in L1 (a fill that raced a change is dropped, see [`local`]).
//! * Every process stops serving an old answer within 1 s of a change. The change feed tells L1 in
//!   milliseconds; a cut feed empties L1 and shortens its entries' lives; changes that Redis could
//!   not be told of wait in PostgreSQL's outbox, and L2 is not used again before it has them.
//! * Concurrent misses of one code make one look-up.

mod entry;
mod hot;
mod in_flight;
mod invalidation;
mod l1;
mod l2;
pub mod listener;
mod metrics;
mod outbox;
mod resolver;
mod settings;
mod warmup;

pub use entry::{Answer, Entry, Redirect};
pub use hot::HotLinks;
pub use in_flight::{InFlightLookups, LookupError};
pub use invalidation::InvalidationPublisher;
pub use l1::L1Cache;
pub use l2::L2Cache;
pub use metrics::CacheMetrics;
pub use outbox::{Outbox, OutboxRelay};
pub use resolver::{Resolved, Resolver};
pub use settings::CacheSettings;
pub use warmup::warm_up;
