//! Ends jobs with the key that created them.
//!
//! A job writes rows for hours with the rights of a key. If the key is revoked or expires, a queued or running job of the
//! key is cancelled: at once by the revocation, otherwise before its next chunk, and by the dispatcher within some seconds.

use crate::observe::observe_query;
use sqlx::PgConnection;

use super::super::{Store, StoreError};

impl Store {
    /// Cancels queued and running jobs whose key was revoked or has expired. Returns their number. A running job that is
    /// writing a chunk is left out: it is cancelled before the next one.
    pub async fn cancel_jobs_of_ended_keys(&self) -> Result<u64, StoreError> {
        self.on_one_primary(async {
            let mut connection = self.pool.acquire().await?;
            let cancelled = cancel_jobs_of_ended_keys(&mut connection);
            Ok(observe_query("cancel_jobs_of_ended_keys", cancelled).await?)
        })
        .await
    }
}

/// [`Store::cancel_jobs_of_ended_keys`] on a given connection. It waits for no lock, because a revocation must not wait for
/// a chunk.
pub(in super::super) async fn cancel_jobs_of_ended_keys(
    connection: &mut PgConnection,
) -> Result<u64, sqlx::Error> {
    let cancelled = sqlx::query!(
        "UPDATE jobs SET state = 'cancelled', finished_at = now(), last_event = last_event + 1,
                worker = NULL, lease_until = NULL, error_code = 'key_ended',
                error_message = 'The API key that created the job was revoked or has expired.'
          WHERE id IN (
                SELECT id FROM jobs WHERE state IN ('queued', 'running') AND key_id IS NOT NULL
                   AND NOT EXISTS (SELECT FROM api_keys WHERE api_keys.id = key_id
                           AND revoked_at IS NULL AND (expires_at IS NULL OR expires_at > now()))
                   FOR UPDATE SKIP LOCKED)"
    );
    Ok(cancelled.execute(connection).await?.rows_affected())
}
