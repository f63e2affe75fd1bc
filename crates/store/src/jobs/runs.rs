//! What workers ask for: taking a job, writing its chunks, ending it.
//!
//! A job is run by whoever holds its lease. All that an attempt writes goes through
//! [`ChunkTransaction`], which locks the job's row first and finds out whether the job is still this
//! worker's; so a job that was taken over or cancelled gets nothing more from its former worker.

use std::time::Duration;

use linnet_telemetry::context::observe_query;
use sqlx::{PgConnection, Postgres, Transaction};

use linnet_domain::{
    JobError, JobId, JobKind, Lane, OnConflict, RowFormat, RowProblem, RowReport, UserId,
};

use super::{
    super::{Store, StoreError},
    reports::insert_reports,
};

/// A job in the hands of a worker.
#[derive(Debug, Clone)]
pub struct JobRun {
    /// The job.
    pub id: JobId,
    /// Who runs it.
    pub worker: String,
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
    /// Bytes of it that are done.
    pub resume_offset: i64,
    /// The line that follows them; 0 before the first row.
    pub resume_line: i64,
    /// Attempts since the last progress, this one included.
    pub attempts: i32,
}

/// What became of the wish to run a job.
#[derive(Debug)]
pub enum JobClaim {
    /// It is this worker's now.
    Claimed(Box<JobRun>),
    /// Its owner has as many running as allowed, or its time has not come.
    NotYet,
    /// It runs elsewhere, has ended, or is gone.
    NotClaimable,
}

/// What one chunk came to.
#[derive(Debug, Default)]
pub struct ChunkProgress {
    /// Bytes of the upload that are done.
    pub offset: i64,
    /// The line that follows them.
    pub line: i64,
    /// Rows that were written.
    pub written: i64,
    /// Rows that were there already and passed over.
    pub skipped: i64,
    /// The bad rows: line, what is wrong, and the row as it came.
    pub bad: Vec<(i64, Vec<RowProblem>, Vec<String>)>,
    /// Columns that are passed over, as far as known.
    pub unknown_columns: Vec<String>,
    /// Whether that was the last chunk.
    pub is_last: bool,
}

/// How an attempt ended without success.
#[derive(Debug, Clone, Copy)]
pub enum AttemptEnd {
    /// Another attempt follows after this time.
    Retry(Duration),
    /// It goes to the dead letters.
    Dead,
    /// No attempt would do better: the input itself cannot be read.
    Refused,
}

/// How many jobs there are.
#[derive(Debug, Clone, Copy, Default)]
pub struct JobCounts {
    /// Waiting among the small ones.
    pub queued_small: i64,
    /// Waiting among the large ones.
    pub queued_large: i64,
    /// Running.
    pub running: i64,
    /// In the dead-letter queue.
    pub dead: i64,
    /// How long the one that waits longest has been waiting, in seconds.
    pub oldest_queued_s: f64,
}

/// A transaction of the worker that holds the job.
#[derive(Debug)]
pub struct ChunkTransaction {
    transaction: Transaction<'static, Postgres>,
    job_id: JobId,
    last_event: i64,
    reached: (i64, i64),
    /// Reports that there is room for.
    room: usize,
}

impl Store {
    /// Takes a job for `lease`, unless its owner has `per_user` of them running.
    pub async fn claim_job(
        &self,
        id: JobId,
        worker: &str,
        lease: Duration,
        per_user: i64,
    ) -> Result<JobClaim, StoreError> {
        let mut transaction = self.pool.begin().await?;
        // One claim of an owner at a time, or two would each find room for one.
        sqlx::query!(
            "SELECT pg_advisory_xact_lock(hashtextextended('linnet.jobs', COALESCE(user_id, 0)))
               FROM jobs WHERE id = $1",
            id.get()
        )
        .fetch_optional(&mut *transaction)
        .await?;
        let claimed = sqlx::query!(
            r#"UPDATE jobs SET state = 'running', worker = $2, attempts = attempts + 1,
                    announced_at = NULL, lease_until = clock_timestamp() + make_interval(secs => $3),
                    started_at = COALESCE(started_at, now()), last_event = last_event + 1
              WHERE id = $1
                AND ((state = 'queued' AND run_after <= clock_timestamp())
                     OR (state = 'running' AND lease_until < clock_timestamp()))
                AND (SELECT count(*) FROM jobs AS other
                      WHERE other.state = 'running' AND other.id <> $1
                        AND other.lease_until >= clock_timestamp()
                        AND other.user_id IS NOT DISTINCT FROM jobs.user_id) < $4
             RETURNING kind, user_id AS "user_id: UserId", by_admin, format, on_conflict, dry_run,
                       upload, resume_offset, resume_line, attempts"#,
            id.get(),
            worker,
            lease.as_secs_f64(),
            per_user
        )
        .fetch_optional(&mut *transaction)
        .await?;
        let claim = match claimed {
            Some(row) => JobClaim::Claimed(Box::new(JobRun {
                id,
                worker: worker.to_owned(),
                kind: JobKind::parse(&row.kind).unwrap_or(JobKind::ImportUrls),
                user_id: row.user_id,
                by_admin: row.by_admin,
                format: RowFormat::parse(&row.format).unwrap_or(RowFormat::Csv),
                on_conflict: OnConflict::parse(&row.on_conflict).unwrap_or_default(),
                dry_run: row.dry_run,
                upload: row.upload,
                resume_offset: row.resume_offset,
                resume_line: row.resume_line,
                attempts: row.attempts,
            })),
            None => {
                let waits = sqlx::query!(
                    "UPDATE jobs SET announced_at = NULL WHERE id = $1 AND state = 'queued'",
                    id.get()
                )
                .execute(&mut *transaction)
                .await?;
                if waits.rows_affected() > 0 { JobClaim::NotYet } else { JobClaim::NotClaimable }
            }
        };
        transaction.commit().await?;
        Ok(claim)
    }

    /// Holds a job for another `lease`; false when it is no longer this worker's.
    pub async fn renew_job_lease(&self, run: &JobRun, lease: Duration) -> Result<bool, StoreError> {
        let renewed = sqlx::query!(
            "UPDATE jobs SET lease_until = clock_timestamp() + make_interval(secs => $3)
              WHERE id = $1 AND worker = $2 AND state = 'running'",
            run.id.get(),
            run.worker,
            lease.as_secs_f64()
        );
        Ok(renewed.execute(&self.pool).await?.rows_affected() > 0)
    }

    /// Begins a chunk; `None` when the job is no longer this worker's. At most `max_reports` bad rows
    /// of a job are kept, the others are only counted.
    pub async fn begin_chunk(
        &self,
        run: &JobRun,
        max_reports: usize,
    ) -> Result<Option<ChunkTransaction>, StoreError> {
        let mut transaction = self.pool.begin().await?;
        let held = sqlx::query!(
            "SELECT last_event, rows_failed, resume_offset, resume_line FROM jobs
              WHERE id = $1 AND worker = $2 AND state = 'running' FOR UPDATE",
            run.id.get(),
            run.worker
        )
        .fetch_optional(&mut *transaction)
        .await?;
        Ok(held.map(|row| ChunkTransaction {
            transaction,
            job_id: run.id,
            last_event: row.last_event,
            reached: (row.resume_offset, row.resume_line),
            room: max_reports.saturating_sub(usize::try_from(row.rows_failed).unwrap_or(0)),
        }))
    }

    /// Whether all rows of a job are read.
    pub async fn job_has_succeeded(&self, id: JobId) -> Result<bool, StoreError> {
        let query = sqlx::query_scalar!(
            "SELECT id FROM jobs WHERE id = $1 AND state = 'succeeded'",
            id.get()
        );
        Ok(query.fetch_optional(&self.pool).await?.is_some())
    }

    /// Whether a job's upload is still read, or may be read again.
    pub async fn job_needs_upload(&self, id: JobId) -> Result<bool, StoreError> {
        let query = sqlx::query_scalar!(
            "SELECT id FROM jobs
              WHERE id = $1 AND (state IN ('queued', 'running') OR dead_at IS NOT NULL)",
            id.get()
        );
        Ok(query.fetch_optional(&self.pool).await?.is_some())
    }

    /// Ends an attempt that failed; false when the job is no longer this worker's.
    pub async fn end_attempt(
        &self,
        run: &JobRun,
        end: AttemptEnd,
        error: &JobError,
    ) -> Result<bool, StoreError> {
        let delay = match end {
            AttemptEnd::Retry(delay) => Some(delay.as_secs_f64()),
            AttemptEnd::Dead | AttemptEnd::Refused => None,
        };
        let ended = sqlx::query!(
            "UPDATE jobs SET
                    state = CASE WHEN $3::float8 IS NULL THEN 'failed' ELSE 'queued' END,
                    run_after = now() + make_interval(secs => COALESCE($3, 0)),
                    announced_at = NULL,
                    finished_at = CASE WHEN $3 IS NULL THEN now() END,
                    dead_at = CASE WHEN $4 THEN now() END,
                    error_code = $5, error_message = $6, worker = NULL, lease_until = NULL,
                    last_event = last_event + 1
              WHERE id = $1 AND worker = $2 AND state = 'running'",
            run.id.get(),
            run.worker,
            delay,
            matches!(end, AttemptEnd::Dead),
            error.code,
            error.message
        );
        Ok(observe_query("end_attempt", ended.execute(&self.pool)).await?.rows_affected() > 0)
    }

    /// Gives a job back unfinished, for another worker to go on at once. The attempt does not count.
    pub async fn release_job(&self, run: &JobRun) -> Result<(), StoreError> {
        sqlx::query!(
            "UPDATE jobs SET state = 'queued', announced_at = NULL, worker = NULL,
                    lease_until = NULL, attempts = GREATEST(attempts - 1, 0),
                    last_event = last_event + 1
              WHERE id = $1 AND worker = $2 AND state = 'running'",
            run.id.get(),
            run.worker
        )
        .execute(&self.pool)
        .await?;
        Ok(())
    }

    /// The jobs that a worker should hear of now: their time has come and their owners have room, or
    /// their worker is dead. They count as announced; those of dead workers again after `again`.
    pub async fn due_jobs(
        &self,
        per_user: i64,
        again: Duration,
    ) -> Result<Vec<(JobId, Lane)>, StoreError> {
        let query = sqlx::query!(
            r#"WITH load AS (
               SELECT user_id, count(*) AS running FROM jobs
                WHERE (state = 'running' AND lease_until >= clock_timestamp())
                   OR (state = 'queued' AND announced_at IS NOT NULL) GROUP BY user_id
             ), due AS (
               SELECT id, user_id, row_number() OVER (PARTITION BY user_id ORDER BY id) AS place
                 FROM jobs
                WHERE (state = 'queued' AND announced_at IS NULL AND run_after <= now())
                   OR (state = 'running' AND lease_until < clock_timestamp()
                       AND (announced_at IS NULL
                            OR announced_at < clock_timestamp() - make_interval(secs => $2)))
             )
             UPDATE jobs SET announced_at = clock_timestamp()
               FROM due LEFT JOIN load ON load.user_id IS NOT DISTINCT FROM due.user_id
              WHERE jobs.id = due.id AND due.place <= $1 - COALESCE(load.running, 0)
             RETURNING jobs.id AS "id: JobId", jobs.is_large"#,
            per_user,
            again.as_secs_f64()
        );
        let rows = observe_query("due_jobs", query.fetch_all(&self.pool)).await?;
        Ok(rows.into_iter().map(|row| (row.id, Lane::of(row.is_large))).collect())
    }

    /// Jobs that were announced longer ago than `age` and that nobody has taken.
    pub async fn count_unclaimed_announcements(&self, age: Duration) -> Result<i64, StoreError> {
        let query = sqlx::query_scalar!(
            r#"SELECT count(*) AS "count!" FROM jobs
                WHERE state = 'queued' AND run_after <= now()
                  AND announced_at < clock_timestamp() - make_interval(secs => $1)"#,
            age.as_secs_f64()
        );
        Ok(query.fetch_one(&self.pool).await?)
    }

    /// Forgets that those of [`Store::count_unclaimed_announcements`] were announced: Redis has lost them.
    pub async fn reset_announcements(&self, age: Duration) -> Result<u64, StoreError> {
        let query = sqlx::query!(
            "UPDATE jobs SET announced_at = NULL
              WHERE state = 'queued' AND announced_at < clock_timestamp() - make_interval(secs => $1)",
            age.as_secs_f64()
        );
        Ok(query.execute(&self.pool).await?.rows_affected())
    }

    /// How many jobs there are.
    pub async fn count_jobs(&self) -> Result<JobCounts, StoreError> {
        let query = sqlx::query_as!(
            JobCounts,
            r#"SELECT count(*) FILTER (WHERE state = 'queued' AND NOT is_large) AS "queued_small!",
                      count(*) FILTER (WHERE state = 'queued' AND is_large) AS "queued_large!",
                      count(*) FILTER (WHERE state = 'running') AS "running!",
                      (SELECT count(*) FROM jobs WHERE dead_at IS NOT NULL) AS "dead!",
                      COALESCE(EXTRACT(epoch FROM now() - min(run_after)
                          FILTER (WHERE state = 'queued' AND run_after <= now())), 0)::float8
                          AS "oldest_queued_s!"
                 FROM jobs WHERE state IN ('queued', 'running')"#
        );
        Ok(observe_query("count_jobs", query.fetch_one(&self.pool)).await?)
    }
}

impl ChunkTransaction {
    /// Bytes and lines that were done before it.
    pub fn reached(&self) -> (i64, i64) {
        self.reached
    }

    /// To write rows with.
    pub fn connection(&mut self) -> &mut PgConnection {
        &mut self.transaction
    }

    /// Writes what the chunk came to, and commits. The worker holds the job for another `lease`.
    pub async fn commit(
        mut self,
        progress: ChunkProgress,
        lease: Duration,
    ) -> Result<(), StoreError> {
        let failed = i64::try_from(progress.bad.len()).unwrap_or(i64::MAX);
        let mut event = self.last_event;
        let reports: Vec<RowReport> = progress
            .bad
            .into_iter()
            .take(self.room)
            .map(|(line, errors, cells)| {
                event += 1;
                RowReport { event, line, errors, cells }
            })
            .collect();
        if !reports.is_empty() {
            insert_reports(&mut self.transaction, self.job_id, &reports).await?;
        }
        sqlx::query!(
            "UPDATE jobs SET resume_offset = $2, resume_line = $3,
                    rows_read = rows_read + $4 + $5 + $6, rows_written = rows_written + $4,
                    rows_skipped = rows_skipped + $5, rows_failed = rows_failed + $6,
                    unknown_columns = $7, attempts = 0, error_code = NULL, error_message = NULL,
                    last_event = $8, lease_until = clock_timestamp() + make_interval(secs => $9),
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
            progress.is_last
        )
        .execute(&mut *self.transaction)
        .await?;
        self.transaction.commit().await?;
        Ok(())
    }
}
