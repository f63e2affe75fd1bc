//! Clicks: from the stream into PostgreSQL, in the worker process, which does the [`linnet_worker::maintenance`] too.
//!
//! * Workers share a consumer group, and a worker has several consumers: while one waits for PostgreSQL
//!   the next prepares its group. Each takes a group of batches, turns it into rows and roll-ups,
//!   writes each shard of it in one transaction together with the batches' ids, and only then
//!   acknowledges. A shard of a batch that comes again (a worker died, an answer was lost) is known by
//!   the batch's id and changes nothing.
//! * While PostgreSQL is away the group is kept and tried again, and nothing more is taken: what comes
//!   waits in the stream, then in the spools, and never in a redirect.
//! * A batch that cannot be read, or whose rows PostgreSQL refuses, goes to a stream of dead letters,
//!   and the rest goes on. A schema or a permission that is wrong is nobody's batch: clicks wait.
//! * What another consumer has held for too long is taken over.

mod group;
mod links;
mod metrics;
mod reader;
mod settings;
mod values;
mod visitors;
pub mod watch;
mod writer;

pub use group::Pace;
pub use metrics::IngestMetrics;
pub use reader::{Ingester, connect};
pub use settings::WorkerSettings;
pub use visitors::forget_visitors;
pub use writer::IngestError;
pub use writer::{Knowledge, Writer};
