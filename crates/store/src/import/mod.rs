//! Writing chunks of rows from files: users, links and events.
//!
//! * A chunk takes a few statements over arrays. Rows that violate no constraint are written; the others get an
//!   outcome.
//! * A chunk with explicit ids moves the sequence past them, and never back. Otherwise the next row that the API
//!   creates would get an id that is taken.

mod events;
mod links;
mod users;

use std::{collections::HashSet, hash::Hash};

use futures::future::BoxFuture;
use sqlx::PgConnection;

use linnet_domain::{OnConflict, RowProblem, Visibility};

use super::{Constraint, StoreError};

pub use events::ImportEvent;
pub use links::ImportLink;
pub use users::ImportUser;

/// How rows are written.
#[derive(Debug, Clone, Copy)]
pub struct WriteOptions {
    /// The treatment of rows that exist already.
    pub on_conflict: OnConflict,
    /// The existing rows that may be changed.
    pub visible_to: Visibility,
    /// Whether the caller rolls back. Sequences are not moved then, because a rollback does not affect them.
    pub dry_run: bool,
}

/// The outcome of a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RowOutcome {
    /// The row is written.
    Written,
    /// The row exists already and is ignored.
    Skipped,
    /// The row is bad.
    Bad(RowProblem),
}

impl RowOutcome {
    /// The outcome of a row that violates a constraint.
    fn violates(constraint: Constraint, options: &WriteOptions) -> Self {
        match constraint {
            Constraint::EmailTaken | Constraint::CodeTaken | Constraint::IdTaken
                if options.on_conflict == OnConflict::Skip =>
            {
                Self::Skipped
            }
            _ => Self::bad(constraint, constraint.message()),
        }
    }

    fn bad(constraint: Constraint, message: &str) -> Self {
        Self::Bad(RowProblem {
            column: constraint.field().to_owned(),
            code: constraint.code().to_owned(),
            message: message.to_owned(),
        })
    }
}

/// The result of writing a chunk. It is boxed, because compiling the unboxed future takes half a minute.
pub type WriteFuture<'a> = BoxFuture<'a, Result<Vec<RowOutcome>, StoreError>>;

/// A kind of row that is written in chunks.
pub trait WriteRows: Sized + Send + Sync + 'static {
    /// Writes rows in a transaction. Returns the outcome of each row, in order.
    fn write<'a>(
        connection: &'a mut PgConnection,
        rows: &'a [&'a Self],
        options: &'a WriteOptions,
    ) -> WriteFuture<'a>;

    /// The custom short code of a link, for which caches may have a negative entry.
    fn code(&self) -> Option<&str> {
        None
    }
}

/// The next `count` ids of a sequence.
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
        r#"SELECT nextval($1::text::regclass) AS "number!" FROM generate_series(1, $2)"#,
        sequence,
        count
    )
    .fetch_all(connection)
    .await?;
    numbers.into_iter().map(|number| I::try_from(number).map_err(|_| no_id())).collect()
}

/// The id of each row: its explicit id, or the next one of the sequence. The sequence is first moved past the explicit
/// ids, so that no row without an id, here or in a concurrent request, gets one of them.
async fn assign_ids<I: TryFrom<i64> + Into<i64> + Copy>(
    connection: &mut PgConnection,
    sequence: &str,
    explicit: impl ExactSizeIterator<Item = Option<I>> + Clone,
    options: &WriteOptions,
) -> Result<Vec<I>, StoreError> {
    let missing = explicit.clone().filter(Option::is_none).count();
    let highest = explicit.clone().flatten().map(Into::into).max();
    let next = if options.dry_run {
        ids_after(connection, sequence, highest, missing).await?
    } else {
        advance_sequence(connection, sequence, highest).await?;
        next_ids(connection, sequence, missing).await?
    };
    let mut next = next.into_iter();
    explicit.map(|id| id.or_else(|| next.next()).ok_or_else(no_id)).collect()
}

/// The sequence returned a number below 1 or too few numbers.
fn no_id() -> StoreError {
    StoreError::Failed(sqlx::Error::RowNotFound)
}

/// The `count` ids after the sequence and after `highest`, without taking them.
async fn ids_after<I: TryFrom<i64>>(
    connection: &mut PgConnection,
    sequence: &str,
    highest: Option<i64>,
    count: usize,
) -> Result<Vec<I>, StoreError> {
    if count == 0 {
        return Ok(Vec::new());
    }
    let last = sqlx::query_scalar!(
        r#"SELECT COALESCE(pg_sequence_last_value($1::text::regclass), 0) AS "last!""#,
        sequence
    )
    .fetch_one(connection)
    .await?;
    let after = last.max(highest.unwrap_or(0));
    (1..).take(count).map(|n| I::try_from(after + n).map_err(|_| no_id())).collect()
}

/// Moves a sequence past the highest explicit id.
async fn advance_sequence(
    connection: &mut PgConnection,
    sequence: &str,
    highest: Option<i64>,
) -> Result<(), StoreError> {
    if let Some(highest) = highest {
        // A concurrent `nextval` only moves the sequence further.
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

/// The rows that are not written. Of several rows with the same id, only the first is written.
fn unwritten<R, I: Eq + Hash>(
    rows: impl Iterator<Item = R>,
    id_of: impl Fn(&R) -> I,
    mut written: HashSet<I>,
) -> Vec<R> {
    rows.filter(|row| !written.remove(&id_of(row))).collect()
}
