//! Events: made and found. [`super::event_list`] lists them, beside clicks.

use linnet_telemetry::context::observe_query;
use sqlx::PgConnection;

use linnet_domain::{Event, EventId, LinkId, NewEvent, UserId, Visibility};

use super::{Store, StoreError};

/// `query_as!` for an [`Event`] from the table `events`: `$before`, the columns, `$after`.
macro_rules! event_query {
    ($before:literal, $after:literal $(, $argument:expr)* $(,)?) => {
        sqlx::query_as!(
            Event,
            $before + r#" id AS "id: EventId", url_id AS "url_id: LinkId",
                user_id AS "user_id: UserId", event_type, timestamp, details "# + $after,
            $($argument),*
        )
    };
}

impl Store {
    /// Records a client's own event. `None` when `visible_to` may not see the link, or there is none;
    /// an unknown user is a [`super::Constraint::UserMissing`].
    pub async fn create_event(
        &self,
        new: &NewEvent,
        visible_to: Visibility,
    ) -> Result<Option<Event>, StoreError> {
        let mut connection = self.pool.acquire().await?;
        create_event_on(&mut connection, new, visible_to).await
    }

    /// The event with this id, if `visible_to` may see it: what it did itself, or what happened to
    /// its links. Clicks have no index on their id and are not found.
    pub async fn find_event(
        &self,
        id: EventId,
        visible_to: Visibility,
    ) -> Result<Option<Event>, StoreError> {
        let query = event_query!(
            "SELECT",
            "FROM events
              WHERE id = $1 AND ($2::bigint IS NULL OR user_id = $2
                    OR url_id IN (SELECT id FROM urls WHERE user_id = $2))",
            id.get(),
            visible_to.owner_filter()
        );
        Ok(observe_query("find_event", query.fetch_optional(&self.pool)).await?)
    }
}

/// [`Store::create_event`] on a given connection.
pub(super) async fn create_event_on(
    connection: &mut PgConnection,
    new: &NewEvent,
    visible_to: Visibility,
) -> Result<Option<Event>, StoreError> {
    if let Some(user_id) = new.user_id {
        let known = sqlx::query_scalar!(
            r#"SELECT EXISTS (SELECT FROM users WHERE id = $1) AS "known!""#,
            user_id.get()
        );
        if !observe_query("user_exists", known.fetch_one(&mut *connection)).await? {
            return Err(StoreError::Conflict(super::Constraint::UserMissing));
        }
    }
    let query = event_query!(
        "INSERT INTO events (url_id, user_id, event_type, details)
         SELECT id, $2, $3, $4 FROM urls
          WHERE id = $1 AND ($5::bigint IS NULL OR user_id = $5)
         RETURNING",
        "",
        new.url_id.get(),
        new.user_id.map(UserId::get),
        new.event_type.as_str(),
        serde_json::Value::Object(new.details.clone()),
        visible_to.owner_filter()
    );
    Ok(observe_query("create_event", query.fetch_optional(connection)).await?)
}
