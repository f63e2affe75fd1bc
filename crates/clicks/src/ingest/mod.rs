//! The worker's end of the pipeline: from the stream to rows and roll-ups in PostgreSQL.
//!
//! - Workers share a consumer group. A worker has several consumers, so that one can prepare its group of batches while
//!   PostgreSQL writes the group of another.
//! - A transaction writes one shard or all shards of a group together with the batches' ids. The consumer acknowledges the
//!   batches after the commit. A batch whose id is already written is skipped.
//! - While PostgreSQL is unreachable, a consumer keeps its group, retries, and reads nothing more.
//! - A batch that cannot be decoded, or whose rows PostgreSQL rejects, goes to the stream of dead letters. An error that
//!   does not depend on the rows, such as a missing permission, makes all batches wait instead.
//! - A consumer takes over batches that another one has held for longer than `worker.claim_after_ms`.

mod batch_enricher;
mod group;
mod ingester;
mod link_directory;
mod metrics;
mod settings;
mod stream_monitor;
mod value_ids;
mod visitors;
mod writer;

pub use batch_enricher::{BatchEnricher, SharedBatchEnricher};
pub use group::WriteMode;
pub use ingester::{Ingester, connect};
pub use metrics::IngestMetrics;
pub use settings::{DIRECTORY_BYTES, IngestSettings, USER_AGENT_CACHE_BYTES, group_bytes};
pub use stream_monitor::StreamMonitor;
pub use visitors::delete_visitor_counts;
pub use writer::{IngestError, Writer};
