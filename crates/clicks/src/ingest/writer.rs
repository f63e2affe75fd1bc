//! Writes batches: from what they say to rows and roll-ups, wherever they come from.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    num::NonZeroI32,
    sync::Arc,
};

use chrono::{DateTime, NaiveDate};
use futures::future::join_all;
use linnet_platform::clock::Clock;
use redis::{RedisError, aio::MultiplexedConnection};

use crate::{AgentKnown, Batch, BatchError, Enricher, PackedBatch};
use linnet_domain::{ClickKind, ClickValue, ValueKind};
use linnet_store::{ClickGroup, ClickRow, SHARDS, Store, StoreError};

use super::{
    IngestMetrics,
    group::{self, Pace, build_groups},
    links::Links,
    values::Values,
    visitors::{VisitorsError, count_visitors},
};

/// Agents whose reading is remembered.
const AGENTS: usize = 10_000;
/// Batches that are unpacked at a time: a click that is packed needs a third of the memory, or less.
const UNPACKED: usize = 8;
/// A click that claims to come from further in the future had a wrong clock: it counts as of now.
const MAX_AHEAD: chrono::TimeDelta = chrono::TimeDelta::hours(1);

/// Why a group could not be written.
#[derive(Debug, thiserror::Error)]
pub enum IngestError {
    /// Redis.
    #[error("a Redis command failed")]
    Redis(#[from] RedisError),
    /// PostgreSQL.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A batch that cannot be read.
    #[error(transparent)]
    Batch(#[from] BatchError),
}

impl From<VisitorsError> for IngestError {
    fn from(error: VisitorsError) -> Self {
        match error {
            VisitorsError::Redis(error) => Self::Redis(error),
            VisitorsError::Store(error) => Self::Store(error),
        }
    }
}

impl IngestError {
    /// Whether trying again cannot help, since the clicks themselves are refused. Whatever else the
    /// database refuses, an operator can mend, and the clicks wait for it. A roll-up that somebody else
    /// adds at the same time is changed by the next try.
    pub(super) fn is_final(&self) -> bool {
        match self {
            Self::Redis(_) => false,
            Self::Store(error) => error.refuses_rows() && !error.is_duplicate_key(),
            Self::Batch(_) => true,
        }
    }
}

/// What many clicks have in common, remembered for all writers of a process.
pub struct Knowledge {
    store: Store,
    enricher: Enricher,
    agents: quick_cache::unsync::Cache<String, Arc<AgentKnown>>,
    values: Values,
    links: Links,
    clock: Clock,
}

/// [`Knowledge`] that several writers share. Each keeps it for as long as it looks at a group, so while
/// one of them writes the next one looks.
pub(crate) type SharedKnowledge = Arc<tokio::sync::Mutex<Knowledge>>;

/// Writes batches, each once.
pub struct Writer {
    store: Store,
    metrics: Arc<IngestMetrics>,
    knowledge: SharedKnowledge,
    partitions: HashSet<NaiveDate>,
}

impl Writer {
    /// A writer that knows no partition yet.
    pub fn new(store: Store, metrics: Arc<IngestMetrics>, knowledge: SharedKnowledge) -> Self {
        Self { store, metrics, knowledge, partitions: HashSet::new() }
    }

    /// Writes those shards of batches that are not written yet. Without Redis visitors are not counted.
    pub async fn write(
        &mut self,
        mut redis: Option<&mut MultiplexedConnection>,
        batches: &[PackedBatch<'_>],
        pace: Pace,
    ) -> Result<(), IngestError> {
        let ids: Vec<Vec<u8>> = batches.iter().map(|batch| batch.id.to_vec()).collect();
        let mut written_here: HashSet<[u8; 16]> = HashSet::new();
        loop {
            let known = self.store.known_batches(&ids).await?;
            let mut seen = HashSet::new();
            // A batch has some of its shards only after a fault between two transactions.
            let mut missing: BTreeMap<Vec<i16>, Vec<PackedBatch<'_>>> = BTreeMap::new();
            for &batch in batches.iter().filter(|batch| seen.insert(batch.id)) {
                let known = known.get(&batch.id[..]).map_or(&[][..], Vec::as_slice);
                let shards: Vec<i16> =
                    SHARDS.into_iter().filter(|shard| !known.contains(shard)).collect();
                if !shards.is_empty() {
                    missing.entry(shards).or_default().push(batch);
                }
            }
            let mut is_all = true;
            for (shards, batches) in missing {
                let written =
                    self.write_shards(redis.as_deref_mut(), &shards, &batches, pace).await?;
                if written > 0 {
                    written_here.extend(batches.iter().map(|batch| batch.id));
                }
                is_all &= written == shards.len();
            }
            if is_all {
                self.metrics.duplicates.add((batches.len() - written_here.len()) as u64);
                return Ok(());
            }
        }
    }

    /// Writes these shards of batches; how many. Those are left out that another worker has written in the
    /// meantime.
    async fn write_shards(
        &mut self,
        redis: Option<&mut MultiplexedConnection>,
        shards: &[i16],
        batches: &[PackedBatch<'_>],
        pace: Pace,
    ) -> Result<usize, IngestError> {
        let mut clicks = Vec::new();
        // A link that changes hands in between has its clicks of this group with one of the two owners.
        for part in batches.chunks(UNPACKED) {
            let part = part.iter().map(|batch| Batch::unpack(batch.bytes));
            let part = part.collect::<Result<Vec<_>, _>>()?;
            self.knowledge.lock().await.enrich(&part, &mut clicks).await?;
        }
        group::sort(&mut clicks);
        let days: HashSet<NaiveDate> = clicks.iter().map(|c| c.at.date_naive()).collect();
        self.ensure_partitions(days).await?;
        let visitors = match redis {
            Some(redis) => count_visitors(redis, &self.store, &group::visitors(&clicks)).await?,
            None => HashMap::new(),
        };
        let ids: Vec<Vec<u8>> = batches.iter().map(|batch| batch.id.to_vec()).collect();
        let groups = build_groups(&ids, shards, &clicks, &visitors, pace);
        #[expect(clippy::cast_precision_loss, reason = "some ten thousand")]
        let size = clicks.len() as f64;
        drop(visitors);
        let written = join_all(groups.iter().map(|group| self.store.write_clicks(group))).await;
        let mut done = 0;
        let mut failed: Option<StoreError> = None;
        for (group, written) in groups.iter().zip(written) {
            match written {
                // Only now: a group that is tried again is looked through again.
                Ok(true) => {
                    done += group.shards.len();
                    self.count(group);
                }
                // Rows that are refused are looked at when nothing else is wrong.
                Err(error) if failed.as_ref().is_none_or(StoreError::refuses_rows) => {
                    failed = Some(error);
                }
                Ok(false) | Err(_) => {}
            }
        }
        if let Some(error) = failed {
            // A partition may have been dropped since it was last seen.
            self.partitions.clear();
            return Err(error.into());
        }
        if done > 0 {
            self.metrics.group_size.record(size);
        }
        Ok(done)
    }

    fn count(&self, group: &ClickGroup<'_>) {
        for kind in ClickKind::ALL {
            let count = group.rows.iter().filter(|row| row.kind == kind).count();
            self.metrics.count(kind, count as u64);
        }
    }

    /// Makes the partitions of these days, unless this writer has seen them.
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

impl Knowledge {
    /// For writers to share.
    pub fn shared(store: Store, clock: Clock) -> SharedKnowledge {
        Arc::new(tokio::sync::Mutex::new(Self {
            store,
            enricher: Enricher::default(),
            agents: quick_cache::unsync::Cache::new(AGENTS),
            values: Values::new(),
            links: Links::new(),
            clock,
        }))
    }

    /// Adds the clicks of these batches to `clicks`.
    async fn enrich(
        &mut self,
        batches: &[Batch],
        clicks: &mut Vec<ClickRow>,
    ) -> Result<(), StoreError> {
        let mut texts = Vec::with_capacity(batches.len());
        let mut wanted: HashSet<ClickValue> = HashSet::new();
        for batch in batches {
            let known = self.read_texts(batch);
            wanted.extend(known.values());
            texts.push(known);
        }
        let ids = self.values.get(&self.store, &wanted).await?;
        let urls = batches.iter().flat_map(|batch| &batch.clicks).map(|click| click.url_id);
        let links = self.links.get(&self.store, &mut self.values, urls).await?;
        let now = self.clock.now();
        clicks.reserve(batches.iter().map(|batch| batch.clicks.len()).sum());
        for (batch, texts) in batches.iter().zip(&texts) {
            for click in &batch.clicks {
                let at = i64::try_from(click.at_ms).ok().and_then(DateTime::from_timestamp_millis);
                let at = at.filter(|at| *at < now + MAX_AHEAD).unwrap_or(now);
                let agent = click.agent.and_then(|place| texts.agents.get(&place));
                let is_bot = agent.is_none_or(|agent| agent.is_bot);
                let link = links.get(&click.url_id).copied().unwrap_or_default();
                let referrer = click.referrer.and_then(|place| texts.referrers.get(&place));
                let origin = texts.origins.get(&(click.country, click.language));
                let values = [
                    agent.and_then(|agent| ids.get(&agent.value)).copied(),
                    origin.and_then(|origin| ids.get(origin)).copied(),
                    referrer.and_then(|referrer| ids.get(referrer)).copied(),
                    link.campaign_id,
                ];
                clicks.push(ClickRow {
                    at,
                    url_id: click.url_id,
                    visitor: click.visitor.map(u64::cast_signed),
                    // Identities of the database begin with 1.
                    values: values.map(|id| id.and_then(NonZeroI32::new)),
                    user_id: link.user_id,
                    kind: ClickKind::of(click.is_head, is_bot, click.is_prefetch),
                    is_counted: click.is_counted,
                });
            }
        }
        Ok(())
    }

    /// What the texts of a batch say, each once however many clicks have it.
    fn read_texts(&mut self, batch: &Batch) -> Texts {
        let text = |place: u32| {
            batch.texts.get(usize::try_from(place).unwrap_or(usize::MAX)).map_or("", String::as_str)
        };
        let mut known = Texts::default();
        for click in &batch.clicks {
            if let Some(place) = click.agent
                && !known.agents.contains_key(&place)
            {
                let agent = text(place);
                let read = self.agents.get(agent).cloned().unwrap_or_else(|| {
                    let read = Arc::new(self.enricher.agent(agent));
                    self.agents.insert(agent.to_owned(), Arc::clone(&read));
                    read
                });
                known.agents.insert(place, read);
            }
            if let Some(place) = click.referrer {
                known.referrers.entry(place).or_insert_with(|| ClickValue {
                    kind: ValueKind::Referrer,
                    parts: vec![text(place).to_owned()],
                });
            }
            if click.country.is_some() || click.language.is_some() {
                known.origins.entry((click.country, click.language)).or_insert_with(|| {
                    let part = |place: Option<u32>| place.map_or("", text).to_owned();
                    ClickValue {
                        kind: ValueKind::Origin,
                        parts: vec![part(click.country), part(click.language)],
                    }
                });
            }
        }
        known
    }
}

/// What a batch's texts say, by their place in it.
#[derive(Default)]
struct Texts {
    agents: HashMap<u32, Arc<AgentKnown>>,
    referrers: HashMap<u32, ClickValue>,
    origins: HashMap<(Option<u32>, Option<u32>), ClickValue>,
}

impl Texts {
    fn values(&self) -> impl Iterator<Item = ClickValue> {
        let agents = self.agents.values().map(|agent| agent.value.clone());
        agents.chain(self.referrers.values().cloned()).chain(self.origins.values().cloned())
    }
}
