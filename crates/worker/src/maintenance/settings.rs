//! Section `links`.

use linnet_jobs::JobSettings;
use linnet_platform::settings::Problems;
use serde::{Deserialize, Serialize};

/// Section `links`: how long links are kept.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LinkSettings {
    /// Links that expired more than so many days ago are deleted; 0 keeps them.
    pub delete_expired_after_days: u32,
}

impl Default for LinkSettings {
    fn default() -> Self {
        Self { delete_expired_after_days: 90 }
    }
}

impl LinkSettings {
    /// Checks the range.
    pub fn validate(&self, problems: &mut Problems) {
        problems.require(
            self.delete_expired_after_days <= 36_500,
            "links.delete_expired_after_days",
            "must be 0 to 36500",
        );
    }
}

/// What tasks need to know.
#[derive(Debug, Clone)]
pub struct MaintenanceSettings {
    /// Section `links`.
    pub links: LinkSettings,
    /// Section `jobs`.
    pub jobs: JobSettings,
    /// `clicks.retention_days`: how long raw clicks are kept.
    pub click_retention_days: u32,
}
