//! Daily partitions of `raw_clicks`, and the deletion of old click data. Workers of earlier releases write `clicks`, which
//! has such partitions too.

use chrono::{DateTime, NaiveDate, Utc};
use sqlx::AssertSqlSafe;

use super::{Store, StoreError, clicks::utc_day};

/// Limits the wait for a lock that ingestion or a query holds. After a timeout, the next run tries again.
const LOCK_TIMEOUT: &str = "SET LOCAL lock_timeout = '2s'";
/// Retention of ids of batches, which is longer than a batch can wait in a stream or a spool between two deliveries.
const BATCH_RETENTION: &str = "7 days";

/// The name of a partition. The list of events finds the first and the last day by these names.
fn partition_name(day: NaiveDate) -> String {
    format!("raw_clicks_{}", day.format("%Y%m%d"))
}

impl Store {
    /// Creates the partition of a day if it is missing. Returns whether it was missing.
    ///
    /// The table is created first and then attached, because `PARTITION OF` would lock out every reader and writer of
    /// clicks.
    pub async fn ensure_partition(&self, day: NaiveDate) -> Result<bool, StoreError> {
        self.on_one_primary(self.try_ensure_partition(day)).await
    }

    async fn try_ensure_partition(&self, day: NaiveDate) -> Result<bool, StoreError> {
        let name = partition_name(day);
        let exists = sqlx::query_scalar!(
            r#"SELECT EXISTS (SELECT FROM pg_inherits
                 WHERE inhrelid = to_regclass($1) AND inhparent = 'raw_clicks'::regclass) AS "exists!""#,
            name
        );
        if exists.fetch_one(&self.pool).await? {
            return Ok(false);
        }
        let (from, to) = utc_day(day);
        let mut transaction = self.begin().await?;
        sqlx::query(LOCK_TIMEOUT).execute(&mut *transaction).await?;
        // Several workers may create the same partition at the same time.
        sqlx::query!("SELECT pg_advisory_xact_lock(hashtextextended($1, 0))", name)
            .execute(&mut *transaction)
            .await?;
        // No input is part of these statements: the name consists of digits, and the bounds are computed.
        let statements = [
            format!("CREATE TABLE IF NOT EXISTS {name} (LIKE raw_clicks INCLUDING DEFAULTS)"),
            format!(
                "DO $do$ BEGIN
                   IF NOT EXISTS (SELECT FROM pg_inherits WHERE inhrelid = '{name}'::regclass) THEN
                     ALTER TABLE raw_clicks ATTACH PARTITION {name}
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

    /// Drops the partitions of both tables of days before `first`, each in its own transaction. Returns their names.
    pub async fn drop_partitions_before(
        &self,
        first: NaiveDate,
    ) -> Result<Vec<String>, StoreError> {
        let old = sqlx::query_scalar!(
            r#"SELECT relname::text AS "name!" FROM pg_inherits
                 JOIN pg_class ON pg_class.oid = inhrelid
                WHERE inhparent IN ('raw_clicks'::regclass, 'clicks'::regclass)
                  AND relname ~ '^(raw_)?clicks_[0-9]{8}$' AND right(relname, 8) < $1
                ORDER BY relname"#,
            first.format("%Y%m%d").to_string()
        )
        .fetch_all(&self.pool)
        .await?;
        for name in &old {
            self.drop_table(name).await?;
        }
        Ok(old)
    }

    /// Deletes up to 50,000 ids of batches that cannot be delivered again. Returns their number.
    pub async fn delete_old_click_batches(&self) -> Result<u64, StoreError> {
        let deletion = sqlx::query!(
            "DELETE FROM click_batches WHERE id IN (
               SELECT id FROM click_batches WHERE ingested_at < now() - $1::text::interval
                LIMIT 50000)",
            BATCH_RETENTION
        );
        Ok(deletion.execute(&self.pool).await?.rows_affected())
    }

    /// Deletes the visitor keys of days before `day`. After that, no visitor hash of these days can be computed again.
    pub async fn delete_visitor_keys_before(&self, day: NaiveDate) -> Result<u64, StoreError> {
        let deletion = sqlx::query!("DELETE FROM visitor_keys WHERE day < $1", day);
        Ok(deletion.execute(&self.pool).await?.rows_affected())
    }

    /// The current time of the database server.
    pub async fn server_time(&self) -> Result<DateTime<Utc>, StoreError> {
        Ok(sqlx::query_scalar!(r#"SELECT now() AS "now!""#).fetch_one(&self.pool).await?)
    }

    async fn drop_table(&self, name: &str) -> Result<(), StoreError> {
        let mut transaction = self.begin().await?;
        sqlx::query(LOCK_TIMEOUT).execute(&mut *transaction).await?;
        // The name has matched a pattern of letters and digits.
        sqlx::query(AssertSqlSafe(format!("DROP TABLE IF EXISTS {name}")))
            .execute(&mut *transaction)
            .await?;
        transaction.commit().await?;
        Ok(())
    }
}
