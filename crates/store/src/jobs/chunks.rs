//! Chunks: a worker writes the rows of a job in transactions that also record the progress.
//!
//! A [`ChunkTransaction`] first locks the job's row and checks that the job belongs to the worker. A worker that has
//! lost its job therefore writes nothing more.

use std::time::Duration;

use sqlx::{PgConnection, Postgres, Transaction};

use linnet_domain::{JobId, RowCells, RowProblem, RowReport};

use super::{
    super::{Store, StoreError},
    attempts::JobRun,
    key_end::cancel_jobs_of_ended_keys,
    reports::insert_reports,
};

/// A bad row: line, problems, and the cells as they were uploaded.
pub type BadRow = (i64, Vec<RowProblem>, RowCells);

/// The result of a chunk.
#[derive(Debug, Default)]
pub struct ChunkProgress {
    /// Bytes of the upload that are processed.
    pub offset: i64,
    /// The line after these bytes.
    pub line: i64,
    /// Rows that were written.
    pub written: i64,
    /// Rows that were ignored because they exist already.
    pub skipped: i64,
    /// The bad rows.
    pub bad: Vec<BadRow>,
    /// Ignored columns that are known so far.
    pub unknown_columns: Vec<String>,
    /// Whether this was the last chunk.
    pub is_last: bool,
}

/// Limits of the reports of bad rows. Further bad rows are only counted.
#[derive(Debug, Clone, Copy)]
pub struct ReportLimits {
    /// The maximum number of reports of one job.
    pub per_job: usize,
    /// The maximum size of the reports of all jobs of one owner, in bytes. Jobs without an owner share one limit.
    pub bytes_per_user: i64,
}

/// A transaction of the worker to which a job belongs.
#[derive(Debug)]
pub struct ChunkTransaction {
    transaction: Transaction<'static, Postgres>,
    job_id: JobId,
    last_event: i64,
    reached: (i64, i64),
    /// The number of reports that may still be stored.
    free_reports: usize,
    report_bytes_per_user: i64,
}

impl Store {
    /// Begins a chunk. `None` if the job no longer belongs to the worker. A job whose key has ended is cancelled.
    pub async fn begin_chunk(
        &self,
        run: &JobRun,
        limits: ReportLimits,
    ) -> Result<Option<ChunkTransaction>, StoreError> {
        let mut transaction = self.begin().await?;
        let row = sqlx::query!(
            r#"SELECT last_event, rows_failed, resume_offset, resume_line,
                    is_key_ended(key_id) AS "is_key_ended!" FROM jobs
              WHERE id = $1 AND worker = $2 AND state = 'running' FOR UPDATE"#,
            run.id.get(),
            run.worker
        )
        .fetch_optional(&mut *transaction)
        .await?;
        if row.as_ref().is_some_and(|row| row.is_key_ended) {
            cancel_jobs_of_ended_keys(&mut transaction).await?;
            transaction.commit().await?;
            return Ok(None);
        }
        Ok(row.map(|row| ChunkTransaction {
            transaction,
            job_id: run.id,
            last_event: row.last_event,
            reached: (row.resume_offset, row.resume_line),
            free_reports: limits
                .per_job
                .saturating_sub(usize::try_from(row.rows_failed).unwrap_or(0)),
            report_bytes_per_user: limits.bytes_per_user,
        }))
    }
}

impl ChunkTransaction {
    /// The offset and the line before the chunk.
    pub fn reached(&self) -> (i64, i64) {
        self.reached
    }

    /// The connection to write rows with.
    pub fn connection(&mut self) -> &mut PgConnection {
        &mut self.transaction
    }

    /// Records the progress, renews the lease and commits.
    pub async fn commit(
        mut self,
        progress: ChunkProgress,
        lease: Duration,
    ) -> Result<(), StoreError> {
        let failed = i64::try_from(progress.bad.len()).unwrap_or(i64::MAX);
        let (event, report_bytes) = self.insert_reports(progress.bad).await?;
        sqlx::query!(
            "UPDATE jobs SET resume_offset = $2, resume_line = $3,
                    rows_read = rows_read + $4 + $5 + $6, rows_written = rows_written + $4,
                    rows_skipped = rows_skipped + $5, rows_failed = rows_failed + $6,
                    unknown_columns = $7, attempts = 0, error_code = NULL, error_message = NULL,
                    last_event = $8, report_bytes = report_bytes + $11, lease_until = clock_timestamp() + make_interval(secs => $9),
                    state = CASE WHEN $10 THEN 'succeeded' ELSE state END,
                    finished_at = CASE WHEN $10 THEN clock_timestamp() END
              WHERE id = $1",
            self.job_id.get(),
            progress.offset,
            progress.line,
            progress.written,
            progress.skipped,
            failed,
            &progress.unknown_columns,
            event + 1,
            lease.as_secs_f64(),
            progress.is_last,
            report_bytes
        )
        .execute(&mut *self.transaction)
        .await?;
        self.transaction.commit().await?;
        Ok(())
    }

    /// Stores the bad rows that fit the limits. Returns the last event's number and the bytes that were stored.
    async fn insert_reports(&mut self, bad: Vec<BadRow>) -> Result<(i64, i64), StoreError> {
        let mut event = self.last_event;
        if bad.is_empty() || self.free_reports == 0 {
            return Ok((event, 0));
        }
        let stored = sqlx::query_scalar!(
            r#"SELECT COALESCE(sum(report_bytes), 0)::bigint AS "sum!" FROM jobs
                WHERE report_bytes > 0 AND COALESCE(user_id, 0) = (
                      SELECT COALESCE(user_id, 0) FROM jobs WHERE id = $1)"#,
            self.job_id.get()
        )
        .fetch_one(&mut *self.transaction)
        .await?;
        let (mut bytes, mut reports) = (0, Vec::new());
        for (line, errors, cells) in bad.into_iter().take(self.free_reports) {
            let size = report_size(&errors, &cells);
            if stored + bytes + size > self.report_bytes_per_user {
                break;
            }
            bytes += size;
            event += 1;
            reports.push(RowReport { event, line, errors, cells });
        }
        if !reports.is_empty() {
            insert_reports(&mut self.transaction, self.job_id, &reports).await?;
        }
        Ok((event, bytes))
    }
}

/// Bytes of a report: its text as JSON, which has a few bytes for each cell, and a fixed part for its row and index entry.
fn report_size(errors: &[RowProblem], cells: &RowCells) -> i64 {
    const ROW_BYTES: usize = 64;
    let errors = errors.iter().map(|e| e.column.len() + e.code.len() + e.message.len());
    let bytes = errors.sum::<usize>() + cells.as_json().len() + ROW_BYTES;
    i64::try_from(bytes).unwrap_or(i64::MAX)
}
