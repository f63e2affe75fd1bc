//! Deleting links that expired long ago.

use super::{
    super::{Store, StoreError},
    delete_links_statement,
};

impl Store {
    /// Deletes up to `limit` links that expired more than `days` ago, oldest first. Returns their number. A link that
    /// another transaction has locked is left for the next call.
    pub async fn delete_expired_links(&self, days: u32, limit: i64) -> Result<u64, StoreError> {
        let deletion = delete_links_statement!(
            sqlx::query_scalar,
            "SELECT id FROM urls
              WHERE expires_at < now() - make_interval(days => $1)
              ORDER BY expires_at LIMIT $2
              FOR UPDATE SKIP LOCKED",
            "NULL::bigint",
            ", 'reason', 'expired'",
            r#"SELECT count(*) AS "count!" FROM deleted"#,
            i32::try_from(days).unwrap_or(i32::MAX),
            limit
        );
        let count = deletion.fetch_one(&self.pool).await?;
        Ok(u64::try_from(count).unwrap_or(0))
    }
}
