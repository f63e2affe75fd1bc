//! Names of streams, group and field in Redis.

/// The stream of batches. It has no expiry, so eviction (`volatile-lru`) does not touch it.
pub const STREAM: &str = "linnet:clicks";
/// The consumer group of the workers.
pub const GROUP: &str = "ingest";
/// The only field of an entry: the packed batch.
pub const FIELD: &str = "b";
/// The stream of batches that cannot be ingested, each with the reason.
pub const DEAD_LETTERS: &str = "linnet:clicks:dead";
