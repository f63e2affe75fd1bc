//! What the resolve path asks: one prepared statement each.

use chrono::{DateTime, Utc};
use futures::TryStreamExt;
use linnet_telemetry::context::observe_query;

use linnet_domain::LinkId;

use super::{Store, StoreError};

/// A link as far as a redirect needs it.
#[derive(Debug, Clone)]
pub struct ResolveRow {
    /// The link.
    pub id: LinkId,
    /// The code.
    pub short_code: String,
    /// The target.
    pub original_url: String,
    /// Whether it resolves at all.
    pub is_active: bool,
    /// The redirect's status.
    pub redirect_status: i16,
    /// When it stops resolving.
    pub expires_at: Option<DateTime<Utc>>,
    /// Whether every click must be counted in the database.
    pub is_limited: bool,
    /// Orders what caches hold.
    pub version: i64,
}

/// A click on a limited link that was let through.
#[derive(Debug, Clone)]
pub struct ConsumedClick {
    /// The link.
    pub id: LinkId,
    /// The target.
    pub original_url: String,
    /// The redirect's status.
    pub redirect_status: i16,
}

impl Store {
    /// The link with this code, in whatever state.
    pub async fn find_for_resolve(&self, code: &str) -> Result<Option<ResolveRow>, StoreError> {
        let query = sqlx::query_as!(
            ResolveRow,
            r#"SELECT id AS "id: LinkId", short_code, original_url, is_active, redirect_status,
                      expires_at, max_clicks IS NOT NULL AS "is_limited!", version
                 FROM urls WHERE short_code = $1"#,
            code
        );
        Ok(observe_query("resolve", query.fetch_optional(&self.pool)).await?)
    }

    /// The links with these codes, in whatever state; those that are not there are left out.
    pub async fn find_many_for_resolve(
        &self,
        codes: &[String],
    ) -> Result<Vec<ResolveRow>, StoreError> {
        let query = sqlx::query_as!(
            ResolveRow,
            r#"SELECT id AS "id: LinkId", short_code, original_url, is_active, redirect_status,
                      expires_at, max_clicks IS NOT NULL AS "is_limited!", version
                 FROM urls WHERE short_code = ANY($1)"#,
            codes
        );
        Ok(observe_query("resolve_many", query.fetch_all(&self.pool)).await?)
    }

    /// Takes one click from a limited link, if there is one left. The row lock makes the count exact
    /// however many processes ask at once.
    pub async fn consume_click(&self, code: &str) -> Result<Option<ConsumedClick>, StoreError> {
        let query = sqlx::query_as!(
            ConsumedClick,
            r#"UPDATE urls SET clicks = clicks + 1, last_clicked_at = now()
                WHERE short_code = $1 AND is_active
                  AND (expires_at IS NULL OR expires_at > now())
                  AND (max_clicks IS NULL OR clicks < max_clicks)
               RETURNING id AS "id: LinkId", original_url, redirect_status"#,
            code
        );
        Ok(observe_query("consume_click", query.fetch_optional(&self.pool)).await?)
    }

    /// What [`Store::consume_click`] would answer, without taking a click: for `HEAD` and for bots.
    pub async fn peek_click(&self, code: &str) -> Result<Option<ConsumedClick>, StoreError> {
        let query = sqlx::query_as!(
            ConsumedClick,
            r#"SELECT id AS "id: LinkId", original_url, redirect_status FROM urls
                WHERE short_code = $1 AND is_active
                  AND (expires_at IS NULL OR expires_at > now())
                  AND (max_clicks IS NULL OR clicks < max_clicks)"#,
            code
        );
        Ok(observe_query("peek_click", query.fetch_optional(&self.pool)).await?)
    }

    /// Hands the `limit` most clicked active links to `each`, in any order. The ids are sorted first:
    /// sorting whole rows would spill to disk.
    pub async fn most_clicked(
        &self,
        limit: i64,
        mut each: impl FnMut(ResolveRow),
    ) -> Result<(), StoreError> {
        let mut rows = sqlx::query_as!(
            ResolveRow,
            r#"SELECT id AS "id: LinkId", short_code, original_url, is_active, redirect_status,
                      expires_at, max_clicks IS NOT NULL AS "is_limited!", version
                 FROM urls WHERE id = ANY (ARRAY(
                      SELECT id FROM urls WHERE is_active
                       ORDER BY clicks DESC, id DESC LIMIT $1))"#,
            limit
        )
        .fetch(&self.pool);
        while let Some(row) = rows.try_next().await? {
            each(row);
        }
        Ok(())
    }
}
