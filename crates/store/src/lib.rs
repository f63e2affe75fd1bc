//! PostgreSQL: the truth about users, keys, links and events.
//!
//! * One statement does one change: the row, its event and the note for the caches are one
//!   transaction without a second round trip.
//! * Each actix worker has a pool of its own, so that no connection is driven by another worker's
//!   reactor, and the resolve path cannot be starved by the API.
//! * Absent things are `None`; [`StoreError`] is for what went wrong.

mod clicks;
mod copy;
mod erase;
mod error;
mod event_list;
mod events;
mod expired;
mod export;
mod grouped;
mod idempotency;
mod import;
mod jobs;
mod keys;
mod link_changes;
mod links;
mod maintenance;
mod outbox;
mod partitions;
mod pool;
mod resolve;
mod settings;
mod stats;
mod users;

pub use clicks::{
    ClickGroup, ClickRow, ClickTotals, DayDelta, HourDelta, KindCounts, LinkDay, LinkDays,
    LinkDelta, LinkFacts, SHARDS, ValueDelta, shard_of,
};
pub use erase::ErasureCounts;
pub use error::{Constraint, StoreError};
pub use export::{ExportedLink, LinkExport};
pub use grouped::GroupedCreates;
pub use idempotency::{IdempotencyClaim, IdempotentTransaction, StoredResponse};
pub use import::{
    GivenLinkFields, ImportEvent, ImportLink, ImportUser, RowOutcome, WriteOptions, WriteRows,
    WriteFuture,
};
pub use jobs::{
    AttemptEnd, ChunkProgress, ChunkTransaction, JobChange, JobClaim, JobCounts, JobLimits, JobRun,
};
pub use keys::KeyOwner;
pub use link_changes::ChangedLink;
pub use links::LinkCreation;
pub use maintenance::{TaskHolder, TaskOutcome, TaskRecord, TaskSession};
pub use outbox::{InvalidationKind, PendingInvalidation};
pub use pool::{MigrateError, PoolRole, connect_lazy, migrate};
pub use resolve::{ConsumedClick, ResolveRow};
pub use settings::PostgresSettings;
pub use stats::StatsError;

use sqlx::{PgPool, Postgres, Transaction};

/// Ids as parameters of a query.
fn numbers<I: Copy + Into<i64>>(ids: &[I]) -> Vec<i64> {
    ids.iter().map(|id| (*id).into()).collect()
}

/// Access to the database; clones share a pool.
#[derive(Debug, Clone)]
pub struct Store {
    pool: PgPool,
}

impl Store {
    /// A store on a pool.
    pub fn new(pool: PgPool) -> Self {
        Self { pool }
    }

    /// Whether the database answers.
    pub async fn ping(&self) -> Result<(), StoreError> {
        sqlx::query_scalar!("SELECT 1").fetch_one(&self.pool).await?;
        Ok(())
    }

    /// Begins a transaction.
    pub async fn begin(&self) -> Result<Transaction<'static, Postgres>, StoreError> {
        Ok(self.pool.begin().await?)
    }

    /// Connections in use and in all, for metrics.
    pub fn pool_use(&self) -> (usize, u32) {
        let size = self.pool.size();
        (usize::try_from(size).unwrap_or(0).saturating_sub(self.pool.num_idle()), size)
    }

    /// Most connections of this pool.
    pub fn max_connections(&self) -> u32 {
        self.pool.options().get_max_connections()
    }

    /// Waits for running statements and closes the connections.
    pub async fn close(&self) {
        self.pool.close().await;
    }
}
