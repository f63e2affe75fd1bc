//! Reports of bad rows.
//!
//! A row may have 1,000 cells, so a number of rows bounds no memory. Every query here also ends at a number of bytes.

use crate::observe::observe_query;
use sqlx::{PgConnection, types::Json};

use linnet_domain::{JobId, RowCells, RowProblem, RowReport};

use super::super::{Store, StoreError, columns::column};

/// The part of a job's reports that a query returns.
#[derive(Debug, Clone, Copy)]
pub struct ReportRange {
    /// Only reports with higher numbers are returned.
    pub after: i64,
    /// The maximum number of reports.
    pub limit: i64,
    /// The number of reports to skip.
    pub offset: i64,
    /// The maximum size of all reports, in bytes of their JSON text. The first report is returned in any case.
    pub bytes: i64,
}

/// Reports in the order of numbers.
#[derive(Debug)]
pub struct ReportPage {
    /// The reports.
    pub reports: Vec<RowReport>,
    /// Whether the page ends before [`ReportRange::limit`] because of [`ReportRange::bytes`].
    pub is_cut: bool,
}

/// The problems of a bad row, without its cells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RowErrors {
    /// The number among the job's events.
    pub event: i64,
    /// The line on which the row begins.
    pub line: i64,
    /// The problems.
    pub errors: Vec<RowProblem>,
}

impl Store {
    /// Reports of a job, in the order of numbers.
    pub async fn job_reports(
        &self,
        job_id: JobId,
        range: ReportRange,
    ) -> Result<ReportPage, StoreError> {
        let query = sqlx::query!(
            r#"WITH page AS (
                 SELECT event, line, errors, cells::text AS cells
                   FROM job_row_errors WHERE job_id = $1 AND event > $2
                  ORDER BY event LIMIT $3 OFFSET $4
               ), sized AS (
                 SELECT *, count(*) OVER () AS rows, row_number() OVER (ORDER BY event) AS number,
                        sum(octet_length(cells) + octet_length(errors::text)) OVER (ORDER BY event)
                          AS bytes
                   FROM page
               )
               SELECT event, line, errors AS "errors: Json<Vec<RowProblem>>", cells AS "cells!",
                      rows AS "rows!"
                 FROM sized WHERE bytes <= $5::bigint OR number = 1 ORDER BY event"#,
            job_id.get(),
            range.after,
            range.limit,
            range.offset,
            range.bytes
        );
        let rows = observe_query("job_reports", query.fetch_all(&self.pool)).await?;
        let whole = rows.first().map_or(0, |row| row.rows);
        let is_cut = i64::try_from(rows.len()).is_ok_and(|count| count < whole);
        let reports = rows.into_iter().map(|row| RowReport {
            event: row.event,
            line: row.line,
            errors: row.errors.0,
            cells: RowCells::from_json(row.cells),
        });
        Ok(ReportPage { reports: reports.collect(), is_cut })
    }

    /// The problems of a job's bad rows with numbers above `after`, in the order of numbers: up to `limit` rows with
    /// `bytes` bytes of JSON text together, and at least one row.
    pub async fn job_row_errors(
        &self,
        job_id: JobId,
        after: i64,
        limit: i64,
        bytes: i64,
    ) -> Result<Vec<RowErrors>, StoreError> {
        let query = sqlx::query!(
            r#"SELECT event, line, errors AS "errors: Json<Vec<RowProblem>>" FROM (
                 SELECT *, row_number() OVER (ORDER BY event) AS number,
                        sum(octet_length(errors::text)) OVER (ORDER BY event) AS bytes
                   FROM (SELECT event, line, errors FROM job_row_errors
                          WHERE job_id = $1 AND event > $2 ORDER BY event LIMIT $3) AS page
               ) AS sized WHERE bytes <= $4::bigint OR number = 1 ORDER BY event"#,
            job_id.get(),
            after,
            limit,
            bytes
        );
        let rows = observe_query("job_row_errors", query.fetch_all(&self.pool)).await?;
        let errors = rows.into_iter().map(|row| RowErrors {
            event: row.event,
            line: row.line,
            errors: row.errors.0,
        });
        Ok(errors.collect())
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
    let cells: Vec<&str> = reports.iter().map(|report| report.cells.as_json()).collect();
    sqlx::query!(
        "INSERT INTO job_row_errors (job_id, event, line, errors, cells)
         SELECT $1, event, line, errors, cells::jsonb
           FROM UNNEST($2::bigint[], $3::bigint[], $4::jsonb[], $5::text[])
             AS report (event, line, errors, cells)",
        job_id.get(),
        &column(reports, |report| report.event),
        &column(reports, |report| report.line),
        &column(reports, |report| serde_json::json!(report.errors)),
        &cells as &[&str]
    )
    .execute(connection)
    .await?;
    Ok(())
}
