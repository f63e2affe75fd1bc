//! Bulk jobs: their kinds, states and reports.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{JobId, RowCells, UploadName, UserId};

/// The kind of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum JobKind {
    /// Imports users.
    ImportUsers,
    /// Imports links.
    ImportUrls,
}

/// The state of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum JobState {
    /// Waits for a worker: for its first attempt, or after a failed one.
    Queued,
    /// A worker runs it.
    Running,
    /// All rows are read; `rows_failed` counts the bad ones.
    Succeeded,
    /// The file could not be read to its end.
    Failed,
    /// A user cancelled it. Rows that were written before remain.
    Cancelled,
}

/// The treatment of a row whose code, id or e-mail address is taken.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnConflict {
    /// The row is reported as a bad row.
    #[default]
    Fail,
    /// The row is ignored and counted.
    Skip,
    /// The existing link or user gets the row's values, if the caller may change it.
    Update,
}

/// The format of an upload.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum RowFormat {
    /// RFC 4180 with a header line.
    Csv,
    /// One array of objects.
    Json,
    /// One object per line.
    NdJson,
}

/// The texts of an enum's variants, which the API and the database share.
macro_rules! text_of {
    ($type:ident { $($variant:ident = $text:literal),+ $(,)? }) => {
        impl $type {
            /// The text in the API and in the database.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text),+ }
            }

            /// The inverse of [`Self::as_str`].
            pub fn parse(text: &str) -> Option<Self> {
                match text { $($text => Some(Self::$variant),)+ _ => None }
            }
        }
    };
}

text_of!(JobKind { ImportUsers = "import_users", ImportUrls = "import_urls" });
text_of!(JobState {
    Queued = "queued",
    Running = "running",
    Succeeded = "succeeded",
    Failed = "failed",
    Cancelled = "cancelled",
});
text_of!(OnConflict { Fail = "fail", Skip = "skip", Update = "update" });
text_of!(RowFormat { Csv = "csv", Json = "json", NdJson = "ndjson" });

impl JobState {
    /// Whether the job waits for a worker or runs.
    pub fn is_active(self) -> bool {
        matches!(self, Self::Queued | Self::Running)
    }
}

/// A queue of jobs. Small jobs have their own lane, so that they do not wait for large jobs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lane {
    /// For small uploads.
    Small,
    /// For large uploads.
    Large,
}

impl Lane {
    /// The lane of a job with this [`NewJob::is_large`].
    pub fn of(is_large: bool) -> Self {
        if is_large { Self::Large } else { Self::Small }
    }
}

/// A job to create.
#[derive(Debug, Clone)]
pub struct NewJob {
    /// The kind.
    pub kind: JobKind,
    /// The owner.
    pub user_id: Option<UserId>,
    /// The public id of the key that creates the job, with which the job ends.
    pub key_id: Option<String>,
    /// Whether rows may contain ids and name any owner.
    pub by_admin: bool,
    /// The format of the upload.
    pub format: RowFormat,
    /// The treatment of rows that exist already.
    pub on_conflict: OnConflict,
    /// Whether rows are only checked.
    pub dry_run: bool,
    /// The name of the upload.
    pub upload: UploadName,
    /// The size of the file, in bytes.
    pub upload_bytes: i64,
    /// Whether it belongs to [`Lane::Large`].
    pub is_large: bool,
    /// The columns of the file.
    pub columns: Vec<String>,
    /// The columns that are ignored.
    pub unknown_columns: Vec<String>,
    /// The columns in which the word `null` clears the field.
    pub null_columns: Vec<String>,
}

/// The error of a job or of its last attempt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct JobError {
    /// A stable code for programs.
    pub code: String,
    /// A message for a person.
    pub message: String,
}

/// A bulk job.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct Job {
    /// The job's id.
    #[schema(value_type = i64)]
    pub id: JobId,
    /// The kind.
    pub kind: JobKind,
    /// The state.
    pub state: JobState,
    /// Whether it is in the dead-letter queue, because all its attempts failed.
    pub is_dead: bool,
    /// The owner.
    #[schema(value_type = Option<i64>, required)]
    pub user_id: Option<UserId>,
    /// The format of the upload.
    pub format: RowFormat,
    /// The treatment of rows that exist already.
    pub on_conflict: OnConflict,
    /// Whether rows are only checked.
    pub dry_run: bool,
    /// Size of the decompressed upload, in bytes.
    pub bytes: i64,
    /// Bytes that are processed: all of them when the job has succeeded.
    pub bytes_done: i64,
    /// Rows that are processed.
    pub rows_read: i64,
    /// Rows that were written, or in a dry run would have been.
    pub rows_written: i64,
    /// Rows that were ignored because they exist already.
    pub rows_skipped: i64,
    /// Bad rows.
    pub rows_failed: i64,
    /// Columns that were ignored.
    pub unknown_columns: Vec<String>,
    /// Attempts since the last progress.
    pub attempts: i32,
    /// The error of the job or of its last attempt.
    #[schema(required)]
    pub error: Option<JobError>,
    /// When it was created.
    pub created_at: DateTime<Utc>,
    /// When its first attempt began.
    #[schema(required)]
    pub started_at: Option<DateTime<Utc>>,
    /// When it finished.
    #[schema(required)]
    pub finished_at: Option<DateTime<Utc>>,
    /// The number of its latest event.
    #[serde(skip)]
    pub last_event: i64,
}

/// A filter for lists of jobs; a `None` field matches every job.
#[derive(Debug, Clone, Copy, Default)]
pub struct JobFilter {
    /// The state.
    pub state: Option<JobState>,
    /// The kind.
    pub kind: Option<JobKind>,
    /// Whether only jobs in the dead-letter queue match.
    pub only_dead: bool,
}

/// A problem with a value of a row.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RowProblem {
    /// The column; empty for a problem of the whole row.
    pub column: String,
    /// A stable code for programs.
    pub code: String,
    /// A message for a person.
    pub message: String,
}

/// A bad row of a job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct RowReport {
    /// The number among the job's events.
    pub event: i64,
    /// The line on which the row begins; a header is line 1.
    pub line: i64,
    /// The problems.
    pub errors: Vec<RowProblem>,
    /// The row as it was uploaded.
    #[schema(value_type = Vec<String>)]
    pub cells: RowCells,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queued_and_running_jobs_are_active() {
        for (state, is_active) in [
            (JobState::Queued, true),
            (JobState::Running, true),
            (JobState::Succeeded, false),
            (JobState::Failed, false),
            (JobState::Cancelled, false),
        ] {
            assert_eq!(state.is_active(), is_active, "{state:?}");
            assert_eq!(JobState::parse(state.as_str()), Some(state));
            assert_eq!(serde_json::to_value(state).unwrap(), state.as_str());
        }
        assert_eq!(JobState::parse("Queued"), None);
    }

    #[test]
    fn large_jobs_have_their_own_lane() {
        assert_eq!(Lane::of(false), Lane::Small);
        assert_eq!(Lane::of(true), Lane::Large);
    }

    #[test]
    fn texts_in_the_database_are_those_of_the_api() {
        for kind in [JobKind::ImportUsers, JobKind::ImportUrls] {
            assert_eq!(serde_json::to_value(kind).unwrap(), kind.as_str());
            assert_eq!(JobKind::parse(kind.as_str()), Some(kind));
        }
        for rule in [OnConflict::Fail, OnConflict::Skip, OnConflict::Update] {
            assert_eq!(serde_json::to_value(rule).unwrap(), rule.as_str());
            assert_eq!(OnConflict::parse(rule.as_str()), Some(rule));
        }
        for format in [RowFormat::Csv, RowFormat::Json, RowFormat::NdJson] {
            assert_eq!(serde_json::to_value(format).unwrap(), format.as_str());
            assert_eq!(RowFormat::parse(format.as_str()), Some(format));
        }
    }
}
