//! Changing and deleting links, one or many with the same statement.
//!
//! Rows are locked in the order of their ids before any of them changes, so that two callers with the same links wait
//! for each other and cannot deadlock.

use crate::observe::observe_query;

use linnet_domain::{Link, LinkId, LinkPatch, OutboxId, TargetUrl, UserId, Visibility};

use super::{
    super::{
        Store, StoreError,
        columns::numbers,
        quotas::{RowKind, Written, count_written},
    },
    LinkRow, link_query, status_code,
};

/// A changed or deleted link with its outbox row.
#[derive(Debug)]
pub struct ChangedLink {
    /// The link after the change or before the deletion, with the version of the change or deletion.
    pub link: Link,
    /// The outbox row, to delete once the invalidation is published; `None` if nothing has changed.
    pub outbox_id: Option<OutboxId>,
}

impl From<LinkRow> for ChangedLink {
    fn from(row: LinkRow) -> Self {
        Self { outbox_id: row.outbox_id, link: row.into() }
    }
}

/// Runs the query macro `$query` for a statement that deletes the links with the ids that `$selection` selects, and
/// inserts their `deleted` events and outbox rows.
///
/// `$actor` is the user in the events, and `$details` is added to their details. `$rest` follows the CTE `deleted`,
/// which contains the deleted links with the versions of the deletion, and the CTE `outbox` with `outbox_id` and
/// `outbox_version`.
macro_rules! delete_links_statement {
    (
        $($query:ident)::+, $selection:literal, $actor:literal, $details:literal, $($rest:tt)*
    ) => {
        $($query)::+!(
            "WITH selected AS MATERIALIZED (" + $selection + "), deleted AS (
               DELETE FROM urls USING selected WHERE urls.id = selected.id
               RETURNING urls.id, user_id, short_code, original_url, title, is_active,
                 redirect_status, expires_at, max_clicks, clicks, created_at, updated_at,
                 taken_down_at, takedown_reason, nextval('url_version_seq') AS version
             ), event AS (
               INSERT INTO events (url_id, user_id, event_type, details)
               SELECT id, " + $actor + ", 'deleted', jsonb_build_object(
                   'short_code', short_code, 'original_url', original_url" + $details + ")
                 FROM deleted
             ), outbox AS (
               INSERT INTO cache_invalidations (kind, subject, version)
               SELECT 'link', short_code, version FROM deleted
               RETURNING id AS outbox_id, version AS outbox_version
             ) " + $($rest)*
        )
    };
}
pub(in super::super) use delete_links_statement;

impl Store {
    /// Changes a link, if it is visible. An empty patch changes nothing.
    pub async fn update_link(
        &self,
        id: LinkId,
        visible_to: Visibility,
        actor: Option<UserId>,
        patch: &LinkPatch,
    ) -> Result<Option<ChangedLink>, StoreError> {
        Ok(self.update_links(&[id], visible_to, actor, patch).await?.pop())
    }

    /// Changes the links with these ids that are visible, all of them or none. Returns them in any order.
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
        let attributes = &patch.attributes;
        let query = link_query!(
            r#"WITH selected AS (
                 SELECT id FROM urls
                  WHERE id = ANY($1) AND ($2::bigint IS NULL OR user_id = $2)
                  ORDER BY id FOR NO KEY UPDATE
               ), changed AS (
                 UPDATE urls SET
                   original_url = COALESCE($4, original_url), title = CASE WHEN $5 THEN $6 ELSE title END,
                   is_active = COALESCE($7, is_active),
                   active_after_takedown =
                     CASE WHEN taken_down_at IS NOT NULL THEN COALESCE($7, active_after_takedown) END,
                   redirect_status = COALESCE($8, redirect_status),
                   expires_at = CASE WHEN $9 THEN $10 ELSE expires_at END,
                   max_clicks = CASE WHEN $11 THEN $12 ELSE max_clicks END,
                   version = nextval('url_version_seq'), updated_at = now()
                 WHERE id IN (SELECT id FROM selected)
                 RETURNING *
               ), event AS (
                 INSERT INTO events (url_id, user_id, event_type, details)
                 SELECT id, $3::bigint, 'updated', $13 FROM changed
               ), outbox AS (
                 INSERT INTO cache_invalidations (kind, subject, version)
                 SELECT 'link', short_code, version FROM changed
                 RETURNING id AS outbox_id, version AS outbox_version
               )
               SELECT"#,
            r#"outbox_id AS "outbox_id: OutboxId"
                 FROM changed JOIN outbox ON outbox_version = version"#,
            &numbers(ids),
            visible_to.owner_filter(),
            actor.map(UserId::get),
            patch.target.as_ref().map(TargetUrl::as_str),
            attributes.title.is_some(),
            attributes.title.as_ref().and_then(|title| title.as_deref()),
            attributes.is_active,
            attributes.redirect_status.map(status_code),
            attributes.expires_at.is_some(),
            attributes.expires_at.flatten(),
            attributes.max_clicks.is_some(),
            attributes.max_clicks.flatten(),
            serde_json::Value::Object(details),
        );
        let rows = observe_query("update_links", query.fetch_all(&self.pool)).await?;
        let changed: Vec<ChangedLink> = rows.into_iter().map(ChangedLink::from).collect();
        self.count_changes(actor, patch, &changed).await;
        Ok(changed)
    }

    /// Counts the events and the new texts of a change of several links that is committed. The next maintenance subtracts
    /// the texts that they replace.
    async fn count_changes(
        &self,
        actor: Option<UserId>,
        patch: &LinkPatch,
        changed: &[ChangedLink],
    ) {
        if changed.len() < 2 {
            return;
        }
        let details_bytes = serde_json::Value::Object(patch_details(patch)).to_string().len();
        let title = patch.attributes.title.as_ref().and_then(Option::as_ref);
        let text_bytes = patch.target.as_ref().map_or(0, |target| target.as_str().len())
            + title.map_or(0, String::len);
        let links = changed.iter().filter(|_| text_bytes > 0).map(|changed| Written {
            user_id: changed.link.user_id,
            rows: 0,
            bytes: text_bytes,
        });
        let events =
            Written { user_id: actor, rows: changed.len(), bytes: details_bytes * changed.len() };
        let counted = async {
            let mut connection = self.pool.acquire().await?;
            count_written(&mut connection, RowKind::Links, links).await?;
            count_written(&mut connection, RowKind::Events, std::iter::once(events)).await
        };
        if let Err(error) = counted.await {
            tracing::warn!(%error, "change not counted for the quotas until the next maintenance");
        }
    }

    /// Deletes a link, if it is visible. Its events remain.
    pub async fn delete_link(
        &self,
        id: LinkId,
        visible_to: Visibility,
        actor: Option<UserId>,
    ) -> Result<Option<ChangedLink>, StoreError> {
        Ok(self.delete_links(&[id], visible_to, actor).await?.pop())
    }

    /// Deletes the links with these ids that are visible, all of them or none. Returns them in any order. Their events
    /// remain.
    pub async fn delete_links(
        &self,
        ids: &[LinkId],
        visible_to: Visibility,
        actor: Option<UserId>,
    ) -> Result<Vec<ChangedLink>, StoreError> {
        let query = delete_links_statement!(
            link_query,
            "SELECT id FROM urls WHERE id = ANY($1) AND ($2::bigint IS NULL OR user_id = $2)
              ORDER BY id FOR UPDATE",
            "$3::bigint",
            "",
            "SELECT",
            r#"outbox_id AS "outbox_id: OutboxId"
                 FROM deleted JOIN outbox ON outbox_version = version"#,
            &numbers(ids),
            visible_to.owner_filter(),
            actor.map(UserId::get),
        );
        let rows = observe_query("delete_links", query.fetch_all(&self.pool)).await?;
        Ok(rows.into_iter().map(ChangedLink::from).collect())
    }

    /// The result of an empty patch: the visible links with these ids, unchanged.
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

/// The details of an `updated` event: the changed fields with their new values.
fn patch_details(patch: &LinkPatch) -> serde_json::Map<String, serde_json::Value> {
    let mut details = patch.attributes.details();
    if let Some(target) = &patch.target {
        details.insert("original_url".to_owned(), target.as_str().into());
    }
    details
}
