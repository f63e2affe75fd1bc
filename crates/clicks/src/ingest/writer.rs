//! Writes batches to PostgreSQL, each once.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
};

use chrono::NaiveDate;
use futures::future::join_all;
use redis::{RedisError, aio::MultiplexedConnection};

use crate::{Batch, BatchError, BatchId, PackedBatch};
use linnet_domain::ClickKind;
use linnet_platform::redis_keys::KeyLayout;
use linnet_store::{ClickGroup, ClickRow, SHARDS, Store, StoreError};

use super::{
    batch_enricher::SharedBatchEnricher,
    group::{self, WriteMode, build_groups},
    metrics::IngestMetrics,
    visitors::{VisitorsError, count_visitors},
};

/// Batches that are unpacked at a time. An unpacked click needs at least three times the memory of a packed one.
const UNPACKED_BATCHES: usize = 8;

/// Why a group could not be written.
#[derive(Debug, thiserror::Error)]
pub enum IngestError {
    /// Redis failed.
    #[error("a Redis command failed")]
    Redis(#[from] RedisError),
    /// PostgreSQL failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A batch cannot be decoded.
    #[error(transparent)]
    Batch(#[from] BatchError),
    /// The unique visitors of a day are being rebuilt. The clicks of the day wait for that.
    #[error("the unique visitors of {0} are being rebuilt")]
    Rebuilding(NaiveDate),
}

impl From<VisitorsError> for IngestError {
    fn from(error: VisitorsError) -> Self {
        match error {
            VisitorsError::Redis(error) => Self::Redis(error),
            VisitorsError::Store(error) => Self::Store(error),
            VisitorsError::Rebuilding(day) => Self::Rebuilding(day),
        }
    }
}

impl IngestError {
    /// Whether PostgreSQL rejects the clicks themselves, so that retries cannot succeed. An operator can fix other errors.
    /// A duplicate key is temporary: another worker inserted the same roll-up at the same time, and the retry updates it.
    pub(super) fn is_permanent(&self) -> bool {
        match self {
            Self::Redis(_) | Self::Rebuilding(_) => false,
            Self::Store(error) => error.refuses_rows() && !error.is_duplicate_key(),
            Self::Batch(_) => true,
        }
    }
}

/// Writes groups of batches.
pub struct Writer {
    store: Store,
    metrics: Arc<IngestMetrics>,
    enricher: SharedBatchEnricher,
    layout: KeyLayout,
    /// Days whose partition this writer has ensured.
    partitions: HashSet<NaiveDate>,
}

impl Writer {
    /// A writer that shares its lookups with other writers of the process. `layout` is that of the Redis that counts
    /// visitors.
    pub fn new(
        store: Store,
        metrics: Arc<IngestMetrics>,
        enricher: SharedBatchEnricher,
        layout: KeyLayout,
    ) -> Self {
        Self { store, metrics, enricher, layout, partitions: HashSet::new() }
    }

    /// Writes the shards of these batches that are not written yet. Without Redis, visitors are not counted.
    pub async fn write(
        &mut self,
        mut redis: Option<&mut MultiplexedConnection>,
        batches: &[PackedBatch<'_>],
        mode: WriteMode,
    ) -> Result<(), IngestError> {
        let ids: Vec<Vec<u8>> = batches.iter().map(|batch| batch.id.to_vec()).collect();
        let mut written_here: HashSet<BatchId> = HashSet::new();
        loop {
            let written_before = self.store.written_shards(&ids).await?;
            let mut is_complete = true;
            for (shards, batches) in by_missing_shards(batches, &written_before) {
                let written =
                    self.write_shards(redis.as_deref_mut(), &shards, &batches, mode).await?;
                if written > 0 {
                    written_here.extend(batches.iter().map(|batch| batch.id));
                }
                is_complete &= written == shards.len();
            }
            if is_complete {
                self.metrics.duplicates.add((batches.len() - written_here.len()) as u64);
                return Ok(());
            }
        }
    }

    /// Writes these shards of batches. Returns how many were written; another worker may have written the others meanwhile.
    async fn write_shards(
        &mut self,
        redis: Option<&mut MultiplexedConnection>,
        shards: &[i16],
        batches: &[PackedBatch<'_>],
        mode: WriteMode,
    ) -> Result<usize, IngestError> {
        let rows = self.read_rows(batches).await?;
        let days: HashSet<NaiveDate> = rows.iter().map(|row| row.at.date_naive()).collect();
        self.ensure_partitions(days).await?;
        let visitor_counts = match redis {
            Some(redis) => {
                let visitors = group::visitors(&rows);
                count_visitors(redis, self.layout, &self.store, &visitors).await?
            }
            None => HashMap::new(),
        };
        let ids: Vec<Vec<u8>> = batches.iter().map(|batch| batch.id.to_vec()).collect();
        let groups = build_groups(&ids, shards, &rows, &visitor_counts, mode);
        drop(visitor_counts);
        let results = join_all(groups.iter().map(|group| self.store.write_clicks(group))).await;
        let mut written = 0;
        let mut failed: Option<StoreError> = None;
        for (group, result) in groups.iter().zip(results) {
            match result {
                Ok(true) => {
                    written += group.shards.len();
                    self.count_ingested(group);
                }
                // A temporary error takes precedence over rejected rows, because it is retried.
                Err(error) if failed.as_ref().is_none_or(StoreError::refuses_rows) => {
                    failed = Some(error);
                }
                Ok(false) | Err(_) => {}
            }
        }
        if let Some(error) = failed {
            // A partition may have been dropped.
            self.partitions.clear();
            return Err(error.into());
        }
        if written > 0 {
            #[expect(clippy::cast_precision_loss, reason = "some ten thousand")]
            self.metrics.group_size.record(rows.len() as f64);
            self.metrics.top_link.add(group::clicks_of_top_link(&rows) as u64);
        }
        Ok(written)
    }

    /// Decodes, enriches and sorts these batches. If a link's owner changes meanwhile, a row may have either owner.
    async fn read_rows(&self, batches: &[PackedBatch<'_>]) -> Result<Vec<ClickRow>, IngestError> {
        let mut rows = Vec::new();
        for part in batches.chunks(UNPACKED_BATCHES) {
            let part = part.iter().map(|batch| Batch::unpack(batch.bytes));
            let part = part.collect::<Result<Vec<_>, _>>()?;
            self.enricher.lock().await.enrich(&part, &mut rows).await?;
        }
        group::sort(&mut rows);
        Ok(rows)
    }

    fn count_ingested(&self, group: &ClickGroup<'_>) {
        for kind in ClickKind::ALL {
            let count = group.rows.iter().filter(|row| row.kind == kind).count();
            self.metrics.add_ingested(kind, count as u64);
        }
    }

    /// Creates missing partitions of these days.
    async fn ensure_partitions(
        &mut self,
        days: impl IntoIterator<Item = NaiveDate>,
    ) -> Result<(), StoreError> {
        for day in days {
            if !self.partitions.contains(&day) {
                self.store.ensure_partition(day).await?;
                self.partitions.insert(day);
            }
        }
        Ok(())
    }
}

/// Groups the batches that are not completely written by their missing shards, and removes duplicates. A batch misses
/// only some shards if one of its two transactions failed.
fn by_missing_shards<'a>(
    batches: &[PackedBatch<'a>],
    written: &HashMap<Vec<u8>, Vec<i16>>,
) -> BTreeMap<Vec<i16>, Vec<PackedBatch<'a>>> {
    let mut distinct = HashSet::new();
    let mut by_shards: BTreeMap<Vec<i16>, Vec<PackedBatch<'a>>> = BTreeMap::new();
    for &batch in batches.iter().filter(|batch| distinct.insert(batch.id)) {
        let written = written.get(&batch.id[..]).map_or(&[][..], Vec::as_slice);
        let missing: Vec<i16> =
            SHARDS.into_iter().filter(|shard| !written.contains(shard)).collect();
        if !missing.is_empty() {
            by_shards.entry(missing).or_default().push(batch);
        }
    }
    by_shards
}
