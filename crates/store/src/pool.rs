//! Pools and migrations.

use std::{str::FromStr, time::Duration};

use log::LevelFilter;
use secrecy::ExposeSecret;
use sqlx::{
    ConnectOptions, Connection, PgConnection, PgPool,
    postgres::{PgConnectOptions, PgPoolOptions},
};

use super::{PostgresSettings, SHARDS, StoreError};

/// A connection that idled longer is tried before it is used. A busy one is not: the round trip
/// would double the cost of a short statement, and a broken one fails its statement anyway.
const TEST_AFTER_IDLE: Duration = Duration::from_secs(1);
const IDLE_TIMEOUT: Duration = Duration::from_mins(5);
const MAX_LIFETIME: Duration = Duration::from_mins(30);
/// What an index of `search` may put off, in kB. Who writes the row that fills it writes it all into the
/// index: at the 4 MB of PostgreSQL that is half a second of a core, and redirects wait for it.
const WORKER_PENDING_KB: u64 = 256;

/// Who uses a pool, which decides its share of `postgres.max_connections`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PoolRole {
    /// One of `workers` resolve workers: together a third.
    Resolve {
        /// How many share.
        workers: usize,
    },
    /// One of `workers` API workers: together the rest.
    Api {
        /// How many share.
        workers: usize,
    },
    /// Background tasks: two connections.
    Background,
    /// The worker: those of background tasks, too.
    Worker {
        /// Consumers of clicks; each has a connection for every shard.
        consumers: u32,
        /// Connections that jobs need.
        jobs: u32,
    },
}

const BACKGROUND_CONNECTIONS: u32 = 2;

impl PostgresSettings {
    /// Most workers of each listener that these connections are enough for.
    pub fn max_workers(&self) -> usize {
        let resolve = self.max_connections.saturating_sub(BACKGROUND_CONNECTIONS) / 3;
        usize::try_from(resolve).unwrap_or(usize::MAX).max(1)
    }
}

impl PoolRole {
    fn connections(self, max: u32) -> u32 {
        let shared = max.saturating_sub(BACKGROUND_CONNECTIONS);
        let resolve = shared / 3;
        let (share, workers) = match self {
            Self::Background => return BACKGROUND_CONNECTIONS,
            Self::Worker { consumers, jobs } => {
                let shards = u32::try_from(SHARDS.len()).unwrap_or(u32::MAX);
                return BACKGROUND_CONNECTIONS + consumers * shards + jobs;
            }
            Self::Resolve { workers } => (resolve, workers),
            Self::Api { workers } => (shared - resolve, workers),
        };
        (share / u32::try_from(workers).unwrap_or(u32::MAX).max(1)).max(1)
    }
}

/// A pool that connects when it is first used, so a process starts while the database is away.
pub fn connect_lazy(settings: &PostgresSettings, role: PoolRole) -> Result<PgPool, StoreError> {
    let slow = Duration::from_millis(settings.slow_statement_ms);
    let mut options = PgConnectOptions::from_str(settings.url.expose_secret())?
        .application_name("linnet-shortener")
        .options([
            ("statement_timeout", settings.statement_timeout_ms),
            ("lock_timeout", settings.lock_timeout_ms),
            ("idle_in_transaction_session_timeout", settings.idle_in_transaction_timeout_ms),
        ])
        .log_statements(LevelFilter::Off)
        .log_slow_statements(LevelFilter::Warn, slow);
    if let PoolRole::Worker { .. } = role {
        options = options.options([("gin_pending_list_limit", WORKER_PENDING_KB)]);
    }
    Ok(PgPoolOptions::new()
        .max_connections(role.connections(settings.max_connections))
        .acquire_timeout(settings.acquire_timeout())
        .idle_timeout(IDLE_TIMEOUT)
        .max_lifetime(MAX_LIFETIME)
        .test_before_acquire(false)
        .before_acquire(|connection, meta| {
            Box::pin(async move {
                if meta.idle_for > TEST_AFTER_IDLE {
                    connection.ping().await?;
                }
                Ok(true)
            })
        })
        .connect_lazy_with(options))
}

/// Brings the schema up to this release. Safe to call again, and from several processes at once.
pub async fn migrate(settings: &PostgresSettings) -> Result<(), MigrateError> {
    let options = PgConnectOptions::from_str(settings.url.expose_secret())
        .map_err(MigrateError::Connect)?
        .application_name("linnet-migrate")
        .log_statements(LevelFilter::Off);
    let connect = PgConnection::connect_with(&options);
    let mut connection = tokio::time::timeout(Duration::from_secs(10), connect)
        .await
        .map_err(|_| MigrateError::Connect(sqlx::Error::PoolTimedOut))?
        .map_err(MigrateError::Connect)?;
    let mut migrator = sqlx::migrate!("../../migrations");
    // Migrations only add, so a release also starts on the schema of the one after it: the way back.
    migrator.set_ignore_missing(true);
    migrator.run(&mut connection).await?;
    Ok(())
}

/// Why the schema could not be brought up.
#[derive(Debug, thiserror::Error)]
pub enum MigrateError {
    /// No connection.
    #[error("cannot connect to the database")]
    Connect(#[source] sqlx::Error),
    /// A migration failed or does not match what was applied before.
    #[error("a migration failed")]
    Migrate(#[from] sqlx::migrate::MigrateError),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_stay_within_the_limit() {
        for max in [PostgresSettings::MIN_CONNECTIONS, 20, 100] {
            let settings = PostgresSettings { max_connections: max, ..Default::default() };
            for workers in [1, settings.max_workers()] {
                let resolve = PoolRole::Resolve { workers }.connections(max);
                let api = PoolRole::Api { workers }.connections(max);
                let workers = u32::try_from(workers).unwrap();
                let all = PoolRole::Background.connections(max) + workers * (resolve + api);
                assert!(all <= max, "{all} of {max} for {workers} workers");
            }
        }
    }
}
