//! Section `worker`.

use std::time::Duration;

use linnet_platform::{listener::Address, settings::Problems};
use serde::{Deserialize, Serialize};

/// Section `worker`: the process that writes clicks.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct WorkerSettings {
    /// Where metrics and health are asked for, `host:port` or `unix:/path`.
    pub admin_listen: Address,
    /// Groups that are prepared and written at the same time. Each takes two database connections.
    pub consumers: u32,
    /// Batches that are written together, at most. A batch has up to 1,000 clicks.
    pub group_batches: u32,
    /// What another worker has held for so long is taken over, in milliseconds.
    pub claim_after_ms: u64,
    /// The server ends a statement of the worker after this, in milliseconds.
    pub statement_timeout_ms: u64,
}

impl Default for WorkerSettings {
    fn default() -> Self {
        Self {
            admin_listen: Address::Tcp("127.0.0.1:9083".into()),
            consumers: 2,
            group_batches: 24,
            claim_after_ms: 15_000,
            statement_timeout_ms: 30_000,
        }
    }
}

impl WorkerSettings {
    /// Checks the ranges.
    pub fn validate(&self, problems: &mut Problems) {
        for (key, value, min, max) in [
            ("worker.consumers", self.consumers.into(), 1, 8),
            ("worker.group_batches", self.group_batches.into(), 1, 1_000),
            ("worker.claim_after_ms", self.claim_after_ms, 100, 3_600_000),
            ("worker.statement_timeout_ms", self.statement_timeout_ms, 100, 600_000),
        ] {
            let message = format!("must be {min} to {max}");
            problems.require((min..=max).contains(&value), key, &message);
        }
    }

    /// [`Self::claim_after_ms`] as a duration.
    pub fn claim_after(&self) -> Duration {
        Duration::from_millis(self.claim_after_ms)
    }
}
