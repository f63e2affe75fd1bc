//! Reports of bad rows.

use crate::observe::observe_query;
use sqlx::{PgConnection, types::Json};

use linnet_domain::{JobId, RowProblem, RowReport};

use super::super::{Store, StoreError, columns::column};

impl Store {
    /// Up to `limit` reports of a job with numbers above `after`, in the order of numbers. Skips the first `offset`.
    pub async fn job_reports(
        &self,
        job_id: JobId,
        after: i64,
        limit: i64,
        offset: i64,
    ) -> Result<Vec<RowReport>, StoreError> {
        let query = sqlx::query!(
            r#"SELECT event, line, errors AS "errors: Json<Vec<RowProblem>>",
                      cells AS "cells: Json<Vec<String>>"
                 FROM job_row_errors WHERE job_id = $1 AND event > $2 ORDER BY event LIMIT $3 OFFSET $4"#,
            job_id.get(),
            after,
            limit,
            offset
        );
        let rows = observe_query("job_reports", query.fetch_all(&self.pool)).await?;
        let reports = rows.into_iter().map(|row| RowReport {
            event: row.event,
            line: row.line,
            errors: row.errors.0,
            cells: row.cells.0,
        });
        Ok(reports.collect())
    }

    /// The columns of a job's upload.
    pub async fn job_columns(&self, job_id: JobId) -> Result<Vec<String>, StoreError> {
        let query = sqlx::query_scalar!("SELECT columns FROM jobs WHERE id = $1", job_id.get());
        let columns = observe_query("job_columns", query.fetch_optional(&self.pool)).await?;
        Ok(columns.unwrap_or_default())
    }
}

/// Inserts reports of one job.
pub(super) async fn insert_reports(
    connection: &mut PgConnection,
    job_id: JobId,
    reports: &[RowReport],
) -> Result<(), StoreError> {
    sqlx::query!(
        "INSERT INTO job_row_errors (job_id, event, line, errors, cells)
         SELECT $1, * FROM UNNEST($2::bigint[], $3::bigint[], $4::jsonb[], $5::jsonb[])",
        job_id.get(),
        &column(reports, |report| report.event),
        &column(reports, |report| report.line),
        &column(reports, |report| serde_json::json!(report.errors)),
        &column(reports, |report| serde_json::json!(report.cells))
    )
    .execute(connection)
    .await?;
    Ok(())
}
