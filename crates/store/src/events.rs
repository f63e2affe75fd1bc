//! Events: made and found. [`super::event_list`] lists them, beside clicks.

use linnet_telemetry::context::observe_query;
use sqlx::PgConnection;

use linnet_domain::{Event, NewEvent, UserRef};

use super::{Store, StoreError};

impl Store {
    /// Records a client's own event. `None` when `visible_to` may not see the link, or there is none;
    /// an unknown user is a [`super::Constraint::UserMissing`].
    pub async fn create_event(
        &self,
        new: &NewEvent,
        visible_to: UserRef,
    ) -> Result<Option<Event>, StoreError> {
        let mut connection = self.pool.acquire().await?;
        create_event_on(&mut connection, new, visible_to).await
    }

    /// The event with this id, if `visible_to` may see it: what it did itself, or what happened to
    /// its links. Clicks have no index on their id and are not found.
    pub async fn find_event(
        &self,
        id: i64,
        visible_to: UserRef,
    ) -> Result<Option<Event>, StoreError> {
        let query = sqlx::query_as!(
            Event,
            "SELECT id, url_id, user_id, event_type, timestamp, details FROM events
              WHERE id = $1 AND ($2::bigint IS NULL OR user_id = $2
                    OR url_id IN (SELECT id FROM urls WHERE user_id = $2))",
            id,
            visible_to
        );
        Ok(observe_query("find_event", query.fetch_optional(&self.pool)).await?)
    }
}

/// [`Store::create_event`] on a given connection.
pub(super) async fn create_event_on(
    connection: &mut PgConnection,
    new: &NewEvent,
    visible_to: UserRef,
) -> Result<Option<Event>, StoreError> {
    if let Some(user_id) = new.user_id {
        let known = sqlx::query_scalar!(
            r#"SELECT EXISTS (SELECT FROM users WHERE id = $1) AS "known!""#,
            user_id
        );
        if !observe_query("user_exists", known.fetch_one(&mut *connection)).await? {
            return Err(StoreError::Conflict(super::Constraint::UserMissing));
        }
    }
    let query = sqlx::query_as!(
        Event,
        "INSERT INTO events (url_id, user_id, event_type, details)
         SELECT id, $2, $3, $4 FROM urls
          WHERE id = $1 AND ($5::bigint IS NULL OR user_id = $5)
         RETURNING id, url_id, user_id, event_type, timestamp, details",
        new.url_id,
        new.user_id,
        new.event_type.as_str(),
        serde_json::Value::Object(new.details.clone()),
        visible_to
    );
    Ok(observe_query("create_event", query.fetch_optional(connection)).await?)
}
