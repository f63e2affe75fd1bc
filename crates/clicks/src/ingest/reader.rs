//! Reads batches from the stream and sees each to its end.

use std::{sync::Arc, time::Duration};

use linnet_platform::{
    clock::Clock,
    redis_client::{client, jittered},
    settings::RedisSettings,
};
use redis::{
    AsyncConnectionConfig, RedisError, Value,
    aio::MultiplexedConnection,
    streams::{StreamAutoClaimReply, StreamId, StreamReadReply},
};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::{Batch, DEAD_LETTERS, FIELD, GROUP, PackedBatch, STREAM};
use linnet_store::Store;

use super::{
    IngestMetrics, WorkerSettings,
    group::Pace,
    writer::{IngestError, SharedKnowledge, Writer},
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
/// Clicks that have waited for so long are written by as many processors as it takes. In a shorter burst
/// redirects come first: the stream has room.
const HURRY_AFTER: Duration = Duration::from_secs(5);

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

    /// How long it has been there; the clocks of Redis and of this machine are compared.
    fn age(&self, now_ms: u64) -> Duration {
        let added = self.id.split_once('-').and_then(|(ms, _)| ms.parse().ok());
        added.map_or(Duration::ZERO, |added| Duration::from_millis(now_ms.saturating_sub(added)))
    }
}

/// One consumer of the group.
pub struct Ingester {
    redis: RedisSettings,
    settings: WorkerSettings,
    metrics: Arc<IngestMetrics>,
    consumer: String,
    writer: Writer,
    clock: Clock,
}

impl Ingester {
    /// A consumer with a name of its own.
    pub fn new(
        store: Store,
        redis: RedisSettings,
        settings: WorkerSettings,
        metrics: Arc<IngestMetrics>,
        knowledge: SharedKnowledge,
        clock: Clock,
    ) -> Self {
        Self {
            redis,
            settings,
            writer: Writer::new(store, Arc::clone(&metrics), knowledge),
            metrics,
            clock,
            consumer: format!("worker-{:016x}", rand::random::<u64>()),
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
        let mut connection = connect(&self.redis).await?;
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
        for entry in &entries {
            match PackedBatch::of(&entry.packed) {
                Ok(batch) => batches.push((entry, batch)),
                Err(error) => self.bury(redis, entry, &error.to_string()).await?,
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
        if batches.is_empty() {
            return Ok(());
        }
        acknowledge(redis, batches.iter().map(|(entry, _)| &entry.id)).await?;
        self.metrics.duration.record(began.elapsed().as_secs_f64());
        Ok(())
    }

    async fn write(
        &mut self,
        redis: &mut MultiplexedConnection,
        batches: &[(&Entry, PackedBatch<'_>)],
    ) -> Result<(), IngestError> {
        let is_late =
            batches.first().is_some_and(|(entry, _)| entry.age(self.clock.now_ms()) > HURRY_AFTER);
        let pace = if is_late { Pace::Hurried } else { Pace::Steady };
        let batches: Vec<PackedBatch<'_>> = batches.iter().map(|(_, batch)| *batch).collect();
        self.writer.write(Some(redis), &batches, pace).await
    }

    /// One of them is refused for good: which one shows when each is written alone.
    async fn write_one_by_one(
        &mut self,
        redis: &mut MultiplexedConnection,
        batches: &[(&Entry, PackedBatch<'_>)],
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
                        self.bury(redis, one.0, &reason).await?;
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

fn reason_of(error: &IngestError) -> String {
    let mut reason = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        reason = format!("{reason}: {cause}");
        source = cause.source();
    }
    reason
}

/// A connection that waits long enough for scripts over a whole group.
pub async fn connect(settings: &RedisSettings) -> Result<MultiplexedConnection, RedisError> {
    let config = AsyncConnectionConfig::new()
        .set_connection_timeout(Some(settings.connect_timeout()))
        .set_response_timeout(Some(RESPONSE_TIMEOUT));
    client(settings)?.get_multiplexed_async_connection_with_config(&config).await
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
