//! Quotas of rows and of their bytes: links, events and idempotency keys of one owner.
//!
//! * Creating a row counts nothing: it probes `owner_row_counts`, in triggers and statements, so that every way to create a
//!   row obeys. The quotas are settings of each connection.
//! * [`Store::count_rows_of_users`] and [`Store::count_idempotency_keys`] count every few minutes. Statements that write
//!   many rows add them at once ([`count_written`]). The overshoot is what an owner writes row by row in between.
//! * Bytes are those that the owner chose, without indexes. Of many rows, a random sample is measured, and nothing is as
//!   long as the rows cannot have half of the quota.
//! * Rows without an owner have no quota.

use std::collections::HashMap;

use crate::observe::observe_query;
use chrono::{DateTime, Utc};
use sqlx::PgConnection;

use linnet_domain::UserId;

use super::{Store, StoreError};

/// Owners with fewer rows have no count.
const LEAST_COUNTED_ROWS: i64 = 1_000;

/// A kind of row with a quota.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RowKind {
    Links,
    Events,
}

impl RowKind {
    const fn name(self) -> &'static str {
        match self {
            Self::Links => "links",
            Self::Events => "events",
        }
    }
}

/// Rows that a statement has written, or bytes that it has added to them.
#[derive(Debug, Clone, Copy)]
pub(super) struct Written {
    /// The user whose quota counts; `None` if no quota does.
    pub(super) user_id: Option<UserId>,
    pub(super) rows: usize,
    pub(super) bytes: usize,
}

/// Adds what was written to the counts of the users.
pub(super) async fn count_written(
    connection: &mut PgConnection,
    kind: RowKind,
    written: impl Iterator<Item = Written>,
) -> Result<(), StoreError> {
    let mut sums: HashMap<i64, (i64, i64)> = HashMap::new();
    for Written { user_id, rows, bytes } in written {
        if let Some(user_id) = user_id {
            let sum = sums.entry(user_id.get()).or_default();
            sum.0 = sum.0.saturating_add(i64::try_from(rows).unwrap_or(i64::MAX));
            sum.1 = sum.1.saturating_add(i64::try_from(bytes).unwrap_or(i64::MAX));
        }
    }
    if sums.is_empty() {
        return Ok(());
    }
    // In the order of ids, so that two imports cannot deadlock.
    let mut sums: Vec<(i64, (i64, i64))> = sums.into_iter().collect();
    sums.sort_unstable();
    let (users, sums): (Vec<i64>, Vec<(i64, i64)>) = sums.into_iter().unzip();
    let (rows, bytes): (Vec<i64>, Vec<i64>) = sums.into_iter().unzip();
    let query = sqlx::query!(
        "SELECT count_written_rows(user_id, $4, rows, bytes)
           FROM UNNEST($1::bigint[], $2::bigint[], $3::bigint[]) AS row (user_id, rows, bytes)",
        &users,
        &rows,
        &bytes,
        kind.name()
    );
    observe_query("count_written_rows", query.fetch_all(connection)).await?;
    Ok(())
}

impl Store {
    /// Counts the links and events of the next `users` users after an id, each up to the quota, and measures their bytes.
    /// Returns the last of these users.
    pub async fn count_rows_of_users(
        &self,
        after: Option<UserId>,
        users: i64,
    ) -> Result<Option<UserId>, StoreError> {
        let query = sqlx::query_scalar!(
            r#"WITH batch AS (
                 SELECT id FROM users WHERE id > $1 ORDER BY id LIMIT $2
               ), counted AS (
                 INSERT INTO owner_row_counts AS counts (owner, kind, rows, bytes)
                 SELECT 'user:' || id, kind, rows, measured_bytes(id, kind, rows)
                   FROM batch CROSS JOIN LATERAL (
                   SELECT 'links' AS kind, count(*) AS rows FROM (
                     SELECT FROM urls WHERE user_id = batch.id LIMIT row_quota('links')) AS own
                   UNION ALL
                   SELECT 'events', count(*) FROM (
                     SELECT FROM events WHERE user_id = batch.id LIMIT row_quota('events')) AS own
                 ) AS kinds
                  WHERE rows >= LEAST(row_quota(kind), byte_quota(kind) / 2 / max_row_bytes(kind), $3)
                    AND rows > 0
                 ON CONFLICT (owner, kind)
                   DO UPDATE SET rows = EXCLUDED.rows, bytes = EXCLUDED.bytes, counted_at = now()
               )
               SELECT max(id) AS "id: UserId" FROM batch"#,
            after.map_or(0, UserId::get),
            users,
            LEAST_COUNTED_ROWS
        );
        Ok(observe_query("count_rows_of_users", query.fetch_one(&self.pool)).await?)
    }

    /// The next user after an id.
    pub async fn user_after(&self, id: Option<UserId>) -> Result<Option<UserId>, StoreError> {
        let query = sqlx::query_scalar!(
            r#"SELECT min(id) AS "id: UserId" FROM users WHERE id > $1"#,
            id.map_or(0, UserId::get)
        );
        Ok(observe_query("user_after", query.fetch_one(&self.pool)).await?)
    }

    /// Counts the idempotency keys of all owners.
    pub async fn count_idempotency_keys(&self) -> Result<(), StoreError> {
        let query = sqlx::query!(
            "INSERT INTO owner_row_counts AS counts (owner, kind, rows, bytes)
             SELECT owner, 'idempotency_keys', count(*),
                    sum(octet_length(body) + COALESCE(octet_length(location), 0))
               FROM idempotency_keys GROUP BY owner
             HAVING count(*) >= LEAST(row_quota('idempotency_keys'), $1)
                 OR sum(octet_length(body)) >= byte_quota('idempotency_keys')
             ON CONFLICT (owner, kind)
               DO UPDATE SET rows = EXCLUDED.rows, bytes = EXCLUDED.bytes, counted_at = now()",
            LEAST_COUNTED_ROWS
        );
        observe_query("count_idempotency_keys", query.execute(&self.pool)).await?;
        Ok(())
    }

    /// Deletes counts from before `since`, which no longer hold. Returns how many owners are at a quota.
    pub async fn delete_row_counts_before(&self, since: DateTime<Utc>) -> Result<u64, StoreError> {
        let query = sqlx::query_scalar!(
            r#"WITH deleted AS (DELETE FROM owner_row_counts WHERE counted_at < $1)
               SELECT count(DISTINCT owner) AS "count!" FROM owner_row_counts
                WHERE counted_at >= $1 AND (rows >= row_quota(kind) OR bytes >= byte_quota(kind))"#,
            since
        );
        let count = observe_query("delete_row_counts", query.fetch_one(&self.pool)).await?;
        Ok(u64::try_from(count).unwrap_or(0))
    }
}
