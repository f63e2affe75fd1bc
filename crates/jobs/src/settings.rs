//! Section `jobs`.

use std::{path::PathBuf, time::Duration};

use linnet_platform::{backoff::doubled, settings::Problems};
use serde::{Deserialize, Serialize};

use linnet_store::{JobLimits, ReportLimits, UploadLimits};

/// Where new uploads are stored.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum UploadStore {
    /// In files of `jobs.upload_dir`, which all shorteners and workers share.
    #[default]
    Directory,
    /// In PostgreSQL.
    Postgres,
}

/// Section `jobs`: bulk jobs. Shorteners and workers must have the same values, and share
/// `upload_dir` if uploads are files.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct JobSettings {
    /// Where new uploads wait for their jobs.
    pub upload_store: UploadStore,
    /// The folder of uploads that are files.
    pub upload_dir: PathBuf,
    /// Bytes of all uploads in the database, compressed.
    pub upload_total_bytes: u64,
    /// Largest upload, compressed or decompressed, in bytes. nginx accepts at most 1 GiB.
    pub upload_bytes: u64,
    /// The maximum number of bytes of decompressed content for each byte of a compressed upload, in addition to 1 MiB.
    pub expansion: u64,
    /// Bytes of the decompressed uploads of one user's queued, running and dead jobs.
    pub bytes_per_user: u64,
    /// Space that uploads leave free on the disk of the upload area, in bytes.
    pub free_bytes: u64,
    /// The maximum number of concurrent uploads of one process.
    pub uploads: usize,
    /// The maximum number of concurrent uploads of one user in one process.
    pub uploads_per_user: usize,
    /// Minimum rate of an upload, in bytes per second, measured over 30 s.
    pub upload_min_bytes_per_s: u64,
    /// Largest upload of a small job, in bytes.
    pub small_bytes: u64,
    /// The maximum number of running jobs of one user.
    pub running_per_user: u32,
    /// The maximum number of queued and running jobs of one user.
    pub active_per_user: u32,
    /// The maximum number of queued and running jobs.
    pub active: u32,
    /// The maximum number of jobs of one user, finished ones included.
    pub kept_per_user: u32,
    /// Attempts without progress after which a job becomes a dead letter.
    pub max_attempts: u32,
    /// Wait before the second attempt, in milliseconds. It doubles with each further attempt.
    pub retry_ms: u64,
    /// Time after which a lease that is not renewed expires, in milliseconds.
    pub lease_ms: u64,
    /// The maximum number of rows of one transaction.
    pub chunk_rows: usize,
    /// Share of time in which a job writes while other processes wait for a processor, in percent.
    pub throttle_percent: u32,
    /// The maximum number of bad rows that are stored for one job. Further rows are only counted.
    pub row_errors: usize,
    /// Bytes of the bad rows that are stored for all jobs of one user.
    pub row_error_bytes_per_user: u64,
    /// Retention of ended jobs, in days.
    pub retention_days: u32,
}

impl Default for JobSettings {
    fn default() -> Self {
        Self {
            upload_store: UploadStore::Directory,
            upload_dir: "/var/lib/linnet/uploads".into(),
            upload_total_bytes: 4 * 1024 * 1024 * 1024,
            upload_bytes: 1024 * 1024 * 1024,
            expansion: 100,
            bytes_per_user: 2 * 1024 * 1024 * 1024,
            // More than PostgreSQL's `max_wal_size` on the same disk: 1 GB in containers, 2 GB natively.
            free_bytes: 2_560 * 1024 * 1024,
            uploads: 8,
            uploads_per_user: 2,
            upload_min_bytes_per_s: 1_024,
            small_bytes: 1024 * 1024,
            running_per_user: 2,
            active_per_user: 2_000,
            active: 20_000,
            kept_per_user: 10_000,
            max_attempts: 5,
            retry_ms: 1_000,
            lease_ms: 15_000,
            chunk_rows: 250,
            throttle_percent: 30,
            row_errors: 100_000,
            row_error_bytes_per_user: 256 * 1024 * 1024,
            retention_days: 30,
        }
    }
}

impl JobSettings {
    /// Reports values out of range.
    pub fn validate(&self, problems: &mut Problems) {
        let gib = 1024 * 1024 * 1024;
        let number = |count: usize| u64::try_from(count).unwrap_or(u64::MAX);
        for (key, value, min, max) in [
            ("jobs.upload_total_bytes", self.upload_total_bytes, 1_024, 1024 * 1024 * gib),
            ("jobs.upload_bytes", self.upload_bytes, 1_024, gib),
            ("jobs.expansion", self.expansion, 1, 100_000),
            ("jobs.bytes_per_user", self.bytes_per_user, 1_024, 1024 * gib),
            ("jobs.free_bytes", self.free_bytes, 0, 1024 * 1024 * gib),
            ("jobs.uploads", number(self.uploads), 1, 1_000),
            ("jobs.uploads_per_user", number(self.uploads_per_user), 1, 1_000),
            ("jobs.upload_min_bytes_per_s", self.upload_min_bytes_per_s, 1, 1_048_576),
            ("jobs.small_bytes", self.small_bytes, 0, gib),
            ("jobs.running_per_user", self.running_per_user.into(), 1, 1_000),
            ("jobs.active_per_user", self.active_per_user.into(), 1, 1_000_000),
            ("jobs.active", self.active.into(), 1, 1_000_000),
            ("jobs.kept_per_user", self.kept_per_user.into(), 1, 1_000_000),
            ("jobs.max_attempts", self.max_attempts.into(), 1, 1_000),
            ("jobs.retry_ms", self.retry_ms, 10, 3_600_000),
            ("jobs.lease_ms", self.lease_ms, 1_000, 3_600_000),
            ("jobs.chunk_rows", number(self.chunk_rows), 1, 20_000),
            ("jobs.throttle_percent", self.throttle_percent.into(), 1, 100),
            ("jobs.row_errors", number(self.row_errors), 0, 10_000_000),
            ("jobs.row_error_bytes_per_user", self.row_error_bytes_per_user, 0, 1024 * gib),
            ("jobs.retention_days", self.retention_days.into(), 1, 36_500),
        ] {
            problems.require_within(key, value, min..=max);
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

    /// The limits of jobs.
    pub fn limits(&self) -> JobLimits {
        JobLimits {
            all: self.active.into(),
            per_user: self.active_per_user.into(),
            bytes_per_user: i64::try_from(self.bytes_per_user).unwrap_or(i64::MAX),
            running_per_user: self.running_per_user.into(),
            kept_per_user: self.kept_per_user.into(),
        }
    }

    /// The limits of uploads in the database.
    pub fn upload_limits(&self) -> UploadLimits {
        let number = |bytes| i64::try_from(bytes).unwrap_or(i64::MAX);
        UploadLimits { all: number(self.upload_total_bytes), per_user: number(self.bytes_per_user) }
    }

    /// The limits of stored bad rows.
    pub fn report_limits(&self) -> ReportLimits {
        let bytes = i64::try_from(self.row_error_bytes_per_user).unwrap_or(i64::MAX);
        ReportLimits { per_job: self.row_errors, bytes_per_user: bytes }
    }

    /// Wait before the next attempt after this number of attempts, before jitter. At most 10 min.
    pub fn backoff(&self, attempts: u32) -> Duration {
        doubled(Duration::from_millis(self.retry_ms), attempts, Duration::from_mins(10))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backoff_doubles_up_to_ten_minutes() {
        let settings = JobSettings::default();
        let waits: Vec<u64> =
            [1, 2, 3, 4, 80].map(|attempts| settings.backoff(attempts).as_secs()).into();
        assert_eq!(waits, [1, 2, 4, 8, 600]);
    }

    #[test]
    fn sizes_have_their_documented_defaults() {
        let settings = JobSettings::default();
        let mib = |bytes: u64| bytes >> 20;
        assert_eq!(mib(settings.upload_total_bytes), 4_096);
        assert_eq!(mib(settings.upload_bytes), 1_024);
        assert_eq!(mib(settings.bytes_per_user), 2_048);
        assert_eq!(mib(settings.free_bytes), 2_560);
        assert_eq!(settings.small_bytes, 1 << 20);
        assert_eq!(mib(settings.row_error_bytes_per_user), 256);
        assert_eq!(settings.lease(), Duration::from_secs(15));
    }

    #[test]
    fn limits_are_those_of_the_settings() {
        let settings = JobSettings {
            active: 1,
            active_per_user: 2,
            bytes_per_user: 3,
            running_per_user: 4,
            kept_per_user: 5,
            row_errors: 6,
            row_error_bytes_per_user: 7,
            upload_total_bytes: 8,
            ..JobSettings::default()
        };
        let JobLimits { all, per_user, bytes_per_user, running_per_user, kept_per_user } =
            settings.limits();
        let limits = [all, per_user, bytes_per_user, running_per_user, kept_per_user];
        assert_eq!(limits, [1, 2, 3, 4, 5]);
        let ReportLimits { per_job, bytes_per_user } = settings.report_limits();
        assert_eq!((per_job, bytes_per_user), (6, 7));
        let UploadLimits { all, per_user } = settings.upload_limits();
        assert_eq!((all, per_user), (8, 3));
    }

    #[test]
    fn values_out_of_range_are_reported() {
        type Set = fn(&mut JobSettings, u64);
        fn to<N: TryFrom<u64, Error: std::fmt::Debug>>(value: u64) -> N {
            N::try_from(value).unwrap()
        }
        const GIB: u64 = 1 << 30;
        let ranges: [(&str, Set, u64, u64); 21] = [
            ("jobs.upload_total_bytes", |s, v| s.upload_total_bytes = v, 1_024, 1 << 50),
            ("jobs.upload_bytes", |s, v| s.upload_bytes = v, 1_024, GIB),
            ("jobs.expansion", |s, v| s.expansion = v, 1, 100_000),
            ("jobs.bytes_per_user", |s, v| s.bytes_per_user = v, 1_024, 1 << 40),
            ("jobs.free_bytes", |s, v| s.free_bytes = v, 0, 1 << 50),
            ("jobs.uploads", |s, v| s.uploads = to(v), 1, 1_000),
            ("jobs.uploads_per_user", |s, v| s.uploads_per_user = to(v), 1, 1_000),
            ("jobs.upload_min_bytes_per_s", |s, v| s.upload_min_bytes_per_s = v, 1, 1 << 20),
            ("jobs.small_bytes", |s, v| s.small_bytes = v, 0, GIB),
            ("jobs.running_per_user", |s, v| s.running_per_user = to(v), 1, 1_000),
            ("jobs.active_per_user", |s, v| s.active_per_user = to(v), 1, 1_000_000),
            ("jobs.active", |s, v| s.active = to(v), 1, 1_000_000),
            ("jobs.kept_per_user", |s, v| s.kept_per_user = to(v), 1, 1_000_000),
            ("jobs.max_attempts", |s, v| s.max_attempts = to(v), 1, 1_000),
            ("jobs.retry_ms", |s, v| s.retry_ms = v, 10, 3_600_000),
            ("jobs.lease_ms", |s, v| s.lease_ms = v, 1_000, 3_600_000),
            ("jobs.chunk_rows", |s, v| s.chunk_rows = to(v), 1, 20_000),
            ("jobs.throttle_percent", |s, v| s.throttle_percent = to(v), 1, 100),
            ("jobs.row_errors", |s, v| s.row_errors = to(v), 0, 10_000_000),
            ("jobs.row_error_bytes_per_user", |s, v| s.row_error_bytes_per_user = v, 0, 1 << 40),
            ("jobs.retention_days", |s, v| s.retention_days = to(v), 1, 36_500),
        ];
        let problems = |set: Set, value| {
            let mut settings = JobSettings::default();
            set(&mut settings, value);
            let mut problems = Problems::default();
            settings.validate(&mut problems);
            problems.keys().map(str::to_owned).collect::<Vec<_>>()
        };
        for (key, set, min, max) in ranges {
            for valid in [min, max] {
                assert!(problems(set, valid).is_empty(), "{key} = {valid}");
            }
            for invalid in min.checked_sub(1).into_iter().chain([max + 1]) {
                assert_eq!(problems(set, invalid), [key], "{invalid}");
            }
        }
        let relative: Set = |settings, _| settings.upload_dir = "uploads".into();
        assert_eq!(problems(relative, 0), ["jobs.upload_dir"]);
    }
}
