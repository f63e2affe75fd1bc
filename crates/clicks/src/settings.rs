//! Section `clicks`.

use std::path::PathBuf;

use linnet_platform::settings::Problems;
use serde::{Deserialize, Serialize};

/// Section `clicks`: how clicks are recorded.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ClickSettings {
    /// Whether clicks are recorded. Limits (`max_clicks`) count in any case.
    pub enabled: bool,
    /// Interval between two flushes, in milliseconds: the clicks that a killed process loses.
    pub flush_ms: u64,
    /// Capacity of a server thread's buffer, in clicks. Further clicks are dropped and counted.
    pub buffer_clicks: u32,
    /// Size of the stream in Redis above which clicks go to the spool, in bytes.
    pub stream_bytes: u64,
    /// Folder of the spool. Processes may share it.
    pub spool_dir: PathBuf,
    /// Capacity of one process's spool, in bytes. Further clicks are dropped and counted.
    pub spool_bytes: u64,
    /// A `MaxMind` database (`.mmdb`) of countries; empty for none. Reloaded when it changes.
    pub country_file: PathBuf,
    /// Retention of raw clicks, in days. Roll-ups are kept.
    pub retention_days: u32,
}

impl Default for ClickSettings {
    fn default() -> Self {
        Self {
            enabled: true,
            flush_ms: 200,
            buffer_clicks: 20_000,
            stream_bytes: 64 * 1024 * 1024,
            spool_dir: "/var/lib/linnet/spool".into(),
            spool_bytes: 256 * 1024 * 1024,
            country_file: PathBuf::new(),
            retention_days: 90,
        }
    }
}

impl ClickSettings {
    /// Reports values out of range.
    pub fn validate(&self, problems: &mut Problems) {
        const MIB: u64 = 1024 * 1024;
        const TIB: u64 = MIB * MIB;
        problems.require_within("clicks.flush_ms", self.flush_ms, 10..=5_000);
        problems.require_within("clicks.buffer_clicks", self.buffer_clicks, 1_000..=1_000_000);
        problems.require_within("clicks.stream_bytes", self.stream_bytes, MIB..=TIB);
        problems.require_within("clicks.spool_bytes", self.spool_bytes, MIB..=TIB);
        problems.require_within("clicks.retention_days", self.retention_days, 1..=36_500);
        problems.require(
            !self.enabled || self.spool_dir.is_absolute(),
            "clicks.spool_dir",
            "must be an absolute path",
        );
        problems.require(
            self.country_file.as_os_str().is_empty() || self.country_file.is_file(),
            "clicks.country_file",
            "must be a file, or empty",
        );
    }
}
