//! The job queue in the database, from which the dispatcher announces jobs in Redis.

use std::time::Duration;

use crate::observe::observe_query;

use linnet_domain::{JobId, Lane};

use super::super::{Store, StoreError};

/// Numbers of jobs.
#[derive(Debug, Clone, Copy, Default)]
pub struct JobCounts {
    /// Queued jobs of the small lane.
    pub queued_small: i64,
    /// Queued jobs of the large lane.
    pub queued_large: i64,
    /// Running jobs.
    pub running: i64,
    /// Jobs in the dead-letter queue.
    pub dead: i64,
    /// Age of the oldest queued job that is due, in seconds.
    pub oldest_queued_s: f64,
    /// Bytes of the uploads in the database, as stored.
    pub upload_bytes: i64,
}

impl Store {
    /// Marks the due jobs as announced and returns them with their lanes. Owners take turns in the order.
    ///
    /// * A job is due if it is queued and need not wait for a retry, or if its lease has expired.
    /// * A job with an expired lease is due again after `reannounce_after`.
    /// * At most `per_user` jobs of an owner run in all lanes or are announced in the job's lane. Further jobs are not
    ///   due.
    pub async fn due_jobs(
        &self,
        per_user: i64,
        reannounce_after: Duration,
    ) -> Result<Vec<(JobId, Lane)>, StoreError> {
        // Ids are at least 1, so 0 is no owner. COALESCE makes the join hashable: with `IS NOT DISTINCT FROM` it would
        // take 3 s with 200 owners.
        let query = sqlx::query!(
            r#"WITH load AS (
               SELECT user_id, count(*) FILTER (WHERE state = 'running') AS running,
                      count(*) FILTER (WHERE state = 'queued' AND is_large) AS large,
                      count(*) FILTER (WHERE state = 'queued' AND NOT is_large) AS small
                 FROM jobs
                WHERE (state = 'running' AND lease_until >= clock_timestamp())
                   OR (state = 'queued' AND announced_at IS NOT NULL) GROUP BY user_id
             ), due AS (
               SELECT id, user_id, is_large,
                      row_number() OVER (PARTITION BY user_id, is_large ORDER BY id) AS place
                 FROM jobs
                WHERE (state = 'queued' AND announced_at IS NULL AND run_after <= now())
                   OR (state = 'running' AND lease_until < clock_timestamp()
                       AND (announced_at IS NULL
                            OR announced_at < clock_timestamp() - make_interval(secs => $2)))
             ), announced AS (
               UPDATE jobs SET announced_at = clock_timestamp()
                 FROM due LEFT JOIN load ON COALESCE(load.user_id, 0) = COALESCE(due.user_id, 0)
                WHERE jobs.id = due.id AND due.place <= $1
                  AND due.place <= $1 - COALESCE(load.running, 0)
                      - COALESCE(CASE WHEN due.is_large THEN load.large ELSE load.small END, 0)
               RETURNING jobs.id, jobs.is_large, due.place
             )
             SELECT id AS "id: JobId", is_large FROM announced ORDER BY place, id"#,
            per_user,
            reannounce_after.as_secs_f64()
        );
        let rows = observe_query("due_jobs", query.fetch_all(&self.pool)).await?;
        Ok(rows.into_iter().map(|row| (row.id, Lane::of(row.is_large))).collect())
    }

    /// The number of jobs that were announced at least `age` ago and that no worker has claimed.
    pub async fn count_unclaimed_announcements(&self, age: Duration) -> Result<i64, StoreError> {
        let query = sqlx::query_scalar!(
            r#"SELECT count(*) AS "count!" FROM jobs
                WHERE state = 'queued' AND run_after <= now()
                  AND announced_at < clock_timestamp() - make_interval(secs => $1)"#,
            age.as_secs_f64()
        );
        Ok(query.fetch_one(&self.pool).await?)
    }

    /// Marks queued jobs that were announced at least `age` ago as not announced, because Redis has lost the notices.
    /// Returns the number of jobs.
    pub async fn reset_announcements(&self, age: Duration) -> Result<u64, StoreError> {
        let query = sqlx::query!(
            "UPDATE jobs SET announced_at = NULL
              WHERE state = 'queued' AND announced_at < clock_timestamp() - make_interval(secs => $1)",
            age.as_secs_f64()
        );
        Ok(query.execute(&self.pool).await?.rows_affected())
    }

    /// The numbers of jobs.
    pub async fn count_jobs(&self) -> Result<JobCounts, StoreError> {
        let query = sqlx::query_as!(
            JobCounts,
            r#"SELECT count(*) FILTER (WHERE state = 'queued' AND NOT is_large) AS "queued_small!",
                      count(*) FILTER (WHERE state = 'queued' AND is_large) AS "queued_large!",
                      count(*) FILTER (WHERE state = 'running') AS "running!",
                      (SELECT count(*) FROM jobs WHERE dead_at IS NOT NULL) AS "dead!",
                      (SELECT COALESCE(sum(stored_bytes), 0)::bigint FROM uploads)
                          AS "upload_bytes!",
                      COALESCE(EXTRACT(epoch FROM now() - min(run_after)
                          FILTER (WHERE state = 'queued' AND run_after <= now())), 0)::float8
                          AS "oldest_queued_s!"
                 FROM jobs WHERE state IN ('queued', 'running')"#
        );
        Ok(observe_query("count_jobs", query.fetch_one(&self.pool)).await?)
    }
}
