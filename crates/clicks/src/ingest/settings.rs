//! Settings of ingestion.

use std::time::Duration;

/// The part of section `worker` that concerns ingestion.
#[derive(Debug, Clone)]
pub struct IngestSettings {
    /// Most batches that are written together.
    pub group_batches: u32,
    /// Age at which another consumer's pending batch is taken over.
    pub claim_after: Duration,
}
