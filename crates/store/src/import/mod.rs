//! Rows by the chunk: users, links and events from files.
//!
//! A chunk is a few statements over arrays: what breaks no rule is written, and what was left out is
//! told row by row. The sequences are moved past explicit ids, and never back, or the next row made
//! through the API would collide.

mod events;
mod links;
mod users;

use futures::future::BoxFuture;
use sqlx::PgConnection;

use linnet_domain::{OnConflict, RowProblem, Visibility};

use super::StoreError;

pub use events::ImportEvent;
pub use links::{GivenLinkFields, ImportLink};
pub use users::ImportUser;

/// What is to become of the rows.
#[derive(Debug, Clone, Copy)]
pub struct WriteOptions {
    /// Of those that are there already.
    pub on_conflict: OnConflict,
    /// Whose rows may be changed.
    pub visible_to: Visibility,
    /// Whether all of it is rolled back. Sequences are not, so they are left alone.
    pub dry_run: bool,
}

/// What became of a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RowOutcome {
    /// It is in the table.
    Written,
    /// It was there already, and was passed over as asked.
    Skipped,
    /// It is not what a row must be.
    Bad(RowProblem),
}

impl RowOutcome {
    fn bad(column: &str, code: &str, message: &str) -> Self {
        Self::Bad(RowProblem {
            column: column.to_owned(),
            code: code.to_owned(),
            message: message.to_owned(),
        })
    }

    fn taken(options: &WriteOptions, column: &str, message: &str) -> Self {
        match options.on_conflict {
            OnConflict::Skip => Self::Skipped,
            OnConflict::Fail | OnConflict::Update => Self::bad(column, "taken", message),
        }
    }
}

/// A chunk that is being written. In a box, which costs nothing beside the statements: what the
/// compiler must know of the whole future takes it half a minute otherwise.
pub type WriteFuture<'a> = BoxFuture<'a, Result<Vec<RowOutcome>, StoreError>>;

/// A kind of row that can be written by the chunk.
pub trait WriteRows: Sized + Send + Sync + 'static {
    /// Writes rows within a transaction, and tells of each what became of it, in order.
    fn write<'a>(
        connection: &'a mut PgConnection,
        rows: &'a [&'a Self],
        options: &'a WriteOptions,
    ) -> WriteFuture<'a>;

    /// The code that caches may hold to be absent, if rows of this kind have one.
    fn code(&self) -> Option<&str> {
        None
    }
}

/// One column of the rows.
fn column<R, T>(rows: &[&R], of: impl Fn(&R) -> T) -> Vec<T> {
    rows.iter().map(|row| of(row)).collect()
}

/// The next `count` numbers of a sequence.
async fn next_ids<I: TryFrom<i64>>(
    connection: &mut PgConnection,
    sequence: &str,
    count: usize,
) -> Result<Vec<I>, StoreError> {
    if count == 0 {
        return Ok(Vec::new());
    }
    let count = i32::try_from(count).unwrap_or(i32::MAX);
    let numbers = sqlx::query_scalar!(
        r#"SELECT nextval($1::text::regclass) AS "id!" FROM generate_series(1, $2)"#,
        sequence,
        count
    )
    .fetch_all(connection)
    .await?;
    numbers.into_iter().map(|number| I::try_from(number).map_err(|_| no_id())).collect()
}

/// Each row's own id, or one of the sequence.
async fn ids_of<I: TryFrom<i64>>(
    connection: &mut PgConnection,
    sequence: &str,
    own: impl ExactSizeIterator<Item = Option<I>> + Clone,
) -> Result<Vec<I>, StoreError> {
    let missing = own.clone().filter(Option::is_none).count();
    let mut next = next_ids(connection, sequence, missing).await?.into_iter();
    own.map(|id| id.or_else(|| next.next()).ok_or_else(no_id)).collect()
}

/// The sequence has come to its end, or was set below 1.
fn no_id() -> StoreError {
    StoreError::Failed(sqlx::Error::RowNotFound)
}

/// Moves a sequence past ids that rows brought along.
async fn pass_ids(
    connection: &mut PgConnection,
    sequence: &str,
    own: impl Iterator<Item: Into<i64>>,
    options: &WriteOptions,
) -> Result<(), StoreError> {
    if let Some(highest) = own.map(Into::into).max().filter(|_| !options.dry_run) {
        // `nextval` of another session may come in between, which only leads further.
        sqlx::query!(
            "SELECT setval(seqrelid::regclass, $2) FROM pg_sequence
              WHERE seqrelid = $1::text::regclass
                AND COALESCE(pg_sequence_last_value(seqrelid), 0) < $2",
            sequence,
            highest
        )
        .fetch_optional(connection)
        .await?;
    }
    Ok(())
}
