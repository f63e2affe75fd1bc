//! API keys. A revoked key is invisible to every query; its row remains for some time as an audit record.

use crate::observe::observe_query;
use chrono::{DateTime, Utc};
use linnet_domain::{Scope, Scopes};
use sqlx::PgConnection;

use linnet_domain::{ApiKey, ApiKeySecret, OutboxId, Page, UserId, Visibility};

use super::{Constraint, Store, StoreError, jobs::cancel_jobs_of_ended_keys};

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

/// A key to create.
#[derive(Debug, Clone, Copy)]
pub struct NewKey<'a> {
    /// The owner.
    pub user_id: UserId,
    /// The label.
    pub name: &'a str,
    /// The permissions.
    pub scopes: Scopes,
    /// The expiry. A key without one expires with its maker.
    pub expires_at: Option<DateTime<Utc>>,
    /// The public id of the key that creates this one; `None` for the operator's command line.
    pub maker: Option<&'a str>,
    /// The maximum number of the owner's living keys, which are neither revoked nor expired; `None` for no limit.
    pub most_living: Option<u32>,
}

/// The maximum number of keys of one user, revoked and expired ones included: they are kept for some time.
const MAX_KEPT_KEYS: i64 = 10_000;

/// Why a key was not created.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeyRefusal {
    /// The owner has as many living keys as allowed.
    #[error("the owner has {limit} keys that are neither revoked nor expired")]
    TooMany {
        /// The limit.
        limit: u32,
    },
    /// The owner has as many keys, ended ones included, as are kept.
    #[error("the owner has {MAX_KEPT_KEYS} keys, those that have ended recently included")]
    TooManyKept,
    /// The maker was revoked or has expired.
    #[error("the key that creates this one was revoked or has expired")]
    MakerEnded,
    /// The key would expire after its maker.
    #[error("the key would expire after the key that creates it, which expires at {limit}")]
    OutlivesMaker {
        /// The expiry of the maker.
        limit: DateTime<Utc>,
    },
}

/// A revoked key.
#[derive(Debug, Clone)]
pub struct RevokedKey {
    /// The public id.
    pub id: String,
    /// The outbox row of its invalidation.
    pub outbox_id: OutboxId,
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

/// The expiry of a key that `maker` creates: at most the expiry of the maker.
async fn end_within_maker(
    connection: &mut PgConnection,
    maker: &str,
    expires_at: Option<DateTime<Utc>>,
) -> Result<Result<Option<DateTime<Utc>>, KeyRefusal>, StoreError> {
    // A concurrent revocation of the maker waits for this lock, so that it finds the new key.
    let maker_expires_at = sqlx::query_scalar!(
        "SELECT expires_at FROM api_keys
          WHERE id = $1 AND revoked_at IS NULL AND (expires_at IS NULL OR expires_at > now())
            FOR SHARE",
        maker
    )
    .fetch_optional(connection)
    .await?;
    Ok(match (maker_expires_at, expires_at) {
        (None, _) => Err(KeyRefusal::MakerEnded),
        (Some(Some(limit)), Some(at)) if at > limit => Err(KeyRefusal::OutlivesMaker { limit }),
        (Some(limit), at) => Ok(at.or(limit)),
    })
}

impl Store {
    /// Creates a key from its id and the hash of its secret.
    pub async fn create_key(
        &self,
        secret: &ApiKeySecret,
        new: &NewKey<'_>,
    ) -> Result<Result<ApiKey, KeyRefusal>, StoreError> {
        let mut transaction = self.begin().await?;
        // Concurrent creates for one user wait for this lock, so that each of them counts the keys of the others.
        let owner = sqlx::query_scalar!(
            "SELECT id FROM users WHERE id = $1 FOR NO KEY UPDATE",
            new.user_id.get()
        );
        if owner.fetch_optional(&mut *transaction).await?.is_none() {
            return Err(StoreError::Conflict(Constraint::UserMissing));
        }
        let expires_at = match new.maker {
            None => new.expires_at,
            Some(maker) => match end_within_maker(&mut transaction, maker, new.expires_at).await? {
                Ok(expires_at) => expires_at,
                Err(refusal) => return Ok(Err(refusal)),
            },
        };
        if let Some(limit) = new.most_living {
            let kept = sqlx::query_scalar!(
                r#"SELECT count(*) AS "count!" FROM api_keys WHERE user_id = $1"#,
                new.user_id.get()
            );
            if kept.fetch_one(&mut *transaction).await? >= MAX_KEPT_KEYS {
                return Ok(Err(KeyRefusal::TooManyKept));
            }
            let living = sqlx::query_scalar!(
                r#"SELECT count(*) AS "count!" FROM api_keys
                    WHERE user_id = $1 AND revoked_at IS NULL
                      AND (expires_at IS NULL OR expires_at > now())"#,
                new.user_id.get()
            );
            if living.fetch_one(&mut *transaction).await? >= i64::from(limit) {
                return Ok(Err(KeyRefusal::TooMany { limit }));
            }
        }
        let scopes: Vec<String> =
            new.scopes.iter().map(|scope| scope.as_str().to_owned()).collect();
        let hash = secret.hash();
        let query = key_query!(
            "INSERT INTO api_keys (id, user_id, name, secret_hash, scopes, expires_at, parent_id)
             VALUES ($1, $2, $3, $4, $5, $6, $7) RETURNING",
            "",
            secret.id().as_str(),
            new.user_id.get(),
            new.name,
            hash.as_bytes(),
            &scopes,
            expires_at,
            new.maker
        );
        let key = observe_query("create_key", query.fetch_one(&mut *transaction)).await?;
        transaction.commit().await?;
        Ok(Ok(key.into()))
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

    /// One page of the visible keys, oldest first. The ids are not numbers, so the position of the page is an offset.
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

    /// Deletes up to `limit` keys that were revoked or expired more than `days` ago. Returns their number.
    pub async fn delete_ended_keys(&self, days: u32, limit: i64) -> Result<u64, StoreError> {
        let deletion = sqlx::query!(
            "DELETE FROM api_keys WHERE id IN (
               SELECT id FROM api_keys
                WHERE LEAST(revoked_at, expires_at) < now() - make_interval(days => $1) LIMIT $2)",
            i32::try_from(days).unwrap_or(i32::MAX),
            limit
        );
        Ok(deletion.execute(&self.pool).await?.rows_affected())
    }

    /// Revokes a key, if visible, and every key that it created, directly or through other keys, and cancels their jobs.
    /// Returns the revoked keys with their outbox rows; none if the key does not exist.
    pub async fn revoke_key(
        &self,
        id: &str,
        visible_to: Visibility,
    ) -> Result<Vec<RevokedKey>, StoreError> {
        let mut transaction = self.begin().await?;
        // Waits for concurrent creates with this key, so that the statements below find the new keys.
        let found = sqlx::query_scalar!(
            "SELECT id FROM api_keys
              WHERE id = $1 AND revoked_at IS NULL AND ($2::bigint IS NULL OR user_id = $2)
                FOR UPDATE",
            id,
            visible_to.owner_filter()
        );
        if found.fetch_optional(&mut *transaction).await?.is_none() {
            return Ok(Vec::new());
        }
        let revoked =
            observe_query("revoke_key", revoke_below(&mut transaction, &[id.to_owned()])).await?;
        transaction.commit().await?;
        Ok(revoked)
    }
}

/// Revokes these keys and every key that they created, directly or through other keys, and cancels their jobs.
///
/// Another transaction may create such a key while the statement runs. The statement waits for that transaction but
/// does not find the key. The next statement does, so the statement is repeated until it finds no key.
pub(super) async fn revoke_below(
    connection: &mut PgConnection,
    roots: &[String],
) -> Result<Vec<RevokedKey>, sqlx::Error> {
    let mut revoked = Vec::new();
    loop {
        let found = sqlx::query_as!(
            RevokedKey,
            r#"WITH RECURSIVE below AS (
                 SELECT id FROM api_keys WHERE id = ANY($1)
                 UNION SELECT child.id FROM api_keys child JOIN below ON child.parent_id = below.id
               ), revoked AS (
                 UPDATE api_keys SET revoked_at = now()
                  WHERE id IN (SELECT id FROM below) AND revoked_at IS NULL
                  RETURNING id
               )
               INSERT INTO cache_invalidations (kind, subject) SELECT 'key', id FROM revoked
               RETURNING subject AS id, id AS "outbox_id: OutboxId""#,
            roots
        )
        .fetch_all(&mut *connection)
        .await?;
        if found.is_empty() {
            cancel_jobs_of_ended_keys(connection).await?;
            return Ok(revoked);
        }
        revoked.extend(found);
    }
}
