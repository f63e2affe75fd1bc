//! A consumer of the stream: reads groups of batches, writes them, and acknowledges them.

use std::{sync::Arc, time::Duration};

use linnet_platform::{
    backoff::{Backoff, jittered},
    clock::Clock,
    redis_connection::{self, Confirmation},
    settings::RedisSettings,
};
use linnet_telemetry::error_chain;
use redis::{
    RedisError, Value,
    aio::MultiplexedConnection,
    streams::{StreamAutoClaimReply, StreamId, StreamReadReply},
};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::{Batch, FIELD, GROUP, PackedBatch, StreamNames};
use linnet_store::Store;

use super::{
    batch_enricher::SharedBatchEnricher,
    group::WriteMode,
    metrics::IngestMetrics,
    settings::IngestSettings,
    writer::{IngestError, Writer},
};

/// Longest wait of a read for new batches. A stop may wait as long.
const BLOCK: Duration = Duration::from_millis(500);
/// Longest wait for a response of Redis, including scripts over a whole group.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(10);
/// The maximum number of dead letters that are kept; the oldest are deleted first.
const MAX_DEAD_LETTERS: u32 = 10_000;
/// The maximum number of batches that are taken over at a time.
const CLAIM_COUNT: u32 = 16;
/// Age of a batch above which its group is written in parallel. Younger batches can wait in the stream, because redirects
/// have priority.
const PARALLEL_AFTER: Duration = Duration::from_secs(5);

const fn new_backoff() -> Backoff {
    Backoff::new(Duration::from_millis(50), Duration::from_secs(2))
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

    /// Time in the stream, from the clocks of Redis and of this machine.
    fn age(&self, now_ms: u64) -> Duration {
        let added = self.id.split_once('-').and_then(|(ms, _)| ms.parse().ok());
        added.map_or(Duration::ZERO, |added| Duration::from_millis(now_ms.saturating_sub(added)))
    }
}

/// One consumer of the group.
pub struct Ingester {
    redis: RedisSettings,
    settings: IngestSettings,
    metrics: Arc<IngestMetrics>,
    consumer: String,
    names: StreamNames,
    writer: Writer,
    clock: Clock,
}

impl Ingester {
    /// A consumer with a random name.
    pub fn new(
        store: Store,
        redis: RedisSettings,
        settings: IngestSettings,
        metrics: Arc<IngestMetrics>,
        enricher: SharedBatchEnricher,
        clock: Clock,
    ) -> Self {
        let layout = redis.key_layout();
        Self {
            redis,
            settings,
            names: StreamNames::of(layout),
            writer: Writer::new(store, Arc::clone(&metrics), enricher, layout),
            metrics,
            clock,
            consumer: format!("worker-{:016x}", rand::random::<u64>()),
        }
    }

    /// Ingests until `stop` is cancelled; finishes the current group first.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut backoff = new_backoff();
        while !stop.is_cancelled() {
            let error = match self.connect().await {
                Ok((mut connection, master)) => {
                    match self.consume(&mut connection, &master, &stop).await {
                        Ok(()) => return,
                        Err(error) => {
                            backoff.reset();
                            error
                        }
                    }
                }
                Err(error) => error,
            };
            tracing::warn!(%error, "click stream not readable; retrying");
            if backoff.wait_unless_cancelled(&stop).await.is_break() {
                return;
            }
        }
    }

    async fn connect(&self) -> Result<(MultiplexedConnection, Confirmation), RedisError> {
        let (mut connection, master) =
            redis_connection::connect_confirmed(&self.redis, RESPONSE_TIMEOUT).await?;
        create_group(&mut connection, self.names.clicks).await?;
        Ok((connection, master))
    }

    async fn consume(
        &mut self,
        redis: &mut MultiplexedConnection,
        master: &Confirmation,
        stop: &CancellationToken,
    ) -> Result<(), RedisError> {
        let mut claim_at = Instant::now();
        while !stop.is_cancelled() {
            master.check()?;
            if Instant::now() >= claim_at {
                let claimed = self.claim(redis).await?;
                if claimed.is_empty() {
                    claim_at = Instant::now() + jittered(self.settings.claim_after);
                }
                self.metrics.claimed.add(claimed.len() as u64);
                self.ingest(redis, claimed, stop).await?;
            }
            let entries = match self.read(redis).await {
                // Redis has lost its data.
                Err(error) if error.code() == Some("NOGROUP") => {
                    create_group(redis, self.names.clicks).await?;
                    continue;
                }
                result => result?,
            };
            self.ingest(redis, entries, stop).await?;
        }
        Ok(())
    }

    async fn read(&self, redis: &mut MultiplexedConnection) -> Result<Vec<Entry>, RedisError> {
        let mut read = redis::cmd("XREADGROUP");
        read.arg("GROUP").arg(GROUP).arg(&self.consumer);
        read.arg("COUNT").arg(self.settings.group_batches);
        let block = u64::try_from(BLOCK.as_millis()).unwrap_or(u64::MAX);
        read.arg("BLOCK").arg(block).arg("STREAMS").arg(self.names.clicks).arg(">");
        let reply: Option<StreamReadReply> = read.query_async(redis).await?;
        let keys = reply.unwrap_or_default().keys;
        Ok(keys.into_iter().flat_map(|key| key.ids).map(Entry::from_stream).collect())
    }

    /// Takes over entries that other consumers have held for too long.
    async fn claim(&self, redis: &mut MultiplexedConnection) -> Result<Vec<Entry>, RedisError> {
        let min_idle_ms = u64::try_from(self.settings.claim_after.as_millis()).unwrap_or(u64::MAX);
        let mut claim = redis::cmd("XAUTOCLAIM");
        claim.arg(self.names.clicks).arg(GROUP).arg(&self.consumer).arg(min_idle_ms);
        claim.arg("0-0").arg("COUNT").arg(CLAIM_COUNT);
        let reply: Result<StreamAutoClaimReply, RedisError> = claim.query_async(redis).await;
        match reply {
            Err(error) if error.code() == Some("NOGROUP") => Ok(Vec::new()),
            reply => Ok(reply?.claimed.into_iter().map(Entry::from_stream).collect()),
        }
    }

    /// Writes and acknowledges entries, with retries until it succeeds. After a stop, other consumers take them over.
    async fn ingest(
        &mut self,
        redis: &mut MultiplexedConnection,
        entries: Vec<Entry>,
        stop: &CancellationToken,
    ) -> Result<(), RedisError> {
        let began = Instant::now();
        let mut batches = Vec::with_capacity(entries.len());
        for entry in &entries {
            match PackedBatch::from_bytes(&entry.packed) {
                Ok(batch) => batches.push((entry, batch)),
                Err(error) => self.move_to_dead_letters(redis, entry, &error.to_string()).await?,
            }
        }
        if batches.is_empty() {
            return Ok(());
        }
        let mut backoff = new_backoff();
        loop {
            match self.write(redis, &batches).await {
                Ok(()) => break,
                Err(IngestError::Redis(error)) => return Err(error),
                Err(error) if error.is_permanent() => {
                    return self.write_one_by_one(redis, &batches, stop).await;
                }
                Err(error) => {
                    self.metrics.retries.add(1);
                    let reason = error_chain(&error);
                    tracing::warn!(reason, "group of click batches not written; retrying");
                    if backoff.wait_unless_cancelled(stop).await.is_break() {
                        return Ok(());
                    }
                }
            }
        }
        acknowledge(redis, self.names.clicks, batches.iter().map(|(entry, _)| &entry.id)).await?;
        self.metrics.duration.record(began.elapsed().as_secs_f64());
        Ok(())
    }

    async fn write(
        &mut self,
        redis: &mut MultiplexedConnection,
        batches: &[(&Entry, PackedBatch<'_>)],
    ) -> Result<(), IngestError> {
        let now_ms = self.clock.now_ms();
        let is_late = batches.first().is_some_and(|(entry, _)| entry.age(now_ms) > PARALLEL_AFTER);
        let mode = if is_late { WriteMode::Parallel } else { WriteMode::Sequential };
        let batches: Vec<PackedBatch<'_>> = batches.iter().map(|(_, batch)| *batch).collect();
        self.writer.write(Some(redis), &batches, mode).await
    }

    /// Writes each batch alone, which identifies the one that is rejected permanently.
    async fn write_one_by_one(
        &mut self,
        redis: &mut MultiplexedConnection,
        batches: &[(&Entry, PackedBatch<'_>)],
        stop: &CancellationToken,
    ) -> Result<(), RedisError> {
        for batch in batches {
            let mut backoff = new_backoff();
            loop {
                match self.write(redis, std::slice::from_ref(batch)).await {
                    Ok(()) => {
                        acknowledge(redis, self.names.clicks, [&batch.0.id]).await?;
                        break;
                    }
                    Err(IngestError::Redis(error)) => return Err(error),
                    Err(error) if error.is_permanent() => {
                        self.move_to_dead_letters(redis, batch.0, &error_chain(&error)).await?;
                        break;
                    }
                    Err(_) => {
                        self.metrics.retries.add(1);
                        if backoff.wait_unless_cancelled(stop).await.is_break() {
                            return Ok(());
                        }
                    }
                }
            }
        }
        Ok(())
    }

    async fn move_to_dead_letters(
        &self,
        redis: &mut MultiplexedConnection,
        entry: &Entry,
        reason: &str,
    ) -> Result<(), RedisError> {
        let clicks = Batch::packed_click_count(&entry.packed);
        tracing::error!(entry = entry.id, clicks, reason, "click batch moved to dead letters");
        let mut pipe = redis::pipe();
        pipe.atomic();
        pipe.cmd("XADD").arg(self.names.dead_letters).arg("MAXLEN").arg(MAX_DEAD_LETTERS).arg("*");
        pipe.arg(FIELD).arg(&entry.packed).arg("entry").arg(&entry.id).arg("reason").arg(reason);
        pipe.ignore();
        pipe.cmd("XACK").arg(self.names.clicks).arg(GROUP).arg(&entry.id).ignore();
        let _: () = pipe.query_async(redis).await?;
        self.metrics.dead_letters.add(1);
        // A damaged batch may declare any number.
        self.metrics.dead_letter_clicks.add(clicks.min(1_000_000));
        Ok(())
    }
}

/// Opens a connection whose response timeout suffices for scripts over a whole group.
pub async fn connect(settings: &RedisSettings) -> Result<MultiplexedConnection, RedisError> {
    redis_connection::connect(settings, RESPONSE_TIMEOUT).await
}

async fn create_group(redis: &mut MultiplexedConnection, stream: &str) -> Result<(), RedisError> {
    let mut create = redis::cmd("XGROUP");
    create.arg("CREATE").arg(stream).arg(GROUP).arg("0").arg("MKSTREAM");
    match create.query_async::<()>(redis).await {
        Err(error) if error.code() == Some("BUSYGROUP") => Ok(()),
        result => result,
    }
}

async fn acknowledge<'a>(
    redis: &mut MultiplexedConnection,
    stream: &str,
    ids: impl IntoIterator<Item = &'a String>,
) -> Result<(), RedisError> {
    let mut acknowledge = redis::cmd("XACK");
    acknowledge.arg(stream).arg(GROUP);
    for id in ids {
        acknowledge.arg(id);
    }
    acknowledge.query_async(redis).await
}
