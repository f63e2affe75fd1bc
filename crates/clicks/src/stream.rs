//! Names in Redis.

/// The stream of batches. It has no lifetime, so eviction (`volatile-lru`) does not touch it.
pub const STREAM: &str = "linnet:clicks";
/// The consumer group of the workers.
pub const GROUP: &str = "ingest";
/// The one field of an entry: the batch's bytes.
pub const FIELD: &str = "b";
/// Batches that cannot be ingested, with the reason.
pub const DEAD_LETTERS: &str = "linnet:clicks:dead";
