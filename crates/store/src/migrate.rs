//! Schema migrations.

use std::time::Duration;

use linnet_platform::backoff::jittered;
use linnet_postgres::{NoPrimary, PostgresSettings};
use log::LevelFilter;
use sqlx::{ConnectOptions as _, PgConnection, migrate::MigrateError as SqlxMigrateError};
use tokio::time::{Instant, sleep};

use crate::error::is_locked;

/// Longest wait for one host.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Time in which a migration is repeated because other transactions hold its tables.
const LOCK_RETRY_TIME: Duration = Duration::from_mins(1);
/// Time between two attempts, in which the statements that waited behind the migration run.
const LOCK_RETRY_PAUSE: Duration = Duration::from_secs(2);

/// Migrates the schema to this release. Concurrent calls of several processes are safe.
///
/// Each migration waits for its locks for a second or so, because everything else waits behind it, and is repeated for a
/// minute if it does not get them.
pub async fn migrate(settings: &PostgresSettings) -> Result<(), MigrateError> {
    let mut connection = settings
        .connect(CONNECT_TIMEOUT, |options| {
            options.application_name("linnet-migrate").log_statements(LevelFilter::Off)
        })
        .await?;
    migrate_on(&mut connection, LOCK_RETRY_TIME).await
}

async fn migrate_on(
    connection: &mut PgConnection,
    retry_time: Duration,
) -> Result<(), MigrateError> {
    let mut migrator = sqlx::migrate!("../../migrations");
    // Migrations only add to the schema, so that the previous release still works with this schema after a rollback.
    migrator.set_ignore_missing(true);
    let give_up_at = Instant::now() + retry_time;
    loop {
        match migrator.run(&mut *connection).await {
            Err(SqlxMigrateError::ExecuteMigration(error, version))
                if is_locked(&error) && Instant::now() < give_up_at =>
            {
                tracing::info!(version, %error, "migration did not get its locks; repeating it");
                sleep(jittered(LOCK_RETRY_PAUSE)).await;
            }
            result => return Ok(result?),
        }
    }
}

/// Why the migration failed.
#[derive(Debug, thiserror::Error)]
pub enum MigrateError {
    /// The database cannot be reached.
    #[error("cannot connect to the database")]
    Connect(#[from] NoPrimary),
    /// A migration failed, or an applied migration has changed.
    #[error("a migration failed")]
    Migrate(#[from] SqlxMigrateError),
}

#[cfg(test)]
mod tests {
    use sqlx::{Connection as _, Executor as _, PgPool};

    use super::*;

    /// Makes the newest migration unapplied.
    const FORGET: &str = "ALTER TABLE urls DROP COLUMN recent_visits;
        DELETE FROM _sqlx_migrations WHERE version = 20261128000402";

    #[sqlx::test(migrations = "../../migrations")]
    async fn migration_whose_table_is_locked_is_repeated(pool: PgPool) {
        let mut connection = pool.acquire().await.unwrap();
        connection.execute(sqlx::raw_sql(FORGET)).await.unwrap();
        let mut reader = pool.acquire().await.unwrap();
        let mut reading = reader.begin().await.unwrap();
        reading.execute("SELECT FROM urls").await.unwrap();
        let failed = migrate_on(&mut connection, Duration::ZERO).await;
        let Err(MigrateError::Migrate(SqlxMigrateError::ExecuteMigration(error, _))) = failed
        else {
            panic!("{failed:?}")
        };
        assert!(is_locked(&error), "{error}");

        let migrating = migrate_on(&mut connection, LOCK_RETRY_TIME);
        let released = async {
            let waits = "SELECT count(*) FROM pg_locks WHERE NOT granted";
            while sqlx::query_scalar::<_, i64>(waits).fetch_one(&pool).await.unwrap() == 0 {}
            while sqlx::query_scalar::<_, i64>(waits).fetch_one(&pool).await.unwrap() > 0 {}
            reading.rollback().await.unwrap();
        };
        let (migrated, ()) = tokio::join!(migrating, released);
        migrated.unwrap();
    }
}
