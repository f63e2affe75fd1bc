//! Settings of ingestion.

use std::time::Duration;

use super::{batch_enricher::CACHED_USER_AGENTS, link_directory, value_ids};

/// Bytes of a click in a group: packed, enriched, and in the arrays of the statement. Usual clicks need half of them.
const GROUPED_CLICK_BYTES: u64 = 400;
/// The maximum number of clicks of a batch.
const BATCH_CLICKS: u64 = 1_000;

/// Bytes of a consumer's group of batches.
pub fn group_bytes(batches: u32) -> u64 {
    u64::from(batches) * BATCH_CLICKS * GROUPED_CLICK_BYTES
}

/// Bytes of the cached ids of links and values, with up to 100 bytes for each.
pub const DIRECTORY_BYTES: u64 = (link_directory::CAPACITY + value_ids::CAPACITY) as u64 * 100;
/// Bytes of the cache of parsed user agents, each with its text and the names that it contains.
pub const USER_AGENT_CACHE_BYTES: u64 = CACHED_USER_AGENTS as u64 * 500;

/// The part of section `worker` that concerns ingestion.
#[derive(Debug, Clone)]
pub struct IngestSettings {
    /// The maximum number of batches that are written together.
    pub group_batches: u32,
    /// Age at which another consumer's pending batch is taken over.
    pub claim_after: Duration,
}
