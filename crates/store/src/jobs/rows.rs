//! Rows of `jobs`.

use chrono::{DateTime, Utc};

use linnet_domain::{Job, JobError, JobId, JobKind, JobState, OnConflict, RowFormat, UserId};

/// A job with its upload and lane.
pub(super) struct JobRow {
    pub(super) id: JobId,
    pub(super) kind: String,
    pub(super) state: String,
    pub(super) user_id: Option<UserId>,
    pub(super) format: String,
    pub(super) on_conflict: String,
    pub(super) dry_run: bool,
    pub(super) upload: String,
    pub(super) upload_bytes: i64,
    pub(super) announced_at: Option<DateTime<Utc>>,
    pub(super) resume_offset: i64,
    pub(super) rows_read: i64,
    pub(super) rows_written: i64,
    pub(super) rows_skipped: i64,
    pub(super) rows_failed: i64,
    pub(super) unknown_columns: Vec<String>,
    pub(super) attempts: i32,
    pub(super) error_code: Option<String>,
    pub(super) error_message: Option<String>,
    pub(super) dead_at: Option<DateTime<Utc>>,
    pub(super) last_event: i64,
    pub(super) created_at: DateTime<Utc>,
    pub(super) started_at: Option<DateTime<Utc>>,
    pub(super) finished_at: Option<DateTime<Utc>>,
}

/// `query_as!` for a [`JobRow`]: the query before the columns, the query after them, and the arguments.
macro_rules! job_query {
    ($before:literal, $after:literal $(, $argument:expr)* $(,)?) => {
        sqlx::query_as!(
            JobRow,
            $before + r#" id AS "id: JobId", kind, state, user_id AS "user_id: UserId", format,
                on_conflict, dry_run, upload, upload_bytes, announced_at, resume_offset, rows_read,
                rows_written, rows_skipped, rows_failed, unknown_columns, attempts, error_code,
                error_message, dead_at, last_event, created_at, started_at, finished_at "# + $after,
            $($argument),*
        )
    };
}
pub(super) use job_query;

impl From<JobRow> for Job {
    /// The schema allows only texts that can be parsed.
    fn from(row: JobRow) -> Self {
        let state = JobState::parse(&row.state).unwrap_or(JobState::Failed);
        Self {
            id: row.id,
            kind: JobKind::parse(&row.kind).unwrap_or(JobKind::ImportUrls),
            state,
            is_dead: row.dead_at.is_some(),
            user_id: row.user_id,
            format: RowFormat::parse(&row.format).unwrap_or(RowFormat::Csv),
            on_conflict: OnConflict::parse(&row.on_conflict).unwrap_or_default(),
            dry_run: row.dry_run,
            bytes: row.upload_bytes,
            // The end of a JSON array, for example, is in no chunk.
            bytes_done: if state == JobState::Succeeded {
                row.upload_bytes
            } else {
                row.resume_offset
            },
            rows_read: row.rows_read,
            rows_written: row.rows_written,
            rows_skipped: row.rows_skipped,
            rows_failed: row.rows_failed,
            unknown_columns: row.unknown_columns,
            attempts: row.attempts,
            error: row
                .error_code
                .zip(row.error_message)
                .map(|(code, message)| JobError { code, message }),
            created_at: row.created_at,
            started_at: row.started_at,
            finished_at: row.finished_at,
            last_event: row.last_event,
        }
    }
}
