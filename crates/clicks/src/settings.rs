//! Section `clicks`.

use std::path::PathBuf;

use linnet_platform::settings::Problems;
use serde::{Deserialize, Serialize};

/// Section `clicks`: how clicks are recorded.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ClickSettings {
    /// Whether clicks are recorded at all. Limits (`max_clicks`) count in any case.
    pub enabled: bool,
    /// Longest time that a click waits in a process's memory, in milliseconds: what a process that is
    /// killed loses.
    pub flush_ms: u64,
    /// Clicks that one worker's buffer holds at most; beyond it they are dropped and counted.
    pub buffer_clicks: u32,
    /// Size of the stream in Redis beyond which clicks wait in the spool, in bytes.
    pub stream_bytes: u64,
    /// Where clicks wait while Redis does not take them. Processes may share it.
    pub spool_dir: PathBuf,
    /// Size of one process's spool, in bytes; beyond it clicks are dropped and counted.
    pub spool_bytes: u64,
    /// A `MaxMind` database (`.mmdb`) of countries; empty for none. Read again when it changes.
    pub country_file: PathBuf,
    /// How long raw clicks are kept, in days. Roll-ups stay.
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
    /// Checks the ranges.
    pub fn validate(&self, problems: &mut Problems) {
        for (key, value, min, max) in [
            ("clicks.flush_ms", self.flush_ms, 10, 5_000),
            ("clicks.buffer_clicks", self.buffer_clicks.into(), 1_000, 1_000_000),
            ("clicks.stream_bytes", self.stream_bytes, 1024 * 1024, 1024 * 1024 * 1024 * 1024),
            ("clicks.spool_bytes", self.spool_bytes, 1024 * 1024, 1024 * 1024 * 1024 * 1024),
            ("clicks.retention_days", self.retention_days.into(), 1, 36_500),
        ] {
            let message = format!("must be {min} to {max}");
            problems.require((min..=max).contains(&value), key, &message);
        }
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
