//! Section `resolve`.

use std::time::Duration;

use linnet_platform::settings::Problems;
use serde::{Deserialize, Serialize};

/// Section `resolve`: how short codes are resolved.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ResolveSettings {
    /// Longest database lookup, in milliseconds.
    pub database_timeout_ms: u64,
    /// Lookups that may be in flight in one process; beyond it the response is 503.
    pub max_in_flight_lookups: usize,
    /// Misses of one client a minute before it gets 429.
    pub misses_per_minute: u32,
    /// Misses of one client that may come at once.
    pub misses_burst: u32,
    /// Longest time that a browser may cache a permanent redirect, in seconds.
    pub permanent_max_age_s: u32,
    /// Schemes of target URLs.
    #[serde(deserialize_with = "linnet_platform::settings::comma_list")]
    pub target_schemes: Vec<String>,
}

impl Default for ResolveSettings {
    fn default() -> Self {
        Self {
            database_timeout_ms: 1_500,
            max_in_flight_lookups: 4_096,
            misses_per_minute: 60,
            misses_burst: 60,
            permanent_max_age_s: 86_400,
            target_schemes: vec!["http".into(), "https".into()],
        }
    }
}

impl ResolveSettings {
    /// Schemes that run in the page or read files. No setting can allow them.
    const NEVER: [&str; 6] = ["javascript", "data", "vbscript", "file", "blob", "about"];

    /// Checks the ranges and the schemes.
    pub fn validate(&self, problems: &mut Problems) {
        problems.require_within(
            "resolve.database_timeout_ms",
            self.database_timeout_ms,
            1..=30_000,
        );
        for (key, ok) in [
            ("resolve.max_in_flight_lookups", self.max_in_flight_lookups > 0),
            ("resolve.misses_per_minute", self.misses_per_minute > 0),
            ("resolve.misses_burst", self.misses_burst > 0),
        ] {
            problems.require(ok, key, "must be at least 1");
        }
        let scheme_ok = |scheme: &String| {
            scheme.starts_with(|c: char| c.is_ascii_alphabetic())
                && scheme.bytes().all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(&b))
                && !Self::NEVER.contains(&scheme.to_ascii_lowercase().as_str())
        };
        problems.require(
            !self.target_schemes.is_empty() && self.target_schemes.iter().all(scheme_ok),
            "resolve.target_schemes",
            "must name schemes, none of them javascript, data, vbscript, file, blob or about",
        );
    }

    /// [`Self::database_timeout_ms`] as a duration.
    pub fn database_timeout(&self) -> Duration {
        Duration::from_millis(self.database_timeout_ms)
    }
}
