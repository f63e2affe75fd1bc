//! Changes that caches have yet to hear of; see the table's comment.

use std::time::Duration;

use linnet_telemetry::context::observe_query;

use linnet_domain::OutboxId;

use super::{Store, StoreError, numbers};

/// One change.
#[derive(Debug, Clone)]
pub struct PendingInvalidation {
    /// The outbox row.
    pub id: OutboxId,
    /// What changed.
    pub kind: InvalidationKind,
    /// The code or the key's id.
    pub subject: String,
    /// The link's version after the change.
    pub version: i64,
}

/// What changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InvalidationKind {
    /// A link.
    Link,
    /// An API key.
    Key,
}

impl Store {
    /// Up to `limit` changes that are at least `age` old, oldest first. Younger ones are about to be
    /// told by the process that made them.
    pub async fn pending_invalidations(
        &self,
        age: Duration,
        limit: i64,
    ) -> Result<Vec<PendingInvalidation>, StoreError> {
        let query = sqlx::query!(
            r#"SELECT id AS "id: OutboxId", kind, subject, version FROM cache_invalidations
              WHERE created_at <= clock_timestamp() - make_interval(secs => $1)
              ORDER BY id LIMIT $2"#,
            age.as_secs_f64(),
            limit
        );
        let rows = observe_query("pending_invalidations", query.fetch_all(&self.pool)).await?;
        Ok(rows
            .into_iter()
            .map(|row| PendingInvalidation {
                id: row.id,
                kind: if row.kind == "key" {
                    InvalidationKind::Key
                } else {
                    InvalidationKind::Link
                },
                subject: row.subject,
                version: row.version,
            })
            .collect())
    }

    /// Notes a link's change after the fact, for changes that are told without an outbox row when
    /// all goes well.
    pub async fn add_pending_invalidation(
        &self,
        code: &str,
        version: i64,
    ) -> Result<(), StoreError> {
        let query = sqlx::query!(
            "INSERT INTO cache_invalidations (kind, subject, version) VALUES ('link', $1, $2)",
            code,
            version
        );
        observe_query("add_pending_invalidation", query.execute(&self.pool)).await?;
        Ok(())
    }

    /// Forgets changes that Redis has.
    pub async fn delete_pending_invalidations(&self, ids: &[OutboxId]) -> Result<(), StoreError> {
        let query =
            sqlx::query!("DELETE FROM cache_invalidations WHERE id = ANY($1)", &numbers(ids));
        observe_query("delete_pending_invalidations", query.execute(&self.pool)).await?;
        Ok(())
    }
}
