//! Events.

use linnet_telemetry::context::observe_query;
use sqlx::PgConnection;

use crate::domain::{Event, EventFilter, NewEvent, Page, UserRef};

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
    /// its links.
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

    /// One page of events.
    pub async fn list_events(
        &self,
        filter: &EventFilter,
        visible_to: UserRef,
        page: Page,
    ) -> Result<Vec<Event>, StoreError> {
        let Some(user) = visible_to else { return self.list_all_events(filter, page).await };
        // What the user did, and what happened to each of its links: each branch ends at the page's
        // end, so the cost follows the page and the user's links, not all events there are.
        let query = sqlx::query_as!(
            Event,
            r#"SELECT id AS "id!", url_id, user_id, event_type AS "event_type!",
                      timestamp AS "timestamp!", details AS "details!"
                 FROM ((SELECT * FROM events
                         WHERE user_id = $2 AND id > $1
                           AND ($3::bigint IS NULL OR url_id = $3)
                           AND ($4::bigint IS NULL OR user_id = $4)
                           AND ($5::text IS NULL OR event_type = $5)
                         ORDER BY id LIMIT $6::bigint + $7::bigint)
                       UNION
                       (SELECT event.* FROM urls CROSS JOIN LATERAL (
                          SELECT * FROM events
                           WHERE events.url_id = urls.id AND events.id > $1
                             AND ($4::bigint IS NULL OR events.user_id = $4)
                             AND ($5::text IS NULL OR event_type = $5)
                           ORDER BY events.id LIMIT $6::bigint + $7::bigint) AS event
                         WHERE urls.user_id = $2 AND ($3::bigint IS NULL OR urls.id = $3)
                         ORDER BY event.id LIMIT $6::bigint + $7::bigint)) AS visible
                ORDER BY id LIMIT $6::bigint OFFSET $7::bigint"#,
            page.after_id(),
            user,
            filter.url_id,
            filter.user_id,
            filter.event_type,
            page.size,
            page.offset()
        );
        Ok(observe_query("list_events", query.fetch_all(&self.pool)).await?)
    }

    async fn list_all_events(
        &self,
        filter: &EventFilter,
        page: Page,
    ) -> Result<Vec<Event>, StoreError> {
        let query = sqlx::query_as!(
            Event,
            "SELECT id, url_id, user_id, event_type, timestamp, details FROM events
              WHERE id > $1
                AND ($2::bigint IS NULL OR url_id = $2)
                AND ($3::bigint IS NULL OR user_id = $3)
                AND ($4::text IS NULL OR event_type = $4)
              ORDER BY id LIMIT $5 OFFSET $6",
            page.after_id(),
            filter.url_id,
            filter.user_id,
            filter.event_type,
            page.size,
            page.offset()
        );
        Ok(observe_query("list_all_events", query.fetch_all(&self.pool)).await?)
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
