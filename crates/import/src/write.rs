//! Writes one chunk into the database.

use sqlx::{Connection, PgConnection};

use linnet_domain::{RowCells, RowProblem};
use linnet_store::{RowOutcome, StoreError, WriteOptions};

use super::{
    chunks::{BadRow, Bounds, Chunk, fill_cells},
    rows::ImportRow,
};

/// The result of a chunk.
#[derive(Debug, Default)]
pub struct Written {
    /// Rows that were written.
    pub written: usize,
    /// Rows that existed and were skipped.
    pub skipped: usize,
    /// The bad rows, in the order of lines.
    pub bad: Vec<BadRow>,
    /// Short codes for which caches may have negative entries.
    pub codes: Vec<String>,
}

/// Writes a chunk within the connection's transaction. A dry run determines the same result and writes nothing.
pub async fn write_chunk<T: ImportRow>(
    connection: &mut PgConnection,
    chunk: &Chunk<T>,
    options: &WriteOptions,
    bounds: &Bounds,
) -> Result<Written, StoreError> {
    let rows: Vec<&T> = chunk.rows.iter().map(|(_, row)| row).collect();
    let mut attempt = connection.begin().await?;
    let outcomes = match T::write(&mut attempt, &rows, options).await {
        Ok(outcomes) if options.dry_run => {
            attempt.rollback().await?;
            outcomes
        }
        Ok(outcomes) => {
            attempt.commit().await?;
            outcomes
        }
        Err(error) if error.refuses_rows() => {
            attempt.rollback().await?;
            one_by_one(connection, &rows, options).await?
        }
        Err(error) => return Err(error),
    };
    let mut result = Written { bad: chunk.bad.clone(), ..Written::default() };
    for ((line, row), outcome) in chunk.rows.iter().zip(outcomes) {
        match outcome {
            RowOutcome::Written => {
                result.written += 1;
                result.codes.extend(row.code().map(ToOwned::to_owned));
            }
            RowOutcome::Skipped => result.skipped += 1,
            RowOutcome::Bad(problem) => {
                result.bad.push(BadRow { line: *line, problems: vec![problem], cells: RowCells::default() });
            }
        }
    }
    result.bad.sort_by_key(|row| row.line);
    if result.bad.iter().any(|row| row.cells.is_empty()) {
        let (bounds, start) = (bounds.clone(), chunk.start);
        let mut bad = std::mem::take(&mut result.bad);
        let filled = tokio::task::spawn_blocking(move || {
            let filled = fill_cells::<T>(&bounds, start, &mut bad);
            (bad, filled)
        });
        let (bad, filled) = filled.await.map_err(|_| sqlx::Error::WorkerCrashed)?;
        if let Err(error) = filled {
            // A bad row without its cells is still reported with its line.
            tracing::warn!(%error, "bad rows reported without their cells");
        }
        result.bad = bad;
    }
    Ok(result)
}

/// Writes each row separately, to find the row that violates a rule of the schema that validation does not check.
async fn one_by_one<T: ImportRow>(
    connection: &mut PgConnection,
    rows: &[&T],
    options: &WriteOptions,
) -> Result<Vec<RowOutcome>, StoreError> {
    let mut outcomes = Vec::with_capacity(rows.len());
    for row in rows {
        let mut attempt = connection.begin().await?;
        match T::write(&mut attempt, &[row], options).await {
            Ok(outcome) => {
                outcomes.extend(outcome);
                if options.dry_run { attempt.rollback().await? } else { attempt.commit().await? }
            }
            Err(error) if error.refuses_rows() => {
                attempt.rollback().await?;
                tracing::warn!(%error, "database refused a row");
                let (column, code, message) = match error {
                    StoreError::Conflict(rule) => (rule.field(), rule.code(), rule.message()),
                    _ => ("", "refused", "must satisfy the rules of the database"),
                };
                outcomes.push(RowOutcome::Bad(RowProblem {
                    column: column.to_owned(),
                    code: code.to_owned(),
                    message: message.to_owned(),
                }));
            }
            Err(error) => return Err(error),
        }
    }
    Ok(outcomes)
}
