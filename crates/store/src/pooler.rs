//! Checks of a pooler in transaction mode.

use std::time::Duration;

use sqlx::{Connection as _, PgConnection, PgExecutor};

use linnet_postgres::{PostgresSettings, verify_pooled};

use super::{
    PoolRole,
    pool::{session_options, session_parameters},
};

/// Whether a session of this server holds an advisory lock.
const IS_LOCKED: &str = "SELECT EXISTS (
    SELECT FROM pg_locks
     WHERE locktype = 'advisory' AND granted AND objsubid = 1 AND pid = $1
       AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
       AND (classid::bigint << 32) | objid::bigint = $2)";

/// Why a pooler cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum PoolerError {
    /// The pooler did not accept the connection, or a statement failed, or the pooler is not right.
    #[error(transparent)]
    Database(#[from] sqlx::Error),
    /// The pooler leads elsewhere.
    #[error("the pooler does not lead to the server and the database of postgres.direct_url")]
    OtherServer,
    /// The pooler did not respond.
    #[error("no response within {} s", .0.as_secs())]
    Timeout(Duration),
}

/// Checks that `postgres.url` leads to a pooler that suits a shortener, in front of the server of `session`. Waits for
/// at most `timeout`.
///
/// # Errors
/// If it does not, or the pooler cannot be reached.
pub async fn verify_pooler(
    settings: &PostgresSettings,
    session: &mut PgConnection,
    timeout: Duration,
) -> Result<(), PoolerError> {
    let options = settings.connect_options()?.into_iter().next().unwrap_or_default();
    let role = PoolRole::Background;
    let options = session_options(options, settings, role);
    let verified = async {
        let mut pooled = PgConnection::connect_with(&options).await?;
        verify_pooled(&mut pooled, &session_parameters(settings, role)).await?;
        verify_same_server(&mut pooled, session).await?;
        // The result is known: the farewell has none.
        let _ = pooled.close().await;
        Ok(())
    };
    tokio::time::timeout(timeout, verified).await.unwrap_or(Err(PoolerError::Timeout(timeout)))
}

/// Checks that a lock of `session` is visible through the pooler.
async fn verify_same_server(
    pooled: &mut PgConnection,
    session: &mut PgConnection,
) -> Result<(), PoolerError> {
    let key: i64 = rand::random();
    let lock = "SELECT pg_backend_pid() FROM pg_advisory_lock($1)";
    let pid: i32 = sqlx::query_scalar(lock).bind(key).fetch_one(session).await?;
    if holds_lock(pooled, pid, key).await? { Ok(()) } else { Err(PoolerError::OtherServer) }
}

/// Whether this session of the server holds the lock.
pub(crate) async fn holds_lock(
    executor: impl PgExecutor<'_>,
    session: i32,
    key: i64,
) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar(IS_LOCKED).bind(session).bind(key).fetch_one(executor).await
}
