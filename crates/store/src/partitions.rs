//! Daily partitions of `clicks`, and what else has its time.

use chrono::{DateTime, NaiveDate, Utc};
use sqlx::{AssertSqlSafe, Connection, PgConnection};

use super::{Store, StoreError, clicks::utc_day};

/// Ends a wait for a lock that ingestion or a query holds: it is tried again later.
const LOCK_TIMEOUT: &str = "SET LOCAL lock_timeout = '2s'";
/// Batches are remembered for longer than any of them can wait in a stream or a spool between being
/// sent twice.
const BATCHES_KEPT: &str = "7 days";

fn name_of(day: NaiveDate) -> String {
    format!("clicks_{}", day.format("%Y%m%d"))
}

impl Store {
    /// Makes the partition of a day, if it is not there; whether it was missing.
    ///
    /// The table is made beside and attached: `PARTITION OF` would lock out everybody who reads or
    /// writes clicks.
    pub async fn ensure_partition(&self, day: NaiveDate) -> Result<bool, StoreError> {
        let name = name_of(day);
        let exists = sqlx::query_scalar!(
            r#"SELECT EXISTS (SELECT FROM pg_inherits
                 WHERE inhrelid = to_regclass($1) AND inhparent = 'clicks'::regclass) AS "exists!""#,
            name
        );
        if exists.fetch_one(&self.pool).await? {
            return Ok(false);
        }
        let (from, to) = utc_day(day);
        let mut transaction = self.pool.begin().await?;
        sqlx::query(LOCK_TIMEOUT).execute(&mut *transaction).await?;
        // Workers that find it missing at the same time take turns.
        sqlx::query!("SELECT pg_advisory_xact_lock(hashtextextended($1, 0))", name)
            .execute(&mut *transaction)
            .await?;
        // The name is digits, the bounds are times of ours.
        let statements = [
            format!("CREATE TABLE IF NOT EXISTS {name} (LIKE clicks INCLUDING DEFAULTS)"),
            format!(
                "DO $do$ BEGIN
                   IF NOT EXISTS (SELECT FROM pg_inherits WHERE inhrelid = '{name}'::regclass) THEN
                     ALTER TABLE clicks ATTACH PARTITION {name}
                       FOR VALUES FROM ('{}') TO ('{}');
                   END IF;
                 END $do$",
                from.to_rfc3339(),
                to.to_rfc3339()
            ),
        ];
        for statement in statements {
            sqlx::query(AssertSqlSafe(statement)).execute(&mut *transaction).await?;
        }
        transaction.commit().await?;
        Ok(true)
    }

    /// Drops the partitions of days before `first`, one by one; their names.
    pub async fn drop_partitions_before(
        &self,
        first: NaiveDate,
    ) -> Result<Vec<String>, StoreError> {
        let old = sqlx::query_scalar!(
            r#"SELECT relname::text AS "name!" FROM pg_inherits
                 JOIN pg_class ON pg_class.oid = inhrelid
                WHERE inhparent = 'clicks'::regclass AND relname ~ '^clicks_[0-9]{8}$'
                  AND relname < $1 ORDER BY relname"#,
            name_of(first)
        )
        .fetch_all(&self.pool)
        .await?;
        let mut connection = self.pool.acquire().await?;
        for name in &old {
            drop_table(&mut connection, name).await?;
        }
        Ok(old)
    }

    /// Forgets batches that cannot come again; how many.
    pub async fn delete_old_click_batches(&self) -> Result<u64, StoreError> {
        let done = sqlx::query!(
            "DELETE FROM click_batches WHERE id IN (
               SELECT id FROM click_batches WHERE ingested_at < now() - $1::text::interval
                LIMIT 50000)",
            BATCHES_KEPT
        );
        Ok(done.execute(&self.pool).await?.rows_affected())
    }

    /// Deletes the keys of days before `day`: from now on nobody can tell whose hash was whose.
    pub async fn delete_visitor_keys_before(&self, day: NaiveDate) -> Result<u64, StoreError> {
        let done = sqlx::query!("DELETE FROM visitor_keys WHERE day < $1", day);
        Ok(done.execute(&self.pool).await?.rows_affected())
    }

    /// The server's time.
    pub async fn server_time(&self) -> Result<DateTime<Utc>, StoreError> {
        Ok(sqlx::query_scalar!(r#"SELECT now() AS "now!""#).fetch_one(&self.pool).await?)
    }
}

async fn drop_table(connection: &mut PgConnection, name: &str) -> Result<(), StoreError> {
    let mut transaction = connection.begin().await?;
    sqlx::query(LOCK_TIMEOUT).execute(&mut *transaction).await?;
    // The name matched a pattern of letters and digits.
    sqlx::query(AssertSqlSafe(format!("DROP TABLE IF EXISTS {name}")))
        .execute(&mut *transaction)
        .await?;
    transaction.commit().await?;
    Ok(())
}
