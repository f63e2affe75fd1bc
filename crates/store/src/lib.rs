//! PostgreSQL: users, API keys, links, events, jobs, clicks and their statistics.
//!
//! * A change is one statement: the row, its event and its outbox row are one transaction with one round trip.
//! * Each server thread has a pool, so that its connections are driven by its own reactor. The resolve path and the API
//!   have separate pools.
//! * Statistics, lists and exports may read from a replica, which then contains every acknowledged write.
//! * A query with a [`Visibility`](linnet_domain::Visibility) treats invisible rows as missing.
//! * A missing row is `None`. [`StoreError`] is for failures.

mod bans;
mod clicks;
mod columns;
mod copy;
mod erase;
mod error;
mod events;
mod export;
mod idempotency;
mod import;
mod jobs;
mod keys;
mod links;
mod maintenance;
mod migrate;
mod observe;
mod outbox;
mod partitions;
mod pool;
mod pooler;
mod quotas;
mod resolve;
mod stats;
mod stored_responses;
mod timeouts;
mod uploads;
mod users;

pub use clicks::{
    ClickGroup, ClickRow, ClickTotals, DayDelta, HourDelta, KindCounts, LinkDay, LinkDays,
    LinkDelta, LinkFacts, SHARDS, ValueDelta, VisitorPage, VisitorPosition, shard_of,
};
pub use erase::{ERASURE_DELAY, ErasureCounts};
pub use error::{Constraint, StoreError};
pub use events::EventPage;
pub use export::{ExportCell, ExportColumn, ExportedLink, LinkExport};
pub use idempotency::{IdempotencyClaim, IdempotentTransaction, StoredResponse};
pub use import::{
    ImportEvent, ImportLink, ImportUser, RowOutcome, WriteFuture, WriteOptions, WriteRows,
};
pub use jobs::{
    AttemptEnd, BadRow, ChunkProgress, ChunkTransaction, CreatedJob, JobChange, JobClaim,
    JobCounts, JobLimits, JobRefusal, JobRun, ReportLimits, ReportPage, ReportRange, RowErrors,
};
pub use keys::{KeyOwner, KeyRefusal, NewKey, RevokedKey};
pub use links::{ChangedLink, GroupedCreates, LINK_SEARCH_WINDOW, LinkCreation, LinkPage};
pub use maintenance::{TaskHolder, TaskOutcome, TaskRecord, TaskSession};
pub use migrate::{MigrateError, migrate};
pub use outbox::{InvalidationKind, PendingInvalidation};
pub use pool::{PoolRole, pooler_query};
pub use pooler::{PoolerError, verify_pooler};
pub use resolve::{ConsumedClick, ResolveRow};
pub use stats::StatsError;
pub use timeouts::register_timeouts;
pub use uploads::{NewPiece, PieceRefusal, UploadLimits, UploadPiece};

use std::{sync::Arc, time::Duration};

use sqlx::{PgPool, Postgres, Transaction};

pub use linnet_postgres::{
    HostFailure, NoPrimary, PoolerFault, PostgresHosts, PostgresSettings, RowQuotas, tls_fault,
};
use linnet_postgres::{HostPool, ReplicaReads};

/// The database. Clones share a pool.
#[derive(Debug, Clone)]
pub struct Store {
    pool: HostPool,
    replica: Option<Arc<ReplicaReads>>,
    /// The settings of the same server without the pooler, if there is one.
    direct: Option<Arc<PostgresSettings>>,
}

impl Store {
    /// The database behind this pool.
    pub fn new(pool: PgPool) -> Self {
        Self { pool: HostPool::Fixed(pool), replica: None, direct: None }
    }

    /// A database that connects on first use, so that a process can start while the database is unavailable. `hosts`
    /// are those of the same settings.
    ///
    /// # Errors
    /// The URL is invalid, or its CA file cannot be read.
    pub fn connect(
        settings: &PostgresSettings,
        role: PoolRole,
        hosts: &PostgresHosts,
    ) -> Result<Self, StoreError> {
        let replica = pool::open_replica(settings, role, hosts)?.map(Arc::new);
        let direct = settings.is_pooled().then(|| Arc::new(settings.direct()));
        Ok(Self { pool: pool::open(settings, role, hosts)?, replica, direct })
    }

    /// Checks that the database responds.
    pub async fn ping(&self) -> Result<(), StoreError> {
        sqlx::query_scalar!("SELECT 1").fetch_one(&self.pool).await?;
        Ok(())
    }

    /// Begins a transaction. The future may be dropped at any time, as handlers are when their clients disconnect.
    pub async fn begin(&self) -> Result<Transaction<'static, Postgres>, StoreError> {
        // In a task, which always completes; a transaction that is not taken is rolled back. sqlx 0.9.0 returns the
        // connection to the pool within the transaction if `Pool::begin` is dropped before the response to `BEGIN`:
        // the next statements on it are then acknowledged, but committed only with the next transaction, or lost
        // (https://github.com/transact-rs/sqlx/issues/4393).
        let pool = self.pool.current().await?;
        #[expect(clippy::disallowed_methods, reason = "the task is not dropped")]
        let begun = tokio::spawn(async move { pool.begin().await }).await;
        Ok(begun.map_err(|_| sqlx::Error::WorkerCrashed)??)
    }

    /// Runs work of several statements, such as a transaction. If another server becomes the primary meanwhile, it
    /// fails with [`StoreError::Unavailable`]: the server of its connection may never respond.
    pub async fn on_one_primary<T, E: From<StoreError>>(
        &self,
        work: impl Future<Output = Result<T, E>>,
    ) -> Result<T, E> {
        let replaced = self.pool.replaced().await.map_err(StoreError::from)?;
        tokio::select! {
            biased;
            result = work => result,
            error = replaced => Err(StoreError::from(error).into()),
        }
    }

    /// Runs a read on the replica, if it contains every acknowledged write, and otherwise or if that fails on the
    /// primary. A read that lasts too long fails: it would last as long on the primary, which the replica relieves.
    pub(crate) async fn read<T>(
        &self,
        work: impl AsyncFn(&Self) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let Some(replica) = &self.replica else { return work(self).await };
        if let Some(pool) = replica.replayed_all(&self.pool).await {
            match work(&Self { pool, replica: None, direct: None }).await {
                Ok(result) => {
                    replica.count(true);
                    return Ok(result);
                }
                Err(StoreError::Unavailable(error)) if error::is_statement_timeout(&error) => {
                    replica.count(true);
                    return Err(StoreError::Unavailable(error));
                }
                Err(error) => tracing::debug!(%error, "read on the replica failed"),
            }
        }
        replica.count(false);
        work(self).await
    }

    /// The number of connections in use, and of all open connections.
    pub fn pool_use(&self) -> (usize, u32) {
        let Some(pool) = self.pool.last() else { return (0, 0) };
        let size = pool.size();
        (usize::try_from(size).unwrap_or(0).saturating_sub(pool.num_idle()), size)
    }

    /// The maximum number of connections of the pool.
    pub fn max_connections(&self) -> u32 {
        self.pool.options().get_max_connections()
    }

    /// The longest wait for a connection.
    pub(crate) fn acquire_timeout(&self) -> Duration {
        self.pool.options().get_acquire_timeout()
    }

    /// Waits for running statements and closes all connections.
    pub async fn close(&self) {
        self.pool.close().await;
        if let Some(replica) = &self.replica {
            replica.close().await;
        }
    }
}
