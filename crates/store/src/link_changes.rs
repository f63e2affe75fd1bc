//! Links: change and delete, one or many by the same statement.
//!
//! The rows are locked in the order of their ids before any of them is changed, so that two callers
//! with the same links wait for each other instead of ending in a deadlock.

use linnet_telemetry::context::observe_query;

use linnet_domain::{Link, LinkId, LinkPatch, OutboxId, TargetUrl, UserId, Visibility};

use super::{
    Store, StoreError,
    links::{LinkRow, link_query, status_code},
    numbers,
};

/// A changed or deleted link, and the outbox row that says so.
#[derive(Debug)]
pub struct ChangedLink {
    /// The link after the change, or before its deletion. The version is the change's own.
    pub link: Link,
    /// To be removed once the caches have the news; `None` when nothing had to change.
    pub outbox_id: Option<OutboxId>,
}

impl From<LinkRow> for ChangedLink {
    fn from(row: LinkRow) -> Self {
        Self { outbox_id: row.outbox_id, link: row.into() }
    }
}

impl Store {
    /// Changes a link, if `visible_to` may. A patch that says nothing changes nothing.
    pub async fn update_link(
        &self,
        id: LinkId,
        visible_to: Visibility,
        actor: Option<UserId>,
        patch: &LinkPatch,
    ) -> Result<Option<ChangedLink>, StoreError> {
        Ok(self.update_links(&[id], visible_to, actor, patch).await?.pop())
    }

    /// Changes those of these links that `visible_to` may, all or none, in any order.
    pub async fn update_links(
        &self,
        ids: &[LinkId],
        visible_to: Visibility,
        actor: Option<UserId>,
        patch: &LinkPatch,
    ) -> Result<Vec<ChangedLink>, StoreError> {
        let details = patch_details(patch);
        if details.is_empty() {
            return self.unchanged_links(ids, visible_to).await;
        }
        let query = link_query!(
            r#"WITH mine AS (
                 SELECT id FROM urls
                  WHERE id = ANY($1) AND ($2::bigint IS NULL OR user_id = $2)
                  ORDER BY id FOR NO KEY UPDATE
               ), changed AS (
                 UPDATE urls SET
                   original_url = COALESCE($4, original_url),
                   title = CASE WHEN $5 THEN $6 ELSE title END,
                   is_active = COALESCE($7, is_active),
                   redirect_status = COALESCE($8, redirect_status),
                   expires_at = CASE WHEN $9 THEN $10 ELSE expires_at END,
                   max_clicks = CASE WHEN $11 THEN $12 ELSE max_clicks END,
                   version = nextval('url_version_seq'),
                   updated_at = now()
                 WHERE id IN (SELECT id FROM mine)
                 RETURNING *
               ), event AS (
                 INSERT INTO events (url_id, user_id, event_type, details)
                 SELECT id, $3::bigint, 'updated', $13 FROM changed
               ), news AS (
                 INSERT INTO cache_invalidations (kind, subject, version)
                 SELECT 'link', short_code, version FROM changed
                 RETURNING id AS outbox_id, version AS news_version
               )
               SELECT"#,
            r#"outbox_id AS "outbox_id: OutboxId" FROM changed JOIN news ON news_version = version"#,
            &numbers(ids),
            visible_to.owner_filter(),
            actor.map(UserId::get),
            patch.target.as_ref().map(TargetUrl::as_str),
            patch.title.is_some(),
            patch.title.as_ref().and_then(|title| title.as_deref()),
            patch.is_active,
            patch.redirect_status.map(status_code),
            patch.expires_at.is_some(),
            patch.expires_at.flatten(),
            patch.max_clicks.is_some(),
            patch.max_clicks.flatten(),
            serde_json::Value::Object(details),
        );
        let rows = observe_query("update_links", query.fetch_all(&self.pool)).await?;
        Ok(rows.into_iter().map(ChangedLink::from).collect())
    }

    /// Deletes a link, if `visible_to` may. Its events stay.
    pub async fn delete_link(
        &self,
        id: LinkId,
        visible_to: Visibility,
        actor: Option<UserId>,
    ) -> Result<Option<ChangedLink>, StoreError> {
        Ok(self.delete_links(&[id], visible_to, actor).await?.pop())
    }

    /// Deletes those of these links that `visible_to` may, all or none, in any order. Their events stay.
    pub async fn delete_links(
        &self,
        ids: &[LinkId],
        visible_to: Visibility,
        actor: Option<UserId>,
    ) -> Result<Vec<ChangedLink>, StoreError> {
        let query = link_query!(
            r#"WITH mine AS (
                 SELECT id FROM urls
                  WHERE id = ANY($1) AND ($2::bigint IS NULL OR user_id = $2)
                  ORDER BY id FOR UPDATE
               ), gone AS (
                 DELETE FROM urls WHERE id IN (SELECT id FROM mine)
                 RETURNING id, user_id, short_code, original_url, title, is_active,
                   redirect_status, expires_at, max_clicks, clicks, created_at, updated_at,
                   nextval('url_version_seq') AS version
               ), event AS (
                 INSERT INTO events (url_id, user_id, event_type, details)
                 SELECT id, $3::bigint, 'deleted', jsonb_build_object(
                     'short_code', short_code, 'original_url', original_url) FROM gone
               ), news AS (
                 INSERT INTO cache_invalidations (kind, subject, version)
                 SELECT 'link', short_code, version FROM gone
                 RETURNING id AS outbox_id, version AS news_version
               )
               SELECT"#,
            r#"outbox_id AS "outbox_id: OutboxId" FROM gone JOIN news ON news_version = version"#,
            &numbers(ids),
            visible_to.owner_filter(),
            actor.map(UserId::get),
        );
        let rows = observe_query("delete_links", query.fetch_all(&self.pool)).await?;
        Ok(rows.into_iter().map(ChangedLink::from).collect())
    }

    /// What a patch that says nothing leaves as it is.
    async fn unchanged_links(
        &self,
        ids: &[LinkId],
        visible_to: Visibility,
    ) -> Result<Vec<ChangedLink>, StoreError> {
        let query = link_query!(
            "SELECT",
            r#"NULL::bigint AS "outbox_id: OutboxId" FROM urls
                WHERE id = ANY($1) AND ($2::bigint IS NULL OR user_id = $2)"#,
            &numbers(ids),
            visible_to.owner_filter(),
        );
        let rows = observe_query("find_links", query.fetch_all(&self.pool)).await?;
        Ok(rows.into_iter().map(ChangedLink::from).collect())
    }
}

/// What an `updated` event says: the fields that the caller set, with their new values.
fn patch_details(patch: &LinkPatch) -> serde_json::Map<String, serde_json::Value> {
    let mut details = serde_json::Map::new();
    let mut note = |field: &str, value: serde_json::Value| {
        details.insert(field.to_owned(), value);
    };
    if let Some(target) = &patch.target {
        note("original_url", target.as_str().into());
    }
    if let Some(title) = &patch.title {
        note("title", title.clone().into());
    }
    if let Some(is_active) = patch.is_active {
        note("is_active", is_active.into());
    }
    if let Some(status) = patch.redirect_status {
        note("redirect_status", status.code().into());
    }
    if let Some(expires_at) = patch.expires_at {
        note("expires_at", expires_at.map(|time| time.to_rfc3339()).into());
    }
    if let Some(max_clicks) = patch.max_clicks {
        note("max_clicks", max_clicks.into());
    }
    details
}
