//! Queries of the resolve path: one prepared statement for each lookup.

use std::time::Duration;

use crate::observe::observe_query;
use chrono::{DateTime, Utc};
use futures::TryStreamExt;

use linnet_domain::LinkId;

use super::{Store, StoreError};

/// The columns of a link that a redirect needs.
#[expect(clippy::struct_excessive_bools, reason = "independent columns of a row")]
#[derive(Debug, Clone)]
pub struct ResolveRow {
    /// The link's id.
    pub id: LinkId,
    /// The short code.
    pub short_code: String,
    /// The target URL.
    pub original_url: String,
    /// Whether the link resolves.
    pub is_active: bool,
    /// The status of the redirect.
    pub redirect_status: i16,
    /// The expiry.
    pub expires_at: Option<DateTime<Utc>>,
    /// Whether the link has expired, by the database's clock.
    pub has_expired: bool,
    /// Whether all clicks of a link with a click limit are used up.
    pub is_used_up: bool,
    /// Whether the link has a click limit, so that the database must count every click.
    pub is_limited: bool,
    /// The version; caches keep the higher one.
    pub version: i64,
}

/// A redirect of a link with a click limit.
#[derive(Debug, Clone)]
pub struct ConsumedClick {
    /// The link's id.
    pub id: LinkId,
    /// The target URL.
    pub original_url: String,
    /// The status of the redirect.
    pub redirect_status: i16,
}

/// `query_as!` for a [`ResolveRow`] of `urls` with this condition.
macro_rules! resolve_query {
    ($condition:literal, $argument:expr) => {
        sqlx::query_as!(
            ResolveRow,
            r#"SELECT id AS "id!: LinkId", short_code AS "short_code!", original_url AS "original_url!",
                      is_active AS "is_active!", redirect_status AS "redirect_status!", expires_at,
                      max_clicks IS NOT NULL AS "is_limited!", version AS "version!",
                      COALESCE(expires_at <= now(), false) AS "has_expired!",
                      COALESCE(clicks >= max_clicks, false) AS "is_used_up!"
                 FROM urls WHERE "#
                + $condition,
            $argument
        )
    };
}

/// `query_as!` for a [`ConsumedClick`] of the link with the code `$1`, if it has clicks left or `$unless` is true: the
/// statement before the condition, the statement after it, and the arguments.
macro_rules! limited_link_query {
    ($before:literal, $unless:literal, $after:literal, $($argument:expr),+) => {
        sqlx::query_as!(
            ConsumedClick,
            $before
                + " WHERE short_code = $1 AND is_active
                      AND (expires_at IS NULL OR expires_at > now())
                      AND (max_clicks IS NULL OR clicks < max_clicks OR "
                + $unless
                + ") "
                + $after,
            $($argument),+
        )
    };
}

impl Store {
    /// The link with this code, in any state. A code without a link that is held or banned is an inactive link with the
    /// version 0: it was published, so that its visitors do not guess.
    pub async fn find_for_resolve(&self, code: &str) -> Result<Option<ResolveRow>, StoreError> {
        // The limit ends the statement at the link, if there is one. The id of an inactive link is not used.
        let query = resolve_query!(
            "short_code = $1
             UNION ALL
             SELECT 1, short_code, '', false, 302::smallint, NULL, false, 0, false, false
               FROM held_codes
              WHERE short_code = $1 AND NOT EXISTS (SELECT FROM urls WHERE short_code = $1)
              LIMIT 1",
            code
        );
        Ok(observe_query("resolve", query.fetch_optional(&self.pool)).await?)
    }

    /// The highest version that a change of a link has taken.
    pub async fn last_version(&self) -> Result<i64, StoreError> {
        let query = sqlx::query_scalar!(r#"SELECT last_value AS "last!" FROM url_version_seq"#);
        Ok(observe_query("last_version", query.fetch_one(&self.pool)).await?)
    }

    /// The links with these codes, in any state and any order. Codes without a link are left out.
    pub async fn find_many_for_resolve(
        &self,
        codes: &[String],
    ) -> Result<Vec<ResolveRow>, StoreError> {
        let query = resolve_query!("short_code = ANY($1)", codes);
        Ok(observe_query("resolve_many", query.fetch_all(&self.pool)).await?)
    }

    /// Counts a click on a link with a click limit. `None` if the link has no click left, does not resolve, or its limit
    /// must settle ([`Store::limit_settles_in`]). The row lock makes the count exact for concurrent calls of all
    /// processes: a call that waited for it reads what the one before has written. A call with the `visit` of an earlier
    /// one repeats it and counts nothing, once: the complement of its number replaces it.
    pub async fn consume_click(
        &self,
        code: &str,
        visit: Option<i64>,
    ) -> Result<Option<ConsumedClick>, StoreError> {
        let query = limited_link_query!(
            "UPDATE urls SET
               clicks = clicks + CASE WHEN $2 = ANY (recent_visits) THEN 0 ELSE 1 END,
               recent_visits = CASE
                 WHEN $2::bigint IS NULL OR max_clicks IS NULL THEN recent_visits
                 WHEN $2 = ANY (recent_visits) THEN array_replace(recent_visits, $2, ~$2::bigint)
                 WHEN cardinality(recent_visits) >= 32 THEN recent_visits[2:32] || $2
                 ELSE recent_visits || $2 END,
               last_clicked_at = now()",
            "$2 = ANY (recent_visits)",
            r#"AND (limit_counts_from IS NULL OR limit_counts_from <= now())
               RETURNING id AS "id: LinkId", original_url, redirect_status"#,
            code,
            visit
        );
        Ok(observe_query("consume_click", query.fetch_optional(&self.pool)).await?)
    }

    /// The time until the limit of a link that had none before has settled (`links.limit_settle_ms`). Until then,
    /// clicks from before the limit may not have reached the row. `None` if the limit has settled or is already used
    /// up.
    pub async fn limit_settles_in(&self, code: &str) -> Result<Option<Duration>, StoreError> {
        let query = sqlx::query_scalar!(
            r#"SELECT extract(epoch FROM limit_counts_from - now())::float8 AS "seconds!"
                 FROM urls
                WHERE short_code = $1 AND is_active AND clicks < max_clicks
                  AND limit_counts_from > now()"#,
            code
        );
        let seconds = observe_query("limit_settles_in", query.fetch_optional(&self.pool)).await?;
        Ok(seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok()))
    }

    /// Gives back a click of [`Store::consume_click`] for which no redirect was sent, unless its visit was repeated
    /// meanwhile: then the repetition has the click.
    pub async fn return_click(&self, id: LinkId, visit: Option<i64>) -> Result<(), StoreError> {
        let query = sqlx::query!(
            "UPDATE urls SET clicks = clicks - 1, recent_visits = array_remove(recent_visits, $2)
              WHERE id = $1 AND clicks > 0
                AND ($2::bigint IS NULL OR max_clicks IS NULL OR $2 = ANY (recent_visits)
                     OR COALESCE(~$2::bigint <> ALL (recent_visits), true))",
            id.get(),
            visit
        );
        observe_query("return_click", query.execute(&self.pool)).await?;
        Ok(())
    }

    /// The link, if it has clicks left, without counting a click: for requests that do not use up a click. Does not
    /// wait for a limit to settle.
    pub async fn peek_click(&self, code: &str) -> Result<Option<ConsumedClick>, StoreError> {
        let query = limited_link_query!(
            r#"SELECT id AS "id: LinkId", original_url, redirect_status FROM urls"#,
            "false",
            "",
            code
        );
        Ok(observe_query("peek_click", query.fetch_optional(&self.pool)).await?)
    }

    /// Passes the `limit` most clicked active links to `each`, in any order. Only ids are sorted, because sorting whole
    /// rows would spill to disk.
    pub async fn most_clicked(
        &self,
        limit: i64,
        mut each: impl FnMut(ResolveRow),
    ) -> Result<(), StoreError> {
        let mut rows = resolve_query!(
            "id = ANY (ARRAY(
                SELECT id FROM urls WHERE is_active ORDER BY clicks DESC, id DESC LIMIT $1))",
            limit
        )
        .fetch(&self.pool);
        while let Some(row) = rows.try_next().await? {
            each(row);
        }
        Ok(())
    }
}
