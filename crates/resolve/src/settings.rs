//! Section `cache`.

use std::time::Duration;

use linnet_platform::settings::Problems;
use serde::{Deserialize, Serialize};

/// Section `cache`: sizes and TTLs of L1 and L2.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CacheSettings {
    /// Size of L1, in bytes.
    pub l1_bytes: u64,
    /// Negative entries in L1. They are bounded apart from links, so random codes evict no link.
    pub l1_negative_entries: usize,
    /// TTL of a link in L1, in milliseconds, ± 10 %. While the invalidation bus is stale it is at most
    /// 900 ms.
    pub l1_ttl_ms: u64,
    /// TTL of a negative entry in L1, in milliseconds.
    pub l1_negative_ttl_ms: u64,
    /// TTL of a link in L2, in seconds, ± 10 %.
    pub l2_ttl_s: u64,
    /// TTL of a negative entry in L2, in seconds.
    pub l2_negative_ttl_s: u64,
    /// Links to load into L1 at start, most clicked first; 0 disables the warm-up.
    pub warmup_links: u32,
    /// Longest warm-up, in milliseconds. The process is not ready before it ends.
    pub warmup_ms: u64,
}

impl Default for CacheSettings {
    fn default() -> Self {
        Self {
            l1_bytes: 32 * 1024 * 1024,
            l1_negative_entries: 20_000,
            l1_ttl_ms: 600_000,
            l1_negative_ttl_ms: 5_000,
            l2_ttl_s: 24 * 3_600,
            l2_negative_ttl_s: 60,
            warmup_links: 20_000,
            warmup_ms: 1_500,
        }
    }
}

impl CacheSettings {
    /// Checks the ranges.
    pub fn validate(&self, problems: &mut Problems) {
        problems.require(
            self.l1_bytes >= 1024 * 1024,
            "cache.l1_bytes",
            "must be at least 1048576 (1 MiB)",
        );
        problems.require(
            self.l1_negative_entries >= 100,
            "cache.l1_negative_entries",
            "must be at least 100",
        );
        for (key, value, max) in [
            ("cache.l1_ttl_ms", self.l1_ttl_ms, 3_600_000),
            ("cache.l1_negative_ttl_ms", self.l1_negative_ttl_ms, 60_000),
            ("cache.l2_ttl_s", self.l2_ttl_s, 30 * 24 * 3_600),
            ("cache.l2_negative_ttl_s", self.l2_negative_ttl_s, 3_600),
            ("cache.warmup_ms", self.warmup_ms, 60_000),
        ] {
            problems.require_within(key, value, 1..=max);
        }
    }

    /// [`Self::warmup_ms`] as a duration.
    pub fn warmup_time(&self) -> Duration {
        Duration::from_millis(self.warmup_ms)
    }
}
