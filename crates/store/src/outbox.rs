//! The outbox: invalidations of committed changes that are not yet published.
//!
//! The statement that changes a link or a key inserts the row, in the same transaction.

use std::time::Duration;

use crate::observe::observe_query;

use linnet_domain::OutboxId;

use super::{Store, StoreError, columns::numbers};

/// An outbox row.
#[derive(Debug, Clone)]
pub struct PendingInvalidation {
    /// The row's id.
    pub id: OutboxId,
    /// The kind of resource that has changed.
    pub kind: InvalidationKind,
    /// The short code of the link, or the public id of the key.
    pub subject: String,
    /// The link's version after the change; 0 for a key.
    pub version: i64,
}

/// The kind of resource that a [`PendingInvalidation`] is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InvalidationKind {
    /// A link.
    Link,
    /// An API key.
    Key,
}

impl Store {
    /// Up to `limit` invalidations that are at least `age` old, oldest first. The process that made a change publishes
    /// younger ones itself.
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

    /// Inserts the invalidation of a link after its change. Callers use it when publishing has failed for a change
    /// whose statement writes no outbox row.
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

    /// Deletes published invalidations.
    pub async fn delete_pending_invalidations(&self, ids: &[OutboxId]) -> Result<(), StoreError> {
        let query =
            sqlx::query!("DELETE FROM cache_invalidations WHERE id = ANY($1)", &numbers(ids));
        observe_query("delete_pending_invalidations", query.execute(&self.pool)).await?;
        Ok(())
    }
}
