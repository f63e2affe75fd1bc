//! Erasing a user's history: events, clicks and roll-ups.

use std::time::Duration;

use linnet_domain::{LinkId, Subject, UserId};

use super::{SHARDS, Store, StoreError, clicks::lock_roll_ups, columns::numbers, stored_responses};

/// Time from the deletion of a user until the erasure of its history. Until then, workers may know its links as existing
/// ones, and record clicks that were on their way when the links were deleted. Later clicks of a link without history
/// are not recorded.
pub const ERASURE_DELAY: Duration = Duration::from_secs(65);

/// Rows per statement, so that other transactions can run between two statements.
const CHUNK_ROWS: i64 = 5_000;
/// Links per transaction that locks the roll-ups. It is small, because no worker can write roll-ups meanwhile.
const LOCKED_CHUNK_LINKS: usize = 100;

/// The numbers of erased resources.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ErasureCounts {
    /// Links of the user, deleted ones included.
    pub links: usize,
    /// Events of the user and of those links.
    pub events: u64,
    /// Raw clicks on those links.
    pub clicks: u64,
    /// Rows of their roll-ups.
    pub roll_ups: u64,
}

impl Store {
    /// Deletes the events and clicks of a user and of all its links, deleted ones included, the stored responses that
    /// contain them, and the user's uploads in the database. [`Store::delete_user`] deletes the user itself,
    /// [`ERASURE_DELAY`] before.
    ///
    /// After an interruption, another call continues: the `created` events, from which the links are known, are deleted
    /// last.
    pub async fn erase_user_history(&self, user_id: UserId) -> Result<ErasureCounts, StoreError> {
        self.delete_uploads_of(user_id).await?;
        let links = sqlx::query_scalar!(
            r#"SELECT id AS "id!: LinkId" FROM urls WHERE user_id = $1
               UNION SELECT url_id FROM events
                WHERE user_id = $1 AND event_type = 'created' AND url_id IS NOT NULL"#,
            user_id.get()
        )
        .fetch_all(&self.pool)
        .await?;
        let mut counts = ErasureCounts { links: links.len(), ..ErasureCounts::default() };
        let mut subjects: Vec<i64> =
            links.iter().map(|link_id| Subject::Link(*link_id).key()).collect();
        subjects.push(Subject::User(user_id).key());
        let links = numbers(&links);
        let mut connection = self.pool.acquire().await?;
        stored_responses::delete_responses_of(&mut connection, user_id).await?;
        for links in links.chunks(1_000) {
            stored_responses::delete_responses_with_links(&mut connection, links).await?;
        }
        drop(connection);
        for links in links.chunks(1_000) {
            counts.clicks += self.erase_clicks(links).await?;
        }
        for subjects in subjects.chunks(1_000) {
            counts.roll_ups += self.erase_roll_ups(subjects).await?;
        }
        for links in links.chunks(1_000) {
            counts.events += sqlx::query!(
                "DELETE FROM events WHERE url_id = ANY($1) AND user_id IS DISTINCT FROM $2",
                links,
                user_id.get()
            )
            .execute(&self.pool)
            .await?
            .rows_affected();
        }
        let own = sqlx::query!("DELETE FROM events WHERE user_id = $1", user_id.get());
        counts.events += own.execute(&self.pool).await?.rows_affected();
        let mut connection = self.pool.acquire().await?;
        stored_responses::delete_responses_with_deleted_events(&mut connection).await?;
        Ok(counts)
    }

    async fn erase_clicks(&self, links: &[i64]) -> Result<u64, StoreError> {
        let mut erased = 0;
        loop {
            // The first rows of these links by time, and those of the same microsecond as the last of them.
            let clicks = sqlx::query_scalar!(
                r#"WITH deleted AS (
                     DELETE FROM raw_clicks WHERE url_id = ANY($1) AND clicked_at <= (
                       SELECT max(clicked_at) FROM (SELECT clicked_at FROM raw_clicks
                         WHERE url_id = ANY($1) ORDER BY clicked_at LIMIT $2) AS first)
                     RETURNING more)
                   SELECT COALESCE(sum(1 + COALESCE(cardinality(more), 0) / 8), 0)::bigint AS "clicks!"
                     FROM deleted"#,
                links,
                CHUNK_ROWS
            )
            .fetch_one(&self.pool)
            .await?
            .unsigned_abs();
            // Clicks that workers of earlier releases have written.
            let earlier = sqlx::query!(
                "DELETE FROM clicks WHERE (clicked_at, id) IN (
                   SELECT clicked_at, id FROM clicks WHERE url_id = ANY($1) LIMIT $2)",
                links,
                CHUNK_ROWS
            )
            .execute(&self.pool)
            .await?
            .rows_affected();
            erased += clicks + earlier;
            if clicks + earlier == 0 {
                return Ok(erased);
            }
        }
    }

    async fn erase_roll_ups(&self, subjects: &[i64]) -> Result<u64, StoreError> {
        let mut erased = 0;
        for links in subjects.chunks(LOCKED_CHUNK_LINKS) {
            erased += self.erase_link_days(links).await?;
        }
        for delete in [
            sqlx::query!("DELETE FROM click_hours WHERE subject = ANY($1)", subjects),
            sqlx::query!("DELETE FROM click_days WHERE subject = ANY($1)", subjects),
            sqlx::query!("DELETE FROM click_days_by_value WHERE subject = ANY($1)", subjects),
            sqlx::query!("DELETE FROM click_months_by_value WHERE subject = ANY($1)", subjects),
        ] {
            erased += delete.execute(&self.pool).await?.rows_affected();
        }
        Ok(erased)
    }

    /// Holds the locks of all shards, because a worker that has read a link's day would write it again.
    async fn erase_link_days(&self, links: &[i64]) -> Result<u64, StoreError> {
        let mut transaction = self.begin().await?;
        lock_roll_ups(&mut transaction, &SHARDS).await?;
        let erased = sqlx::query!("DELETE FROM click_link_days WHERE url_id = ANY($1)", links)
            .execute(&mut *transaction)
            .await?
            .rows_affected();
        transaction.commit().await?;
        Ok(erased)
    }
}
