//! Links that nobody has needed for long: they are deleted as their owner would have done it.

use super::{Store, StoreError};

impl Store {
    /// Deletes up to `limit` links that ended more than `days` ago, the oldest first; how many. Each
    /// leaves the event and the note for the caches that [`Store::delete_link`] leaves. A link that
    /// somebody is changing is left for the next time.
    pub async fn delete_expired_links(&self, days: u32, limit: i64) -> Result<u64, StoreError> {
        let done = sqlx::query!(
            r#"WITH due AS MATERIALIZED (
                 SELECT id FROM urls
                  WHERE expires_at < now() - make_interval(days => $1)
                  ORDER BY expires_at LIMIT $2
                  FOR UPDATE SKIP LOCKED
               ), gone AS (
                 DELETE FROM urls USING due WHERE urls.id = due.id
                 RETURNING urls.id, short_code, original_url, nextval('url_version_seq') AS version
               ), event AS (
                 INSERT INTO events (url_id, event_type, details)
                 SELECT id, 'deleted', jsonb_build_object(
                     'short_code', short_code, 'original_url', original_url,
                     'reason', 'expired') FROM gone
               )
               INSERT INTO cache_invalidations (kind, subject, version)
               SELECT 'link', short_code, version FROM gone"#,
            i32::try_from(days).unwrap_or(i32::MAX),
            limit
        );
        Ok(done.execute(&self.pool).await?.rows_affected())
    }
}
