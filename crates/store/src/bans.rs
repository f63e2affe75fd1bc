//! Bans of hosts and of short codes. Only an administrator or operator calls these functions.
//!
//! Triggers of the schema enforce bans in every statement that writes links: no target has a banned host, and no link
//! gets a code that is held or banned.

use crate::observe::observe_query;
use linnet_domain::{BanId, BannedCode, BannedHost, Page, UserId, host_spellings};

use super::{Store, StoreError, links::take_down_links_of_host};

/// Timeouts of statements that search all links or wait for other transactions. As for a user's deletion, the wait for a
/// lock ends before the gateway's response timeout; meanwhile it blocks all writers of links.
const LONG_TIMEOUTS: &str =
    "SELECT set_config('statement_timeout', '60s', true), set_config('lock_timeout', '3s', true)";
/// The maximum number of links of one transaction.
const MAX_LINKS: i64 = 1_000;

impl Store {
    /// Bans a host with its subdomains. If the host is banned already, only its reason changes. Existing links to the
    /// host stay active until [`Store::take_down_links_to`].
    pub async fn ban_host(
        &self,
        host: &str,
        actor: Option<UserId>,
        reason: Option<&str>,
    ) -> Result<BannedHost, StoreError> {
        let query = sqlx::query_as!(
            BannedHost,
            r#"INSERT INTO banned_hosts (host, user_id, reason) VALUES ($1, $2, $3)
               ON CONFLICT (host) DO UPDATE SET reason = COALESCE($3, banned_hosts.reason)
               RETURNING id AS "id: BanId", host, reason, user_id AS "user_id: UserId", created_at"#,
            host,
            actor.map(UserId::get),
            reason
        );
        Ok(observe_query("ban_host", query.fetch_one(&self.pool)).await?)
    }

    /// Takes down every link to a banned host, in each spelling of it, in transactions of up to 1,000 links. Returns their number. The outbox
    /// relay publishes the invalidations. A call that failed can be repeated.
    pub async fn take_down_links_to(
        &self,
        ban: &BannedHost,
        actor: Option<UserId>,
    ) -> Result<u64, StoreError> {
        // Transactions that began before the ban may still write links. This lock is granted when they have ended.
        let mut barrier = self.begin().await?;
        sqlx::query(LONG_TIMEOUTS).execute(&mut *barrier).await?;
        sqlx::query("LOCK TABLE urls IN SHARE ROW EXCLUSIVE MODE").execute(&mut *barrier).await?;
        barrier.commit().await?;
        let reason = ban.reason.as_deref();
        let mut total = 0;
        for host in host_spellings(&ban.host) {
            loop {
                let mut transaction = self.begin().await?;
                sqlx::query(LONG_TIMEOUTS).execute(&mut *transaction).await?;
                let count =
                    take_down_links_of_host(&mut *transaction, &host, actor, reason, MAX_LINKS)
                        .await?;
                transaction.commit().await?;
                total += count;
                if count == 0 {
                    break;
                }
            }
        }
        Ok(total)
    }

    /// One page of the banned hosts, by id.
    pub async fn list_banned_hosts(&self, page: Page) -> Result<Vec<BannedHost>, StoreError> {
        let query = sqlx::query_as!(
            BannedHost,
            r#"SELECT id AS "id: BanId", host, reason, user_id AS "user_id: UserId", created_at
                 FROM banned_hosts WHERE id > $1 ORDER BY id LIMIT $2 OFFSET $3"#,
            page.after(),
            page.size,
            page.offset()
        );
        Ok(observe_query("list_banned_hosts", query.fetch_all(&self.pool)).await?)
    }

    /// Ends the ban of a host. Its links stay taken down. Returns whether there was such a ban.
    pub async fn unban_host(&self, id: BanId) -> Result<bool, StoreError> {
        let query = sqlx::query!("DELETE FROM banned_hosts WHERE id = $1", id.get());
        Ok(query.execute(&self.pool).await?.rows_affected() > 0)
    }

    /// [`Store::unban_host`] by the host.
    pub async fn unban_host_named(&self, host: &str) -> Result<bool, StoreError> {
        let query = sqlx::query!("DELETE FROM banned_hosts WHERE host = $1", host);
        Ok(query.execute(&self.pool).await?.rows_affected() > 0)
    }

    /// Bans a code: no new link gets it. A link that has it stays until it is taken down or deleted.
    pub async fn ban_code(
        &self,
        code: &str,
        actor: Option<UserId>,
        reason: Option<&str>,
    ) -> Result<BannedCode, StoreError> {
        let query = sqlx::query_as!(
            BannedCode,
            r#"INSERT INTO held_codes (short_code, is_banned, banned_by, reason)
               VALUES ($1, true, $2, $3)
               ON CONFLICT (short_code) DO UPDATE SET is_banned = true,
                 banned_by = CASE WHEN held_codes.is_banned THEN held_codes.banned_by ELSE $2 END,
                 reason = COALESCE($3, held_codes.reason)
               RETURNING ban_id AS "id!: BanId", short_code, reason,
                         banned_by AS "user_id: UserId", banned_at AS "created_at!""#,
            code,
            actor.map(UserId::get),
            reason
        );
        Ok(observe_query("ban_code", query.fetch_one(&self.pool)).await?)
    }

    /// One page of the banned codes, by id.
    pub async fn list_banned_codes(&self, page: Page) -> Result<Vec<BannedCode>, StoreError> {
        let query = sqlx::query_as!(
            BannedCode,
            r#"SELECT ban_id AS "id!: BanId", short_code, reason, banned_by AS "user_id: UserId",
                      banned_at AS "created_at!"
                 FROM held_codes WHERE is_banned AND ban_id > $1
                ORDER BY ban_id LIMIT $2 OFFSET $3"#,
            page.after(),
            page.size,
            page.offset()
        );
        Ok(observe_query("list_banned_codes", query.fetch_all(&self.pool)).await?)
    }

    /// Ends the ban of a code, which every user can take then. Returns whether there was such a ban.
    pub async fn unban_code(&self, id: BanId) -> Result<bool, StoreError> {
        let query =
            sqlx::query!("DELETE FROM held_codes WHERE is_banned AND ban_id = $1", id.get());
        Ok(query.execute(&self.pool).await?.rows_affected() > 0)
    }

    /// Ends the ban or the hold of a code, which every user can take then. Returns whether it was banned or held.
    pub async fn release_code(&self, code: &str) -> Result<bool, StoreError> {
        let query = sqlx::query!("DELETE FROM held_codes WHERE short_code = $1", code);
        Ok(query.execute(&self.pool).await?.rows_affected() > 0)
    }

    /// Deletes up to `limit` records of codes that were held for more than `days`. Returns their number.
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
