//! Bulk jobs.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{JobId, UserId};

/// What a job does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum JobKind {
    /// Makes users.
    ImportUsers,
    /// Makes links.
    ImportUrls,
}

/// Where a job stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum JobState {
    /// Waits for a worker, for the first time or after a failed attempt.
    Queued,
    /// A worker is at it.
    Running,
    /// All rows were read; `rows_failed` says how many of them were bad.
    Succeeded,
    /// It could not be read to its end.
    Failed,
    /// Somebody cancelled it. What was written until then stays.
    Cancelled,
}

/// What becomes of a row whose code, id or address is taken.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnConflict {
    /// The row is reported as a bad one, and the others go on.
    #[default]
    Fail,
    /// The row is passed over and counted.
    Skip,
    /// What is there is changed to what the row gives, as far as it may be changed by the caller.
    Update,
}

/// How the rows of an upload are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum RowFormat {
    /// RFC 4180 with a line of names.
    Csv,
    /// One array of objects.
    Json,
    /// An object a line.
    NdJson,
}

/// The texts that the database keeps, which are those of the API.
macro_rules! text_of {
    ($type:ident { $($variant:ident = $text:literal),+ $(,)? }) => {
        impl $type {
            /// As the API and the database write it.
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
    /// Whether a worker has, or will have, something to do.
    pub fn is_active(self) -> bool {
        matches!(self, Self::Queued | Self::Running)
    }
}

/// Which of two queues a job waits in, so that small ones are not stuck behind huge ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lane {
    /// Done in moments.
    Small,
    /// Takes its time.
    Large,
}

impl Lane {
    /// By [`NewJob::is_large`].
    pub fn of(is_large: bool) -> Self {
        if is_large { Self::Large } else { Self::Small }
    }
}

/// A job to make.
#[derive(Debug, Clone)]
pub struct NewJob {
    /// What it does.
    pub kind: JobKind,
    /// Whose it is.
    pub user_id: Option<UserId>,
    /// Whether its rows may name other owners, and ids.
    pub by_admin: bool,
    /// How its rows are written.
    pub format: RowFormat,
    /// What becomes of rows that are there already.
    pub on_conflict: OnConflict,
    /// Whether nothing is to be written.
    pub dry_run: bool,
    /// The file's name in the upload area.
    pub upload: String,
    /// The file's size.
    pub upload_bytes: i64,
    /// Whether it waits among the large ones.
    pub is_large: bool,
    /// The file's columns.
    pub columns: Vec<String>,
    /// Those of them that are passed over.
    pub unknown_columns: Vec<String>,
}

/// Why a job failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct JobError {
    /// Stable, for programs.
    pub code: String,
    /// For a person.
    pub message: String,
}

/// A job, as the API shows it.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct Job {
    /// Unique number.
    #[schema(value_type = i64)]
    pub id: JobId,
    /// What it does.
    pub kind: JobKind,
    /// Where it stands.
    pub state: JobState,
    /// Whether it is in the dead-letter queue: it failed as often as it may.
    pub is_dead: bool,
    /// Whose it is.
    #[schema(value_type = Option<i64>, required)]
    pub user_id: Option<UserId>,
    /// How its rows are written.
    pub format: RowFormat,
    /// What becomes of rows that are there already.
    pub on_conflict: OnConflict,
    /// Whether nothing is written.
    pub dry_run: bool,
    /// Size of the unpacked upload.
    pub bytes: i64,
    /// Bytes of it that are done.
    pub bytes_done: i64,
    /// Rows that are done.
    pub rows_read: i64,
    /// Rows that were written; in a dry run, that would have been.
    pub rows_written: i64,
    /// Rows that were passed over because they are there already.
    pub rows_skipped: i64,
    /// Rows that were bad.
    pub rows_failed: i64,
    /// Columns that were passed over.
    pub unknown_columns: Vec<String>,
    /// Attempts since the last progress.
    pub attempts: i32,
    /// Why it failed, or why its last attempt did.
    #[schema(required)]
    pub error: Option<JobError>,
    /// When it was made.
    pub created_at: DateTime<Utc>,
    /// When a worker first took it.
    #[schema(required)]
    pub started_at: Option<DateTime<Utc>>,
    /// When it came to its end.
    #[schema(required)]
    pub finished_at: Option<DateTime<Utc>>,
    /// Number of its latest event.
    #[serde(skip)]
    pub last_event: i64,
}

/// Which jobs are listed.
#[derive(Debug, Clone, Copy, Default)]
pub struct JobFilter {
    /// Those in this state.
    pub state: Option<JobState>,
    /// Those of this kind.
    pub kind: Option<JobKind>,
    /// Only those in the dead-letter queue.
    pub only_dead: bool,
}

/// What is wrong with one value of a row.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RowProblem {
    /// The column's name; empty for the row as a whole.
    pub column: String,
    /// Stable, for programs.
    pub code: String,
    /// For a person.
    pub message: String,
}

/// A bad row of a job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct RowReport {
    /// Its number among the job's events.
    pub event: i64,
    /// The line on which it begins; a header is on line 1.
    pub line: i64,
    /// What is wrong with it.
    pub errors: Vec<RowProblem>,
    /// The row as it came.
    pub cells: Vec<String>,
}
