//! Attempts: a worker claims a job with a lease, renews the lease, and ends the attempt.
//!
//! A worker loses its job if the lease expires and another worker claims the job, or if the job is cancelled. Every
//! statement here checks that the job still belongs to the worker.

use std::time::Duration;

use crate::observe::observe_query;
use sqlx::PgConnection;

use linnet_domain::{JobError, JobId, JobKind, OnConflict, RowFormat, UploadName, UserId};

use super::super::{Store, StoreError};

/// A job that a worker has claimed.
#[derive(Debug, Clone)]
pub struct JobRun {
    /// The job's id.
    pub id: JobId,
    /// The worker.
    pub worker: String,
    /// The kind.
    pub kind: JobKind,
    /// The owner.
    pub user_id: Option<UserId>,
    /// Whether rows may contain ids and name any owner.
    pub by_admin: bool,
    /// The format of the upload.
    pub format: RowFormat,
    /// The treatment of rows that exist already.
    pub on_conflict: OnConflict,
    /// Whether rows are only checked.
    pub dry_run: bool,
    /// The columns in which the word `null` clears the field.
    pub null_columns: Vec<String>,
    /// The name of the upload.
    pub upload: UploadName,
    /// Bytes of the upload that are processed.
    pub resume_offset: i64,
    /// The line after these bytes; 0 before the first row.
    pub resume_line: i64,
    /// Attempts since the last progress, including this one.
    pub attempts: i32,
}

/// The result of claiming a job.
#[derive(Debug)]
pub enum JobClaim {
    /// The job belongs to this worker.
    Claimed(Box<JobRun>),
    /// The job is queued, but it has to wait for a retry, or its owner has reached the limit of running jobs.
    NotYet,
    /// Another worker runs the job, or it is finished or deleted.
    NotClaimable,
}

/// The consequence of a failed attempt.
#[derive(Debug, Clone, Copy)]
pub enum AttemptEnd {
    /// Another attempt follows after this time.
    Retry(Duration),
    /// The job moves to the dead-letter queue.
    Dead,
    /// The job fails permanently, because the upload cannot be read.
    Refused,
}

impl Store {
    /// Claims a job with a lease that expires after `lease`, unless its owner has `per_user` running jobs.
    pub async fn claim_job(
        &self,
        id: JobId,
        worker: &str,
        lease: Duration,
        per_user: i64,
    ) -> Result<JobClaim, StoreError> {
        self.on_one_primary(self.try_claim_job(id, worker, lease, per_user)).await
    }

    async fn try_claim_job(
        &self,
        id: JobId,
        worker: &str,
        lease: Duration,
        per_user: i64,
    ) -> Result<JobClaim, StoreError> {
        let mut transaction = self.begin().await?;
        // The lock serializes claims for one owner, because concurrent claims could exceed the limit.
        sqlx::query!(
            "SELECT pg_advisory_xact_lock(hashtextextended('linnet.jobs', COALESCE(user_id, 0)))
               FROM jobs WHERE id = $1",
            id.get()
        )
        .fetch_optional(&mut *transaction)
        .await?;
        let claim = match start_attempt(&mut transaction, id, worker, lease, per_user).await? {
            Some(run) => JobClaim::Claimed(Box::new(run)),
            None if reset_announcement(&mut transaction, id).await? => JobClaim::NotYet,
            None => JobClaim::NotClaimable,
        };
        transaction.commit().await?;
        Ok(claim)
    }

    /// Extends the lease of a job. Returns whether the job still belongs to the worker.
    pub async fn renew_job_lease(&self, run: &JobRun, lease: Duration) -> Result<bool, StoreError> {
        let renewal = sqlx::query!(
            "UPDATE jobs SET lease_until = clock_timestamp() + make_interval(secs => $3)
              WHERE id = $1 AND worker = $2 AND state = 'running'",
            run.id.get(),
            run.worker,
            lease.as_secs_f64()
        );
        Ok(renewal.execute(&self.pool).await?.rows_affected() > 0)
    }

    /// Whether all rows of a job are processed.
    pub async fn job_has_succeeded(&self, id: JobId) -> Result<bool, StoreError> {
        let query = sqlx::query_scalar!(
            "SELECT id FROM jobs WHERE id = $1 AND state = 'succeeded'",
            id.get()
        );
        Ok(query.fetch_optional(&self.pool).await?.is_some())
    }

    /// Whether a job's upload may still be read.
    pub async fn job_needs_upload(&self, id: JobId) -> Result<bool, StoreError> {
        let query = sqlx::query_scalar!(
            "SELECT id FROM jobs
              WHERE id = $1 AND (state IN ('queued', 'running') OR dead_at IS NOT NULL)",
            id.get()
        );
        Ok(query.fetch_optional(&self.pool).await?.is_some())
    }

    /// Ends a failed attempt. Returns whether the job still belonged to the worker.
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
        let update = sqlx::query!(
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
        Ok(observe_query("end_attempt", update.execute(&self.pool)).await?.rows_affected() > 0)
    }

    /// Returns an unfinished job to its queue, so that another worker can continue it immediately. The attempt does not
    /// count.
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
}

/// Starts an attempt of a job that is queued and need not wait for a retry, or whose lease has expired. `None` for any
/// other job, and if the owner has `per_user` running jobs.
async fn start_attempt(
    connection: &mut PgConnection,
    id: JobId,
    worker: &str,
    lease: Duration,
    per_user: i64,
) -> Result<Option<JobRun>, StoreError> {
    let row = sqlx::query!(
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
                   null_columns, upload, resume_offset, resume_line, attempts"#,
        id.get(),
        worker,
        lease.as_secs_f64(),
        per_user
    )
    .fetch_optional(connection)
    .await?;
    Ok(row.map(|row| JobRun {
        id,
        worker: worker.to_owned(),
        kind: JobKind::parse(&row.kind).unwrap_or(JobKind::ImportUrls),
        user_id: row.user_id,
        by_admin: row.by_admin,
        format: RowFormat::parse(&row.format).unwrap_or(RowFormat::Csv),
        on_conflict: OnConflict::parse(&row.on_conflict).unwrap_or_default(),
        dry_run: row.dry_run,
        null_columns: row.null_columns,
        upload: UploadName::of(row.upload),
        resume_offset: row.resume_offset,
        resume_line: row.resume_line,
        attempts: row.attempts,
    }))
}

/// Marks a queued job as not announced, so that it is announced again when it is due. Returns whether the job is
/// queued.
async fn reset_announcement(connection: &mut PgConnection, id: JobId) -> Result<bool, StoreError> {
    let reset = sqlx::query!(
        "UPDATE jobs SET announced_at = NULL WHERE id = $1 AND state = 'queued'",
        id.get()
    );
    Ok(reset.execute(connection).await?.rows_affected() > 0)
}
