//! Settings of maintenance, and section `links`.

use linnet_jobs::JobSettings;
use linnet_platform::settings::Problems;
use serde::{Deserialize, Serialize};

/// Section `links`: retention of links.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LinkSettings {
    /// Days after its expiry at which a link is deleted; 0 keeps expired links.
    pub delete_expired_after_days: u32,
    /// Days for which the code of a deleted or expired link is held for its owner; 0 frees it at once.
    pub hold_codes_days: u32,
    /// Time until clicks count against the limit of a link that had none before, in milliseconds. Clicks from before
    /// the limit reach the link's row in this time.
    pub limit_settle_ms: u32,
    /// Most links of one user; 0 is no quota.
    pub per_user: u32,
    /// Most events of one user; 0 is no quota.
    pub events_per_user: u32,
    /// Most bytes of targets and titles of one user's links; 0 is no quota.
    pub bytes_per_user: u64,
    /// Most bytes of details of one user's events; 0 is no quota.
    pub event_bytes_per_user: u64,
}

impl Default for LinkSettings {
    fn default() -> Self {
        Self {
            delete_expired_after_days: 90,
            hold_codes_days: 90,
            limit_settle_ms: 2_000,
            per_user: 1_000_000,
            // Each link has an event, so the same number would end with half as many links.
            events_per_user: 10_000_000,
            // 0.5 KiB for each of these links. With indexes, both take about three times as much of the disk.
            bytes_per_user: 512 * 1024 * 1024,
            event_bytes_per_user: 2 * 1024 * 1024 * 1024,
        }
    }
}

impl LinkSettings {
    /// Reports values out of range.
    pub fn validate(&self, problems: &mut Problems) {
        problems.require_within(
            "links.delete_expired_after_days",
            self.delete_expired_after_days,
            0..=36_500,
        );
        problems.require_within("links.hold_codes_days", self.hold_codes_days, 0..=36_500);
        problems.require_within("links.limit_settle_ms", self.limit_settle_ms, 0..=10_000);
        for (key, value) in
            [("links.per_user", self.per_user), ("links.events_per_user", self.events_per_user)]
        {
            problems.require_within(key, value, 0..=1_000_000_000);
        }
        for (key, value) in [
            ("links.bytes_per_user", self.bytes_per_user),
            ("links.event_bytes_per_user", self.event_bytes_per_user),
        ] {
            problems.require_within(key, value, 0..=1 << 50);
        }
    }
}

/// The settings of maintenance tasks.
#[derive(Debug, Clone)]
pub struct MaintenanceSettings {
    /// Section `links`.
    pub links: LinkSettings,
    /// Section `jobs`.
    pub jobs: JobSettings,
    /// `clicks.retention_days`: retention of raw clicks.
    pub click_retention_days: u32,
}
