//! Reads batches from the stream and sees each to its end.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use chrono::{DateTime, NaiveDate, Utc};
use linnet_platform::{
    redis_link::{client, jittered},
    settings::RedisSettings,
};
use redis::{
    AsyncConnectionConfig, RedisError, Value,
    aio::MultiplexedConnection,
    streams::{StreamAutoClaimReply, StreamId, StreamReadReply},
};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::{
    clicks::{AgentKnown, Batch, DEAD_LETTERS, Enricher, FIELD, GROUP, STREAM},
    domain::{ClickKind, ClickValue, ValueKind},
    store::{ClickRow, Store, StoreError},
};

use super::{
    IngestMetrics, WorkerSettings,
    group::{self, Enriched, build_group},
    links::Links,
    maintenance::ensure_partitions,
    values::Values,
    visitors::{VisitorsError, count_visitors},
};

/// Longest wait for something new; also how long a stop may wait for it.
const BLOCK: Duration = Duration::from_millis(500);
/// Longest wait for Redis's answer, scripts over a whole group included.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(10);
const BACKOFF_FIRST: Duration = Duration::from_millis(50);
const BACKOFF_MAX: Duration = Duration::from_secs(2);
/// Dead letters that are kept; the oldest go first.
const MAX_DEAD_LETTERS: u32 = 10_000;
/// Batches looked at for take-over at a time.
const CLAIM_COUNT: u32 = 16;
/// Agents whose reading is remembered.
const AGENTS: usize = 10_000;
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
    /// database refuses, an operator can mend, and the clicks wait for it.
    fn is_final(&self) -> bool {
        matches!(self, Self::Store(error) if error.refuses_rows())
    }
}

/// An entry of the stream.
struct Entry {
    id: String,
    packed: Vec<u8>,
}

impl Entry {
    fn from_stream(id: StreamId) -> Self {
        let packed = match id.map.get(FIELD) {
            Some(Value::BulkString(bytes)) => bytes.clone(),
            _ => Vec::new(),
        };
        Self { id: id.id, packed }
    }
}

/// One consumer of the group.
pub struct Ingester {
    store: Store,
    redis: RedisSettings,
    settings: WorkerSettings,
    metrics: Arc<IngestMetrics>,
    consumer: String,
    enricher: Enricher,
    agents: quick_cache::unsync::Cache<String, Arc<AgentKnown>>,
    values: Values,
    links: Links,
    partitions: HashSet<NaiveDate>,
}

impl Ingester {
    /// A consumer with a name of its own.
    pub fn new(
        store: Store,
        redis: RedisSettings,
        settings: WorkerSettings,
        metrics: Arc<IngestMetrics>,
    ) -> Self {
        Self {
            store,
            redis,
            settings,
            metrics,
            consumer: format!("worker-{:016x}", rand::random::<u64>()),
            enricher: Enricher::default(),
            agents: quick_cache::unsync::Cache::new(AGENTS),
            values: Values::new(),
            links: Links::new(),
            partitions: HashSet::new(),
        }
    }

    /// Ingests until `stop`; the group under way is finished first.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut backoff = BACKOFF_FIRST;
        while !stop.is_cancelled() {
            let error = match self.connect().await {
                Ok(mut connection) => {
                    match self.consume(&mut connection, &stop).await {
                        Ok(()) => return,
                        Err(error) => {
                            // It worked for a while, unless connecting itself was what failed.
                            backoff = BACKOFF_FIRST;
                            error
                        }
                    }
                }
                Err(error) => error,
            };
            tracing::warn!(%error, "the stream of clicks cannot be read: trying on");
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(jittered(backoff)) => {}
            }
            backoff = (backoff * 2).min(BACKOFF_MAX);
        }
    }

    async fn connect(&self) -> Result<MultiplexedConnection, RedisError> {
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(self.redis.connect_timeout()))
            .set_response_timeout(Some(RESPONSE_TIMEOUT));
        let client = client(&self.redis)?;
        let mut connection = client.get_multiplexed_async_connection_with_config(&config).await?;
        make_group(&mut connection).await?;
        Ok(connection)
    }

    async fn consume(
        &mut self,
        redis: &mut MultiplexedConnection,
        stop: &CancellationToken,
    ) -> Result<(), RedisError> {
        let mut claim_at = Instant::now();
        while !stop.is_cancelled() {
            if Instant::now() >= claim_at {
                let claimed = self.claim(redis).await?;
                if claimed.is_empty() {
                    claim_at = Instant::now() + jittered(self.settings.claim_after());
                }
                self.metrics.claimed.add(claimed.len() as u64);
                self.see_to_the_end(redis, claimed, stop).await?;
            }
            let entries = match self.read(redis).await {
                // Redis was emptied.
                Err(error) if error.code() == Some("NOGROUP") => {
                    make_group(redis).await?;
                    continue;
                }
                answer => answer?,
            };
            self.see_to_the_end(redis, entries, stop).await?;
        }
        Ok(())
    }

    async fn read(&self, redis: &mut MultiplexedConnection) -> Result<Vec<Entry>, RedisError> {
        let mut read = redis::cmd("XREADGROUP");
        read.arg("GROUP").arg(GROUP).arg(&self.consumer);
        read.arg("COUNT").arg(self.settings.group_batches);
        let block = u64::try_from(BLOCK.as_millis()).unwrap_or(u64::MAX);
        read.arg("BLOCK").arg(block).arg("STREAMS").arg(STREAM).arg(">");
        let reply: Option<StreamReadReply> = read.query_async(redis).await?;
        let keys = reply.unwrap_or_default().keys;
        Ok(keys.into_iter().flat_map(|key| key.ids).map(Entry::from_stream).collect())
    }

    /// What others have held for too long.
    async fn claim(&self, redis: &mut MultiplexedConnection) -> Result<Vec<Entry>, RedisError> {
        let mut claim = redis::cmd("XAUTOCLAIM");
        claim.arg(STREAM).arg(GROUP).arg(&self.consumer).arg(self.settings.claim_after_ms);
        claim.arg("0-0").arg("COUNT").arg(CLAIM_COUNT);
        let reply: Result<StreamAutoClaimReply, RedisError> = claim.query_async(redis).await;
        match reply {
            Err(error) if error.code() == Some("NOGROUP") => Ok(Vec::new()),
            reply => Ok(reply?.claimed.into_iter().map(Entry::from_stream).collect()),
        }
    }

    /// Writes and acknowledges entries, trying for as long as it takes. At a stop they are left to
    /// others.
    async fn see_to_the_end(
        &mut self,
        redis: &mut MultiplexedConnection,
        entries: Vec<Entry>,
        stop: &CancellationToken,
    ) -> Result<(), RedisError> {
        if entries.is_empty() {
            return Ok(());
        }
        let began = Instant::now();
        let mut batches = Vec::with_capacity(entries.len());
        for entry in entries {
            match Batch::unpack(&entry.packed) {
                Ok(batch) => batches.push((entry, batch)),
                Err(error) => self.bury(redis, &entry, &error.to_string()).await?,
            }
        }
        let mut backoff = BACKOFF_FIRST;
        while !batches.is_empty() {
            match self.write(redis, &batches).await {
                Ok(()) => break,
                Err(IngestError::Redis(error)) => return Err(error),
                Err(error) if error.is_final() => {
                    self.write_one_by_one(redis, &batches, stop).await?;
                    return Ok(());
                }
                Err(error) => {
                    self.metrics.retries.add(1);
                    let reason = reason_of(&error);
                    tracing::warn!(reason, "clicks wait in the stream: trying on");
                    tokio::select! {
                        () = stop.cancelled() => return Ok(()),
                        () = tokio::time::sleep(jittered(backoff)) => {}
                    }
                    backoff = (backoff * 2).min(BACKOFF_MAX);
                }
            }
        }
        acknowledge(redis, batches.iter().map(|(entry, _)| &entry.id)).await?;
        self.metrics.duration.record(began.elapsed().as_secs_f64());
        Ok(())
    }

    /// One of them is refused for good: which one shows when each is written alone.
    async fn write_one_by_one(
        &mut self,
        redis: &mut MultiplexedConnection,
        batches: &[(Entry, Batch)],
        stop: &CancellationToken,
    ) -> Result<(), RedisError> {
        for one in batches {
            let mut backoff = BACKOFF_FIRST;
            loop {
                match self.write(redis, std::slice::from_ref(one)).await {
                    Ok(()) => {
                        acknowledge(redis, [&one.0.id]).await?;
                        break;
                    }
                    Err(IngestError::Redis(error)) => return Err(error),
                    Err(error) if error.is_final() => {
                        let reason = reason_of(&error);
                        self.bury(redis, &one.0, &reason).await?;
                        break;
                    }
                    Err(_) => {
                        self.metrics.retries.add(1);
                        tokio::select! {
                            () = stop.cancelled() => return Ok(()),
                            () = tokio::time::sleep(jittered(backoff)) => {}
                        }
                        backoff = (backoff * 2).min(BACKOFF_MAX);
                    }
                }
            }
        }
        Ok(())
    }

    /// Writes those batches that are not written yet.
    async fn write(
        &mut self,
        redis: &mut MultiplexedConnection,
        batches: &[(Entry, Batch)],
    ) -> Result<(), IngestError> {
        loop {
            let ids: Vec<Vec<u8>> = batches.iter().map(|(_, batch)| batch.id.to_vec()).collect();
            let mut known = self.store.known_batches(&ids).await?;
            let mut fresh = Vec::with_capacity(batches.len());
            for (_, batch) in batches {
                // Also when the same batch is in this group twice.
                if known.insert(batch.id.to_vec()) {
                    fresh.push(batch);
                }
            }
            // Counted when it is over: until then another worker may be faster, or all be tried again.
            let duplicates = (batches.len() - fresh.len()) as u64;
            if fresh.is_empty() {
                self.metrics.duplicates.add(duplicates);
                return Ok(());
            }
            let clicks = self.enrich(&fresh).await?;
            let days: HashSet<NaiveDate> = clicks.iter().map(|c| c.row.at.date_naive()).collect();
            ensure_partitions(&self.store, &mut self.partitions, days).await?;
            let visitors = count_visitors(redis, &self.store, &group::visitors(&clicks)).await?;
            let ids = fresh.iter().map(|batch| batch.id.to_vec()).collect();
            let group = build_group(ids, &clicks, &visitors);
            match self.store.write_clicks(&group).await {
                Ok(true) => {}
                Ok(false) => continue,
                Err(error) => {
                    // A partition may have been dropped since it was last seen.
                    self.partitions.clear();
                    return Err(error.into());
                }
            }
            self.metrics.duplicates.add(duplicates);
            for kind in ClickKind::ALL {
                let count = clicks.iter().filter(|click| click.kind == kind).count();
                self.metrics.count(kind, count as u64);
            }
            #[expect(clippy::cast_precision_loss, reason = "some ten thousand")]
            self.metrics.group_size.record(clicks.len() as f64);
            return Ok(());
        }
    }

    async fn enrich(&mut self, batches: &[&Batch]) -> Result<Vec<Enriched>, StoreError> {
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
        let now = Utc::now();
        let mut enriched = Vec::with_capacity(batches.iter().map(|b| b.clicks.len()).sum());
        for (batch, texts) in batches.iter().zip(&texts) {
            for click in &batch.clicks {
                let at = i64::try_from(click.at_ms).ok().and_then(DateTime::from_timestamp_millis);
                let at = at.filter(|at| *at < now + MAX_AHEAD).unwrap_or(now);
                let agent = click.agent.and_then(|place| texts.agents.get(&place));
                let is_bot = agent.is_none_or(|agent| agent.is_bot);
                let kind = ClickKind::of(click.is_head, is_bot, click.is_prefetch);
                let link = links.get(&click.url_id).copied().unwrap_or_default();
                let referrer = click.referrer.and_then(|place| texts.referrers.get(&place));
                let origin = texts.origins.get(&(click.country, click.language));
                let row = ClickRow {
                    at,
                    url_id: click.url_id,
                    kind: i16::from(kind as u8),
                    visitor: click.visitor.map(u64::cast_signed),
                    values: [
                        agent.and_then(|agent| ids.get(&agent.value)).copied(),
                        origin.and_then(|origin| ids.get(origin)).copied(),
                        referrer.and_then(|referrer| ids.get(referrer)).copied(),
                        link.campaign_id,
                    ],
                };
                enriched.push(Enriched {
                    row,
                    kind,
                    user_id: link.user_id,
                    is_counted: click.is_counted,
                });
            }
        }
        Ok(enriched)
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

    /// Moves an entry to the dead letters.
    async fn bury(
        &self,
        redis: &mut MultiplexedConnection,
        entry: &Entry,
        reason: &str,
    ) -> Result<(), RedisError> {
        let clicks = Batch::count_of(&entry.packed);
        tracing::error!(entry = entry.id, clicks, reason, "a batch of clicks is a dead letter");
        let _: () = redis::pipe()
            .atomic()
            .cmd("XADD")
            .arg(DEAD_LETTERS)
            .arg("MAXLEN")
            .arg(MAX_DEAD_LETTERS)
            .arg("*")
            .arg(FIELD)
            .arg(&entry.packed)
            .arg("entry")
            .arg(&entry.id)
            .arg("reason")
            .arg(reason)
            .ignore()
            .cmd("XACK")
            .arg(STREAM)
            .arg(GROUP)
            .arg(&entry.id)
            .ignore()
            .query_async(redis)
            .await?;
        self.metrics.dead_letters.add(1);
        self.metrics.dead_letter_clicks.add(clicks.min(1_000_000));
        Ok(())
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

fn reason_of(error: &IngestError) -> String {
    let mut reason = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        reason = format!("{reason}: {cause}");
        source = cause.source();
    }
    reason
}

async fn make_group(redis: &mut MultiplexedConnection) -> Result<(), RedisError> {
    let mut create = redis::cmd("XGROUP");
    create.arg("CREATE").arg(STREAM).arg(GROUP).arg("0").arg("MKSTREAM");
    match create.query_async::<()>(redis).await {
        Err(error) if error.code() == Some("BUSYGROUP") => Ok(()),
        answer => answer,
    }
}

async fn acknowledge<'a>(
    redis: &mut MultiplexedConnection,
    ids: impl IntoIterator<Item = &'a String>,
) -> Result<(), RedisError> {
    let mut acknowledge = redis::cmd("XACK");
    acknowledge.arg(STREAM).arg(GROUP);
    for id in ids {
        acknowledge.arg(id);
    }
    acknowledge.query_async(redis).await
}
