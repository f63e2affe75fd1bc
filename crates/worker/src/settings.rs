//! Section `worker`.

use std::time::Duration;

use linnet_clicks::ingest::IngestSettings;
use linnet_platform::{listener::Address, settings::Problems};
use serde::{Deserialize, Serialize};

/// Section `worker`: the worker process and its click ingestion.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct WorkerSettings {
    /// Admin listener: metrics and health. `host:port` or `unix:/path`.
    pub admin_listen: Address,
    /// Memory of the worker, in bytes, which the other settings must fit. 0 uses the limit of its control
    /// group.
    pub memory_bytes: u64,
    /// Consumers of clicks, which prepare and write groups concurrently. Each needs two database connections.
    pub consumers: u32,
    /// The maximum number of batches that are written together. A batch has up to 1,000 clicks.
    pub group_batches: u32,
    /// Age at which another worker's pending batch is taken over, in milliseconds.
    pub claim_after_ms: u64,
    /// Longest statement of the worker, in milliseconds; the server cancels it then.
    pub statement_timeout_ms: u64,
}

impl Default for WorkerSettings {
    fn default() -> Self {
        Self {
            admin_listen: Address::Tcp("127.0.0.1:9083".into()),
            memory_bytes: 0,
            consumers: 2,
            group_batches: 24,
            claim_after_ms: 15_000,
            statement_timeout_ms: 30_000,
        }
    }
}

impl WorkerSettings {
    /// Reports values out of range.
    pub fn validate(&self, problems: &mut Problems) {
        problems.require_within("worker.consumers", self.consumers, 1..=8);
        problems.require_within("worker.group_batches", self.group_batches, 1..=1_000);
        problems.require_within("worker.claim_after_ms", self.claim_after_ms, 100..=3_600_000);
        let timeout_ms = self.statement_timeout_ms;
        problems.require_within("worker.statement_timeout_ms", timeout_ms, 100..=600_000);
    }

    pub(crate) fn ingest(&self) -> IngestSettings {
        IngestSettings {
            group_batches: self.group_batches,
            claim_after: Duration::from_millis(self.claim_after_ms),
        }
    }
}
