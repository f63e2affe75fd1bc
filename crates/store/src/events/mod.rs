//! Events: creating and finding one. [`list`] lists them together with clicks.

mod list;

pub use list::EventPage;

use crate::observe::observe_query;
use sqlx::PgConnection;

use linnet_domain::{Event, EventDetails, EventId, LinkId, NewEvent, UserId, Visibility};

use super::{Constraint, Store, StoreError};

/// `query_as!` for an [`Event`]: the query before the columns, the query after them, and the arguments.
macro_rules! event_query {
    ($before:literal, $after:literal $(, $argument:expr)* $(,)?) => {
        sqlx::query_as!(
            Event,
            $before + r#" id AS "id: EventId", url_id AS "url_id: LinkId",
                user_id AS "user_id: UserId", event_type, timestamp,
                details AS "details: EventDetails" "# + $after,
            $($argument),*
        )
    };
}

impl Store {
    /// Creates an event of a client. `None` if the link is not visible. The error is a
    /// [`Constraint::UserMissing`] or [`Constraint::EventQuota`] if the user does not exist or has too many events.
    pub async fn create_event(
        &self,
        new: &NewEvent,
        visible_to: Visibility,
    ) -> Result<Option<Event>, StoreError> {
        let mut connection = self.pool.acquire().await?;
        create_event_on(&mut connection, new, visible_to).await
    }

    /// The event with this id, if it is visible: a user sees the events that it caused and those of its links. Clicks
    /// are not found, because they have no index on the id.
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
        let user = sqlx::query!(
            r#"SELECT EXISTS (SELECT FROM users WHERE id = $1) AS "exists!",
                      is_at_quota('user:' || $1::bigint, 'events') AS "is_at_quota!""#,
            user_id.get()
        );
        let user = observe_query("user_exists", user.fetch_one(&mut *connection)).await?;
        if !user.exists {
            return Err(StoreError::Conflict(Constraint::UserMissing));
        }
        if user.is_at_quota {
            return Err(StoreError::Conflict(Constraint::EventQuota));
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
        &new.details as &EventDetails,
        visible_to.owner_filter()
    );
    Ok(observe_query("create_event", query.fetch_optional(connection)).await?)
}
