//! Takedowns of links. Only an administrator or operator calls these functions.
//!
//! Triggers of the schema keep a link inactive while it is taken down, whichever statement changes it, and hold its code
//! after its deletion.

use crate::observe::observe_query;
use linnet_domain::{LinkId, OutboxId, UserId};
use sqlx::PgExecutor;

use super::{
    super::{Store, StoreError},
    ChangedLink, LinkRow, contains_pattern, link_query,
};

/// `link_query!` that changes one link, records the event, and queues the invalidation: the assignments, the condition,
/// the type of the event, the user in the event, its details, and the arguments.
macro_rules! takedown_query {
    (
        $change:literal, $condition:literal, $event:literal, $details:literal, $($argument:expr),+
    ) => {
        link_query!(
            "WITH changed AS (
               UPDATE urls SET version = nextval('url_version_seq'), updated_at = now(), "
                + $change + " WHERE id = $1 " + $condition + " RETURNING *
             ), event AS (
               INSERT INTO events (url_id, user_id, event_type, details)
               SELECT id, $2::bigint, " + $event + ", " + $details + " FROM changed
             ), outbox AS (
               INSERT INTO cache_invalidations (kind, subject, version)
               SELECT 'link', short_code, version FROM changed
               RETURNING id AS outbox_id, version AS outbox_version
             ) SELECT",
            r#"outbox_id AS "outbox_id: OutboxId"
                 FROM changed JOIN outbox ON outbox_version = version"#,
            $($argument),+
        )
    };
}

impl Store {
    /// Takes a link down. `actor` is the administrator, if known. If the link is taken down already, only the reason
    /// changes. `None` if no link has the id.
    pub async fn take_down(
        &self,
        id: LinkId,
        actor: Option<UserId>,
        reason: Option<&str>,
    ) -> Result<Option<ChangedLink>, StoreError> {
        let query = takedown_query!(
            "taken_down_at = COALESCE(taken_down_at, now()), takedown_reason = $3",
            "",
            "'taken_down'",
            "jsonb_strip_nulls(jsonb_build_object('reason', takedown_reason))",
            id.get(),
            actor.map(UserId::get),
            reason
        );
        let row = observe_query("take_down", query.fetch_optional(&self.pool)).await?;
        Ok(row.map(ChangedLink::from))
    }

    /// Ends a takedown. A trigger of the schema then restores the state that the owner chose. `None` if no link with this
    /// id is taken down.
    pub async fn restore_link(
        &self,
        id: LinkId,
        actor: Option<UserId>,
    ) -> Result<Option<ChangedLink>, StoreError> {
        let query = takedown_query!(
            "taken_down_at = NULL, takedown_reason = NULL, is_active = true",
            "AND taken_down_at IS NOT NULL",
            "'restored'",
            "'{}'::jsonb",
            id.get(),
            actor.map(UserId::get)
        );
        let row = observe_query("restore_link", query.fetch_optional(&self.pool)).await?;
        Ok(row.map(ChangedLink::from))
    }

    /// The id of the link with this short code.
    pub async fn link_id_of_code(&self, code: &str) -> Result<Option<LinkId>, StoreError> {
        let query = sqlx::query_scalar!(
            r#"SELECT id AS "id: LinkId" FROM urls WHERE short_code = $1"#,
            code
        );
        Ok(query.fetch_optional(&self.pool).await?)
    }
}

/// Takes down up to `limit` links whose target is on a banned host and contains `host`. Returns their number.
pub(in super::super) async fn take_down_links_of_host(
    executor: impl PgExecutor<'_>,
    host: &str,
    actor: Option<UserId>,
    reason: Option<&str>,
    limit: i64,
) -> Result<u64, StoreError> {
    // The first condition is that of `urls_search_idx`.
    let query = sqlx::query_scalar!(
        r#"WITH selected AS MATERIALIZED (
             SELECT id FROM urls
              WHERE (short_code COLLATE "default" || ' ' || original_url || ' '
                     || COALESCE(title, '')) ILIKE $1
                AND taken_down_at IS NULL AND has_banned_host(original_url)
              LIMIT $4
           ), locked AS MATERIALIZED (
             SELECT id FROM urls WHERE id IN (SELECT id FROM selected) ORDER BY id FOR NO KEY UPDATE
           ), changed AS (
             UPDATE urls SET taken_down_at = now(), takedown_reason = $3, updated_at = now(),
                    version = nextval('url_version_seq')
              WHERE id IN (SELECT id FROM locked) AND taken_down_at IS NULL
             RETURNING id, short_code, version
           ), event AS (
             INSERT INTO events (url_id, user_id, event_type, details)
             SELECT id, $2::bigint, 'taken_down',
                    jsonb_strip_nulls(jsonb_build_object('reason', $3::text)) FROM changed
           ), outbox AS (
             INSERT INTO cache_invalidations (kind, subject, version)
             SELECT 'link', short_code, version FROM changed
           )
           SELECT count(*) AS "count!" FROM changed"#,
        contains_pattern(host),
        actor.map(UserId::get),
        reason,
        limit
    );
    let count = observe_query("take_down_links_of_host", query.fetch_one(executor)).await?;
    Ok(u64::try_from(count).unwrap_or(0))
}
