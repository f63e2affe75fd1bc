//! Bulk jobs: creating, listing, cancelling, replaying and discarding them.
//!
//! [`attempts`] contains the queries of the worker that runs a job, and [`queue`] those of the dispatcher.

mod attempts;
mod chunks;
mod key_end;
mod queue;
mod reports;
mod rows;

use std::collections::HashSet;

use crate::observe::observe_query;
use sqlx::PgConnection;

use linnet_domain::{
    Job, JobFilter, JobId, JobKind, JobState, NewJob, Page, UploadName, UserId, Visibility,
};

use super::{
    Store, StoreError,
    columns::{column, numbers},
    uploads::keep_whole_upload,
};

use rows::{JobRow, job_query};

pub use attempts::{AttemptEnd, JobClaim, JobRun};
pub use chunks::{BadRow, ChunkProgress, ChunkTransaction, ReportLimits};
pub use queue::JobCounts;
pub use reports::{ReportPage, ReportRange, RowErrors};

pub(super) use key_end::cancel_jobs_of_ended_keys;

/// The maximum numbers of active jobs, which are queued or running.
#[derive(Debug, Clone, Copy)]
pub struct JobLimits {
    /// Active jobs of all owners together.
    pub all: i64,
    /// Active jobs of each owner. Jobs without an owner share one limit.
    pub per_user: i64,
    /// Bytes of the uploads of each owner's active jobs, and of its dead jobs, whose uploads are kept for a replay.
    pub bytes_per_user: i64,
    /// Jobs of each user in any state, which are kept until they are deleted. Jobs without an owner have no such limit.
    pub kept_per_user: i64,
    /// Running jobs of each owner. At most as many notices for the owner's jobs are in each lane of the queue in Redis.
    pub running_per_user: i64,
}

/// A job that was created.
#[derive(Debug)]
pub struct CreatedJob {
    /// The job.
    pub job: Job,
    /// Whether the caller publishes a notice now. Otherwise the job waits for other jobs of its owner, and the
    /// dispatcher publishes the notice later.
    pub is_announced: bool,
}

/// Why a job was not created.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JobRefusal {
    /// There are as many active jobs, or as many bytes of their uploads, as allowed.
    TooManyActive,
    /// The user has as many jobs, finished ones included, as allowed.
    TooManyKept,
    /// The key that creates the job was revoked or has expired.
    KeyEnded,
    /// The database does not have the whole upload: a failover has lost a part of it.
    UploadLost,
}

/// The result of changing a job.
#[derive(Debug, Clone, PartialEq)]
pub enum JobChange<T> {
    /// The job is changed.
    Done(T),
    /// The job is in a state that does not allow the change.
    WrongState(Box<Job>),
    /// The job does not exist or is not visible.
    NotFound,
}

impl Store {
    /// Creates a job.
    pub async fn create_job(
        &self,
        new: &NewJob,
        limits: JobLimits,
    ) -> Result<Result<CreatedJob, JobRefusal>, StoreError> {
        let mut transaction = self.begin().await?;
        let created = create_job_on(&mut transaction, new, limits).await?;
        transaction.commit().await?;
        Ok(created)
    }

    /// The job with this id, if visible.
    pub async fn find_job(
        &self,
        id: JobId,
        visible_to: Visibility,
    ) -> Result<Option<Job>, StoreError> {
        let query = job_query!(
            "SELECT",
            "FROM jobs WHERE id = $1 AND ($2::bigint IS NULL OR user_id = $2)",
            id.get(),
            visible_to.owner_filter()
        );
        let row = observe_query("find_job", query.fetch_optional(&self.pool)).await?;
        Ok(row.map(Job::from))
    }

    /// The jobs with these ids, in any order.
    pub async fn find_jobs(&self, ids: &[JobId]) -> Result<Vec<Job>, StoreError> {
        let query = job_query!("SELECT", "FROM jobs WHERE id = ANY($1)", &numbers(ids));
        let rows = observe_query("find_jobs", query.fetch_all(&self.pool)).await?;
        Ok(rows.into_iter().map(Job::from).collect())
    }

    /// One page of the visible jobs, by id.
    pub async fn list_jobs(
        &self,
        filter: &JobFilter,
        visible_to: Visibility,
        page: Page,
    ) -> Result<Vec<Job>, StoreError> {
        let query = job_query!(
            "SELECT",
            "FROM jobs
              WHERE id > $1 AND ($2::bigint IS NULL OR user_id = $2)
                AND ($3::text IS NULL OR state = $3) AND ($4::text IS NULL OR kind = $4)
                AND (NOT $5 OR dead_at IS NOT NULL)
              ORDER BY id LIMIT $6 OFFSET $7",
            page.after(),
            visible_to.owner_filter(),
            filter.state.map(JobState::as_str),
            filter.kind.map(JobKind::as_str),
            filter.only_dead,
            page.size,
            page.offset()
        );
        let rows = observe_query("list_jobs", query.fetch_all(&self.pool)).await?;
        Ok(rows.into_iter().map(Job::from).collect())
    }

    /// Cancels a queued or running job. Returns it with the name of its upload. Its worker stops before the next
    /// chunk.
    pub async fn cancel_job(
        &self,
        id: JobId,
        visible_to: Visibility,
    ) -> Result<JobChange<(Job, UploadName)>, StoreError> {
        let query = job_query!(
            "UPDATE jobs SET state = 'cancelled', finished_at = now(), last_event = last_event + 1,
                    worker = NULL, lease_until = NULL
              WHERE id = $1 AND ($2::bigint IS NULL OR user_id = $2)
                AND state IN ('queued', 'running') RETURNING",
            "",
            id.get(),
            visible_to.owner_filter()
        );
        let row = observe_query("cancel_job", query.fetch_optional(&self.pool)).await?;
        let cancelled = row.map(|mut row| {
            let upload = UploadName::of(std::mem::take(&mut row.upload));
            (Job::from(row), upload)
        });
        self.change_result(cancelled, id, visible_to).await
    }

    /// Returns a dead job to its queue, where the dispatcher finds it. It continues after its last chunk, with the rights
    /// of the key that replays it; `None` for the operator's command line. It stays dead if there are as many active jobs
    /// as allowed.
    pub async fn replay_job(
        &self,
        id: JobId,
        visible_to: Visibility,
        key_id: Option<&str>,
        limits: JobLimits,
    ) -> Result<JobChange<Job>, StoreError> {
        let query = job_query!(
            "UPDATE jobs SET state = 'queued', attempts = 0, dead_at = NULL, finished_at = NULL,
                    error_code = NULL, error_message = NULL, run_after = now(),
                    announced_at = NULL, last_event = last_event + 1, key_id = $3,
                    by_admin = by_admin AND $2::bigint IS NULL
              WHERE id = $1 AND ($2::bigint IS NULL OR user_id = $2) AND dead_at IS NOT NULL
                AND (SELECT count(*) FROM jobs AS active
                      WHERE active.state IN ('queued', 'running')) < $4
                AND (SELECT count(*) FROM jobs AS active
                      WHERE active.state IN ('queued', 'running')
                        AND active.user_id IS NOT DISTINCT FROM jobs.user_id) < $5
              RETURNING",
            "",
            id.get(),
            visible_to.owner_filter(),
            key_id,
            limits.all,
            limits.per_user
        );
        let row = observe_query("replay_job", query.fetch_optional(&self.pool)).await?;
        self.change_result(row.map(Job::from), id, visible_to).await
    }

    /// Deletes a finished job with its reports. Returns the name of its upload.
    pub async fn discard_job(
        &self,
        id: JobId,
        visible_to: Visibility,
    ) -> Result<JobChange<UploadName>, StoreError> {
        let query = sqlx::query_scalar!(
            "DELETE FROM jobs WHERE id = $1 AND ($2::bigint IS NULL OR user_id = $2)
                AND state NOT IN ('queued', 'running') RETURNING upload",
            id.get(),
            visible_to.owner_filter()
        );
        let upload = observe_query("discard_job", query.fetch_optional(&self.pool)).await?;
        self.change_result(upload.map(UploadName::of), id, visible_to).await
    }

    /// Deletes up to `limit` jobs that finished more than `days` ago, dead ones included. Returns their number.
    pub async fn delete_ended_jobs(&self, days: u32, limit: i64) -> Result<u64, StoreError> {
        let deletion = sqlx::query!(
            "DELETE FROM jobs WHERE id IN (
               SELECT id FROM jobs WHERE finished_at < now() - make_interval(days => $1) LIMIT $2)",
            i32::try_from(days).unwrap_or(i32::MAX),
            limit
        );
        Ok(deletion.execute(&self.pool).await?.rows_affected())
    }

    /// Returns the uploads among `names` that an active or dead job needs.
    pub async fn needed_uploads(
        &self,
        names: &[UploadName],
    ) -> Result<HashSet<UploadName>, StoreError> {
        let query = sqlx::query_scalar!(
            "SELECT upload FROM jobs WHERE upload = ANY($1)
                AND (state IN ('queued', 'running') OR dead_at IS NOT NULL)",
            &column(names, ToString::to_string)
        );
        Ok(query.fetch_all(&self.pool).await?.into_iter().map(UploadName::of).collect())
    }

    async fn change_result<T>(
        &self,
        changed: Option<T>,
        id: JobId,
        visible_to: Visibility,
    ) -> Result<JobChange<T>, StoreError> {
        Ok(match changed {
            Some(changed) => JobChange::Done(changed),
            None => match self.find_job(id, visible_to).await? {
                Some(job) => JobChange::WrongState(Box::new(job)),
                None => JobChange::NotFound,
            },
        })
    }
}

/// [`Store::create_job`] on a given connection, which must be in a transaction.
///
/// Lanes handle notices in the order of arrival. If all jobs of one owner were announced at once, they would all run
/// before a later job of another owner. At most `running_per_user` of them are therefore announced at a time. When one
/// ends, the dispatcher announces the owner's next job, behind the notices of other owners.
pub(super) async fn create_job_on(
    connection: &mut PgConnection,
    new: &NewJob,
    limits: JobLimits,
) -> Result<Result<CreatedJob, JobRefusal>, StoreError> {
    if let Some(refusal) = find_refusal(connection, new, limits).await? {
        return Ok(Err(refusal));
    }
    let query = job_query!(
        "INSERT INTO jobs (kind, user_id, by_admin, format, on_conflict, dry_run, upload,
                           upload_bytes, is_large, columns, unknown_columns, announced_at,
                           null_columns, key_id)
         SELECT $1, $2, $3, $4, $5, $6, $7, $8::bigint, $9, $10, $11,
                CASE WHEN (SELECT count(*) FROM jobs WHERE state IN ('queued', 'running')
                              AND user_id IS NOT DISTINCT FROM $2
                              AND ((state = 'running' AND lease_until >= clock_timestamp())
                                   OR (announced_at IS NOT NULL AND is_large = $9))) < $16
                     THEN now() END, $14, $17
          WHERE (SELECT count(*) FROM jobs WHERE state IN ('queued', 'running')) < $12
            AND (SELECT count(*) FROM jobs WHERE state IN ('queued', 'running')
                    AND user_id IS NOT DISTINCT FROM $2) < $13
            AND (SELECT COALESCE(sum(upload_bytes), 0) FROM jobs
                  WHERE (state IN ('queued', 'running') OR dead_at IS NOT NULL)
                    AND user_id IS NOT DISTINCT FROM $2) + $8::bigint <= $15::bigint
         RETURNING",
        "",
        new.kind.as_str(),
        new.user_id.map(UserId::get),
        new.by_admin,
        new.format.as_str(),
        new.on_conflict.as_str(),
        new.dry_run,
        new.upload.to_string(),
        new.upload_bytes,
        new.is_large,
        &new.columns,
        &new.unknown_columns,
        limits.all,
        limits.per_user,
        &new.null_columns,
        limits.bytes_per_user,
        limits.running_per_user,
        new.key_id
    );
    let row = observe_query("create_job", query.fetch_optional(connection)).await?;
    let created =
        row.map(|row| CreatedJob { is_announced: row.announced_at.is_some(), job: row.into() });
    Ok(created.ok_or(JobRefusal::TooManyActive))
}

/// Why the job is not created, apart from the limits of active jobs. The key stays locked until the end of the
/// transaction, so that a concurrent revocation waits and then finds the job.
async fn find_refusal(
    connection: &mut PgConnection,
    new: &NewJob,
    limits: JobLimits,
) -> Result<Option<JobRefusal>, StoreError> {
    if let Some(key_id) = &new.key_id {
        let living = sqlx::query_scalar!(
            "SELECT id FROM api_keys
              WHERE id = $1 AND revoked_at IS NULL AND (expires_at IS NULL OR expires_at > now())
                FOR SHARE",
            key_id
        );
        if living.fetch_optional(&mut *connection).await?.is_none() {
            return Ok(Some(JobRefusal::KeyEnded));
        }
    }
    let kept = sqlx::query_scalar!(
        r#"SELECT count(*) AS "count!" FROM (
             SELECT FROM jobs WHERE user_id = $1 LIMIT $2) AS own"#,
        new.user_id.map(UserId::get),
        limits.kept_per_user
    );
    let is_full = kept.fetch_one(&mut *connection).await? >= limits.kept_per_user;
    if new.user_id.is_some() && is_full {
        return Ok(Some(JobRefusal::TooManyKept));
    }
    let is_whole = keep_whole_upload(connection, new).await?;
    Ok((!is_whole).then_some(JobRefusal::UploadLost))
}
