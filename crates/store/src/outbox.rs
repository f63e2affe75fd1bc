//! Changes that caches have yet to hear of; see the table's comment.

use std::time::Duration;

use linnet_telemetry::context::observe_query;

use linnet_domain::OutboxId;

use super::{Store, StoreError, numbers};

/// One change.
#[derive(Debug, Clone)]
pub struct Pending {
    /// The outbox row.
    pub id: OutboxId,
    /// What changed.
    pub kind: PendingKind,
    /// The code or the key's id.
    pub subject: String,
    /// The link's version after the change.
    pub version: i64,
}

/// What changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PendingKind {
    /// A link.
    Link,
    /// An API key.
    Key,
}

impl Store {
    /// Up to `limit` changes that are at least `age` old, oldest first. Younger ones are about to be
    /// told by the process that made them.
    pub async fn pending_changes(
        &self,
        age: Duration,
        limit: i64,
    ) -> Result<Vec<Pending>, StoreError> {
        let query = sqlx::query!(
            r#"SELECT id AS "id: OutboxId", kind, subject, version FROM cache_invalidations
              WHERE created_at <= clock_timestamp() - make_interval(secs => $1)
              ORDER BY id LIMIT $2"#,
            age.as_secs_f64(),
            limit
        );
        let rows = observe_query("pending_changes", query.fetch_all(&self.pool)).await?;
        Ok(rows
            .into_iter()
            .map(|row| Pending {
                id: row.id,
                kind: if row.kind == "key" { PendingKind::Key } else { PendingKind::Link },
                subject: row.subject,
                version: row.version,
            })
            .collect())
    }

    /// Notes a link's change after the fact, for changes that are told without an outbox row when
    /// all goes well.
    pub async fn note_pending_link(&self, code: &str, version: i64) -> Result<(), StoreError> {
        let query = sqlx::query!(
            "INSERT INTO cache_invalidations (kind, subject, version) VALUES ('link', $1, $2)",
            code,
            version
        );
        observe_query("note_pending_link", query.execute(&self.pool)).await?;
        Ok(())
    }

    /// Forgets changes that Redis has.
    pub async fn delete_pending(&self, ids: &[OutboxId]) -> Result<(), StoreError> {
        let query =
            sqlx::query!("DELETE FROM cache_invalidations WHERE id = ANY($1)", &numbers(ids));
        observe_query("delete_pending", query.execute(&self.pool)).await?;
        Ok(())
    }
}
