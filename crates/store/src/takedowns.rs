//! Takedowns, and bans of hosts and codes. Only commands of an operator call these functions.
//!
//! Triggers of the schema enforce them in every statement that writes links: a link that is taken down stays inactive,
//! no target has a banned host, and no link gets a code that is held. The outbox relay publishes the invalidations.

use linnet_domain::LinkId;
use linnet_telemetry::context::observe_query;

use super::{Store, StoreError};

/// Finding the links with a host takes a scan of all links.
const SCAN_TIMEOUTS: &str =
    "SELECT set_config('statement_timeout', '60s', true), set_config('lock_timeout', '10s', true)";

/// `query_scalar!` that changes links, records an event for each, and queues the invalidations: the assignments, the
/// condition, the type of the event, and the arguments.
macro_rules! takedown_query {
    ($change:literal, $condition:literal, $event:literal, $argument:expr) => {
        sqlx::query_scalar!(
            "WITH changed AS (UPDATE urls SET version = nextval('url_version_seq'), updated_at = now(), "
                + $change
                + " WHERE "
                + $condition
                + r#" RETURNING id, short_code, version
             ), event AS (
               INSERT INTO events (url_id, event_type) SELECT id, "#
                + $event
                + r#" FROM changed
             ), outbox AS (
               INSERT INTO cache_invalidations (kind, subject, version)
               SELECT 'link', short_code, version FROM changed
             )
             SELECT id AS "id!: LinkId" FROM changed"#,
            $argument
        )
    };
}

impl Store {
    /// Takes a link down. `None` if no link has the code.
    pub async fn take_down(&self, code: &str) -> Result<Option<LinkId>, StoreError> {
        let query = takedown_query!(
            "taken_down_at = COALESCE(taken_down_at, now())",
            "short_code = $1",
            "'taken_down'",
            code
        );
        Ok(observe_query("take_down", query.fetch_optional(&self.pool)).await?)
    }

    /// Ends a takedown and activates the link. `None` if no link with this code is taken down.
    pub async fn restore_link(&self, code: &str) -> Result<Option<LinkId>, StoreError> {
        let query = takedown_query!(
            "taken_down_at = NULL, is_active = true",
            "short_code = $1 AND taken_down_at IS NOT NULL",
            "'restored'",
            code
        );
        Ok(observe_query("restore_link", query.fetch_optional(&self.pool)).await?)
    }

    /// Bans a host with its subdomains, and takes down the links to it. Returns their number.
    pub async fn ban_host(&self, host: &str) -> Result<u64, StoreError> {
        sqlx::query!("INSERT INTO banned_hosts (host) VALUES ($1) ON CONFLICT DO NOTHING", host)
            .execute(&self.pool)
            .await?;
        // Transactions that began before the ban may still write links. This lock is granted when they have ended.
        let mut barrier = self.pool.begin().await?;
        sqlx::query(SCAN_TIMEOUTS).execute(&mut *barrier).await?;
        sqlx::query("LOCK TABLE urls IN SHARE ROW EXCLUSIVE MODE").execute(&mut *barrier).await?;
        barrier.commit().await?;
        let mut transaction = self.pool.begin().await?;
        sqlx::query(SCAN_TIMEOUTS).execute(&mut *transaction).await?;
        let count = sqlx::query_scalar!(
            r#"WITH changed AS (
                 UPDATE urls SET taken_down_at = now(), version = nextval('url_version_seq'),
                        updated_at = now()
                  WHERE taken_down_at IS NULL AND position($1 IN original_url) > 0
                    AND has_banned_host(original_url)
                 RETURNING id, short_code, version
               ), event AS (
                 INSERT INTO events (url_id, event_type) SELECT id, 'taken_down' FROM changed
               ), outbox AS (
                 INSERT INTO cache_invalidations (kind, subject, version)
                 SELECT 'link', short_code, version FROM changed
               )
               SELECT count(*) AS "count!" FROM changed"#,
            host
        )
        .fetch_one(&mut *transaction)
        .await?;
        transaction.commit().await?;
        Ok(u64::try_from(count).unwrap_or(0))
    }

    /// Ends the ban of a host. Its links stay taken down. Returns whether it was banned.
    pub async fn unban_host(&self, host: &str) -> Result<bool, StoreError> {
        let query = sqlx::query!("DELETE FROM banned_hosts WHERE host = $1", host);
        Ok(query.execute(&self.pool).await?.rows_affected() > 0)
    }

    /// Bans a code: no new link gets it. A link that has it stays until it is taken down or deleted.
    pub async fn ban_code(&self, code: &str) -> Result<(), StoreError> {
        sqlx::query!(
            "INSERT INTO held_codes (short_code, is_banned) VALUES ($1, true)
             ON CONFLICT (short_code) DO UPDATE SET is_banned = true",
            code
        )
        .execute(&self.pool)
        .await?;
        Ok(())
    }

    /// Frees a banned or held code for everybody. Returns whether it was held.
    pub async fn release_code(&self, code: &str) -> Result<bool, StoreError> {
        let query = sqlx::query!("DELETE FROM held_codes WHERE short_code = $1", code);
        Ok(query.execute(&self.pool).await?.rows_affected() > 0)
    }

    /// Deletes up to `limit` rows of codes that have been held for `days`. Returns their number.
    pub async fn delete_released_codes(&self, days: u32, limit: i64) -> Result<u64, StoreError> {
        let query = sqlx::query!(
            "DELETE FROM held_codes WHERE short_code IN (
               SELECT short_code FROM held_codes
                WHERE NOT is_banned AND released_at < now() - make_interval(days => $1) LIMIT $2)",
            i32::try_from(days).unwrap_or(i32::MAX),
            limit
        );
        Ok(query.execute(&self.pool).await?.rows_affected())
    }
}
