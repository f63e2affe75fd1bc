//! Metric names and messages that tests compare with the product's.
//!
//! * After a rename of a metric or message, one line changes here and none in the tests.
//! * Paths, fields, headers and problem codes are part of the API and remain in the tests.

/// `application_name` of the PostgreSQL sessions that run maintenance tasks.
pub const MAINTENANCE_SESSION: &str = "linnet-maintenance";

/// Metric names. The names of counters omit their suffix `_total`.
#[expect(missing_docs, reason = "each constant is named like its metric")]
pub mod metric {
    pub const CACHE_LOOKUPS: &str = "linnet_cache_lookups";
    pub const CACHE_WARMUP_LINKS: &str = "linnet_cache_warmup_links";
    pub const CLICKS_ACCEPTED: &str = "linnet_clicks_accepted";
    pub const CLICKS_CLAIMED_BATCHES: &str = "linnet_clicks_claimed_batches";
    pub const CLICKS_DEAD_LETTERS: &str = "linnet_clicks_dead_letters";
    pub const CLICKS_DROPPED: &str = "linnet_clicks_dropped";
    pub const CLICKS_DUPLICATE_BATCHES: &str = "linnet_clicks_duplicate_batches";
    pub const CLICKS_INGEST_RETRIES: &str = "linnet_clicks_ingest_retries";
    pub const CLICKS_INGESTED: &str = "linnet_clicks_ingested";
    pub const CLICKS_PUBLISHED: &str = "linnet_clicks_published";
    pub const CLICKS_SPOOL_BYTES: &str = "linnet_clicks_spool_bytes";
    pub const CLICKS_SPOOLED: &str = "linnet_clicks_spooled";
    pub const GATEWAY_LIMIT_FALLBACK: &str = "linnet_gateway_limit_fallback";
    pub const GATEWAY_LOCAL_LIMITS: &str = "linnet_gateway_local_limits";
    pub const GATEWAY_UPSTREAM_UP: &str = "linnet_gateway_upstream_up";
    pub const INVALIDATION_BUS_LIVE: &str = "linnet_invalidation_bus_live";
    pub const JOBS_FAILED_ATTEMPTS: &str = "linnet_jobs_failed_attempts";
    pub const JOBS_ROWS: &str = "linnet_jobs_rows";
    pub const MAINTENANCE_DURATION_SECONDS_COUNT: &str =
        "linnet_maintenance_duration_seconds_count";
    pub const MAINTENANCE_LAST_SUCCESS_TIMESTAMP_SECONDS: &str =
        "linnet_maintenance_last_success_timestamp_seconds";
    pub const MAINTENANCE_RUNS: &str = "linnet_maintenance_runs";
}

/// Messages of log lines.
pub mod log {
    /// A worker started an attempt of a job.
    pub const JOB_ATTEMPT_STARTED: &str = "job attempt started";
    /// Part of the error of a shortener that cannot use its spool.
    pub const SPOOL_UNUSABLE: &str = "spool unusable";
    /// The country file cannot be read.
    pub const COUNTRY_FILE_UNREADABLE: &str = "country file unreadable";
}

/// Messages of commands and errors of imported rows.
pub mod message {
    /// Part of the warning of `admin generate` without Redis.
    pub const VISITORS_UNCOUNTED: &str = "unique visitors will be 0";
    /// Part of the error of `admin run-task` while a worker runs the task.
    pub const TASK_RUNS_ELSEWHERE: &str = "runs in another process: since";
    /// Output of the task `idempotency-keys` when it deletes nothing.
    pub const IDEMPOTENCY_KEYS_0_DELETED: &str = "idempotency-keys: 0 response(s) deleted\n";
    /// Output of the task `expired-links` when it deletes nothing.
    pub const EXPIRED_LINKS_0_DELETED: &str = "expired-links: 0 link(s) deleted\n";
    /// Output of the task `expired-links` when it deletes one link.
    pub const EXPIRED_LINKS_1_DELETED: &str = "expired-links: 1 link(s) deleted\n";
    /// Row error for a target with another scheme.
    pub const TARGET_SCHEME: &str = "must begin with an allowed scheme, such as https://";

    /// Row error for a row with another number of fields than the header.
    pub fn field_count(fields: usize, columns: usize) -> String {
        format!("must have {columns} fields, not {fields}")
    }

    /// Part of the output of `admin generate` about generated rows.
    pub fn rows_generated(table: &str, rows: usize) -> String {
        format!("{table}: {rows} rows generated")
    }

    /// Part of the error of `admin jobs` for an unknown job.
    pub fn job_not_found(id: i64) -> String {
        format!("no job has the id {id}")
    }

    /// Part of the error of `admin jobs cancel` for a job that is cancelled already.
    pub fn job_is_cancelled(id: i64) -> String {
        format!("job {id} is cancelled")
    }
}
