//! Section `jobs`.

use std::{path::PathBuf, time::Duration};

use linnet_platform::settings::Problems;
use serde::{Deserialize, Serialize};

use linnet_store::JobLimits;

/// Section `jobs`: bulk work. Shorteners and workers must agree on it, and share the upload area.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct JobSettings {
    /// Where uploads wait for their workers.
    pub upload_dir: PathBuf,
    /// Largest upload, packed or unpacked, in bytes. nginx takes no more than 1 GiB.
    pub upload_bytes: u64,
    /// Space of the upload area's disk that uploads leave free, in bytes.
    pub free_bytes: u64,
    /// Uploads that one process takes at a time.
    pub uploads: usize,
    /// Size up to which a job is a small one, in bytes.
    pub small_bytes: u64,
    /// Jobs of one user that run at a time.
    pub running_per_user: u32,
    /// Jobs of one user that wait or run.
    pub active_per_user: u32,
    /// Jobs that wait or run.
    pub active: u32,
    /// Attempts without progress after which a job is a dead letter.
    pub max_attempts: u32,
    /// Wait before the second attempt, in milliseconds; it doubles with each further one.
    pub retry_ms: u64,
    /// Without a sign of life for so long, a worker's jobs are taken over, in milliseconds.
    pub lease_ms: u64,
    /// Rows that are written in one transaction.
    pub chunk_rows: usize,
    /// Share of the time in which a job writes while others wait for a processor, in percent.
    pub throttle_percent: u32,
    /// Bad rows of one job that are kept; more are only counted.
    pub row_errors: usize,
    /// How long ended jobs are kept, in days.
    pub retention_days: u32,
}

impl Default for JobSettings {
    fn default() -> Self {
        Self {
            upload_dir: "/var/lib/linnet/uploads".into(),
            upload_bytes: 1024 * 1024 * 1024,
            free_bytes: 256 * 1024 * 1024,
            uploads: 8,
            small_bytes: 1024 * 1024,
            running_per_user: 2,
            active_per_user: 2_000,
            active: 20_000,
            max_attempts: 5,
            retry_ms: 1_000,
            lease_ms: 15_000,
            chunk_rows: 250,
            throttle_percent: 30,
            row_errors: 100_000,
            retention_days: 30,
        }
    }
}

impl JobSettings {
    /// Checks the ranges.
    pub fn validate(&self, problems: &mut Problems) {
        let gib = 1024 * 1024 * 1024;
        let number = |count: usize| u64::try_from(count).unwrap_or(u64::MAX);
        for (key, value, min, max) in [
            ("jobs.upload_bytes", self.upload_bytes, 1_024, gib),
            ("jobs.free_bytes", self.free_bytes, 0, 1024 * 1024 * gib),
            ("jobs.uploads", number(self.uploads), 1, 1_000),
            ("jobs.small_bytes", self.small_bytes, 0, gib),
            ("jobs.running_per_user", self.running_per_user.into(), 1, 1_000),
            ("jobs.active_per_user", self.active_per_user.into(), 1, 1_000_000),
            ("jobs.active", self.active.into(), 1, 1_000_000),
            ("jobs.max_attempts", self.max_attempts.into(), 1, 1_000),
            ("jobs.retry_ms", self.retry_ms, 10, 3_600_000),
            ("jobs.lease_ms", self.lease_ms, 1_000, 3_600_000),
            ("jobs.chunk_rows", number(self.chunk_rows), 1, 20_000),
            ("jobs.throttle_percent", self.throttle_percent.into(), 1, 100),
            ("jobs.row_errors", number(self.row_errors), 0, 10_000_000),
            ("jobs.retention_days", self.retention_days.into(), 1, 36_500),
        ] {
            let message = format!("must be {min} to {max}");
            problems.require((min..=max).contains(&value), key, &message);
        }
        problems.require(
            self.upload_dir.is_absolute(),
            "jobs.upload_dir",
            "must be an absolute path",
        );
    }

    /// [`Self::lease_ms`] as a duration.
    pub fn lease(&self) -> Duration {
        Duration::from_millis(self.lease_ms)
    }

    /// How many jobs may wait or run.
    pub fn limits(&self) -> JobLimits {
        JobLimits { all: self.active.into(), per_user: self.active_per_user.into() }
    }

    /// Longest wait before another attempt, after so many: exponential, to be jittered.
    pub fn backoff(&self, attempts: u32) -> Duration {
        const LONGEST: Duration = Duration::from_mins(10);
        let factor = 1_u64.checked_shl(attempts.saturating_sub(1)).unwrap_or(u64::MAX);
        Duration::from_millis(self.retry_ms.saturating_mul(factor)).min(LONGEST)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_ten_minutes() {
        let settings = JobSettings::default();
        let waits: Vec<u64> =
            [1, 2, 3, 4, 80].map(|attempts| settings.backoff(attempts).as_secs()).into();
        assert_eq!(waits, [1, 2, 4, 8, 600]);
    }
}
