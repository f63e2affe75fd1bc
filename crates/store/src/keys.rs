//! API keys. A revoked key is invisible to every query; its row remains as an audit record.

use chrono::{DateTime, Utc};
use linnet_domain::{Scope, Scopes};
use linnet_telemetry::context::observe_query;

use linnet_domain::{ApiKey, ApiKeySecret, OutboxId, Page, UserId, Visibility};

use super::{Store, StoreError};

/// The owner and the permissions of a presented key.
#[derive(Debug, Clone)]
pub struct KeyOwner {
    /// The user.
    pub user_id: UserId,
    /// The permissions.
    pub scopes: Scopes,
    /// The expiry.
    pub expires_at: Option<DateTime<Utc>>,
}

struct KeyRow {
    id: String,
    user_id: UserId,
    name: String,
    scopes: Vec<String>,
    created_at: DateTime<Utc>,
    expires_at: Option<DateTime<Utc>>,
}

/// Parses stored scopes. Unknown names, of a later release, grant nothing.
fn parse_scopes(names: &[String]) -> Scopes {
    names.iter().filter_map(|name| Scope::parse(name)).collect()
}

impl From<KeyRow> for ApiKey {
    fn from(row: KeyRow) -> Self {
        Self {
            scopes: parse_scopes(&row.scopes),
            id: row.id,
            user_id: row.user_id,
            name: row.name,
            created_at: row.created_at,
            expires_at: row.expires_at,
        }
    }
}

/// `query_as!` for a [`KeyRow`]: the query before the columns, the query after them, and the arguments.
macro_rules! key_query {
    ($before:literal, $after:literal $(, $argument:expr)* $(,)?) => {
        sqlx::query_as!(
            KeyRow,
            $before + r#" id, user_id AS "user_id: UserId", name, scopes, created_at, expires_at "#
                + $after,
            $($argument),*
        )
    };
}

impl Store {
    /// Creates a key from its id and the hash of its secret.
    pub async fn create_key(
        &self,
        secret: &ApiKeySecret,
        user_id: UserId,
        name: &str,
        scopes: Scopes,
        expires_at: Option<DateTime<Utc>>,
    ) -> Result<ApiKey, StoreError> {
        let scopes: Vec<String> = scopes.iter().map(|scope| scope.as_str().to_owned()).collect();
        let hash = secret.hash();
        let query = key_query!(
            "INSERT INTO api_keys (id, user_id, name, secret_hash, scopes, expires_at)
             VALUES ($1, $2, $3, $4, $5, $6) RETURNING",
            "",
            secret.id().as_str(),
            user_id.get(),
            name,
            hash.as_bytes(),
            &scopes,
            expires_at
        );
        Ok(observe_query("create_key", query.fetch_one(&self.pool)).await?.into())
    }

    /// The owner of the key, if the key is valid. The secret's hash is compared in constant time.
    pub async fn authenticate(&self, key: &ApiKeySecret) -> Result<Option<KeyOwner>, StoreError> {
        let query = sqlx::query!(
            r#"SELECT user_id AS "user_id: UserId", secret_hash, scopes, expires_at FROM api_keys
                WHERE id = $1 AND revoked_at IS NULL
                  AND (expires_at IS NULL OR expires_at > now())"#,
            key.id().as_str()
        );
        let row = observe_query("authenticate", query.fetch_optional(&self.pool)).await?;
        Ok(row.filter(|row| key.hash().matches(&row.secret_hash)).map(|row| KeyOwner {
            user_id: row.user_id,
            scopes: parse_scopes(&row.scopes),
            expires_at: row.expires_at,
        }))
    }

    /// The key with this id, if visible.
    pub async fn find_key(
        &self,
        id: &str,
        visible_to: Visibility,
    ) -> Result<Option<ApiKey>, StoreError> {
        let query = key_query!(
            "SELECT",
            "FROM api_keys
              WHERE id = $1 AND revoked_at IS NULL AND ($2::bigint IS NULL OR user_id = $2)",
            id,
            visible_to.owner_filter()
        );
        let row = observe_query("find_key", query.fetch_optional(&self.pool)).await?;
        Ok(row.map(ApiKey::from))
    }

    /// One page of the visible keys, oldest first. Their ids are not numbers, so the sort key of the page is an offset.
    pub async fn list_keys(
        &self,
        visible_to: Visibility,
        user_id: Option<UserId>,
        page: Page,
    ) -> Result<Vec<ApiKey>, StoreError> {
        let query = key_query!(
            "SELECT",
            "FROM api_keys
              WHERE revoked_at IS NULL
                AND ($1::bigint IS NULL OR user_id = $1) AND ($2::bigint IS NULL OR user_id = $2)
              ORDER BY created_at, id LIMIT $3 OFFSET $4",
            visible_to.owner_filter(),
            user_id.map(UserId::get),
            page.size,
            page.after() + page.offset()
        );
        let rows = observe_query("list_keys", query.fetch_all(&self.pool)).await?;
        Ok(rows.into_iter().map(ApiKey::from).collect())
    }

    /// Renames a key, if visible.
    pub async fn rename_key(
        &self,
        id: &str,
        visible_to: Visibility,
        name: &str,
    ) -> Result<Option<ApiKey>, StoreError> {
        let query = key_query!(
            "UPDATE api_keys SET name = $3
              WHERE id = $1 AND revoked_at IS NULL AND ($2::bigint IS NULL OR user_id = $2)
              RETURNING",
            "",
            id,
            visible_to.owner_filter(),
            name
        );
        let row = observe_query("rename_key", query.fetch_optional(&self.pool)).await?;
        Ok(row.map(ApiKey::from))
    }

    /// Revokes a key, if visible. Returns the outbox row, or `None` if the key does not exist.
    pub async fn revoke_key(
        &self,
        id: &str,
        visible_to: Visibility,
    ) -> Result<Option<OutboxId>, StoreError> {
        let query = sqlx::query_scalar!(
            r#"WITH revoked AS (
                 UPDATE api_keys SET revoked_at = now()
                  WHERE id = $1 AND revoked_at IS NULL AND ($2::bigint IS NULL OR user_id = $2)
                  RETURNING id
               )
               INSERT INTO cache_invalidations (kind, subject) SELECT 'key', id FROM revoked
               RETURNING id AS "id: OutboxId""#,
            id,
            visible_to.owner_filter()
        );
        Ok(observe_query("revoke_key", query.fetch_optional(&self.pool)).await?)
    }
}
