//! Deletes the responses to requests with an idempotency key, with the data that they contain.

use sqlx::PgConnection;

use linnet_domain::UserId;

use super::StoreError;

/// Deletes the responses to the user's requests, and those that contain the user or a link that it has.
pub(super) async fn delete_responses_of(
    connection: &mut PgConnection,
    user_id: UserId,
) -> Result<(), StoreError> {
    // A row that is locked is expired, and the request that locks it deletes it. Waiting for it could be a deadlock.
    sqlx::query!(
        "DELETE FROM idempotency_keys WHERE (owner, key) IN (
           SELECT owner, key FROM idempotency_keys
            WHERE owner = 'user:' || $1::bigint OR location = '/api/v1/users/' || $1::bigint
              FOR UPDATE SKIP LOCKED)",
        user_id.get()
    )
    .execute(&mut *connection)
    .await?;
    sqlx::query!(
        "DELETE FROM idempotency_keys WHERE (owner, key) IN (
           SELECT stored.owner, stored.key FROM idempotency_keys AS stored
            WHERE stored.location IN (SELECT '/api/v1/urls/' || id FROM urls WHERE user_id = $1)
              FOR UPDATE SKIP LOCKED)",
        user_id.get()
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// Deletes the responses that contain one of the links.
pub(super) async fn delete_responses_with_links(
    connection: &mut PgConnection,
    links: &[i64],
) -> Result<(), StoreError> {
    sqlx::query!(
        "DELETE FROM idempotency_keys WHERE (owner, key) IN (
           SELECT owner, key FROM idempotency_keys
            WHERE location = ANY(SELECT '/api/v1/urls/' || id FROM unnest($1::bigint[]) AS id)
              FOR UPDATE SKIP LOCKED)",
        links
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// Deletes the responses that contain an event that has been deleted.
pub(super) async fn delete_responses_with_deleted_events(
    connection: &mut PgConnection,
) -> Result<(), StoreError> {
    sqlx::query!(
        r"DELETE FROM idempotency_keys WHERE (owner, key) IN (
            SELECT owner, key FROM idempotency_keys
             WHERE location LIKE '/api/v1/events/%' AND NOT EXISTS (SELECT FROM events
                    WHERE id = substring(location FROM '^/api/v1/events/([0-9]+)$')::bigint)
               FOR UPDATE SKIP LOCKED)"
    )
    .execute(connection)
    .await?;
    Ok(())
}
