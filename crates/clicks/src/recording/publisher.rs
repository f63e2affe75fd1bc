//! Publishes the clicks of all buffers to the stream, through the spool if necessary.
//!
//! - It has its own thread and runtime: packing and file access must not delay redirects, the invalidation bus or health
//!   checks.
//! - Batches keep their order: while the spool has any, new ones are appended to it.
//! - A batch whose `XADD` got no response is spooled and sent again. Its id makes the repetition harmless.

use std::{io, sync::Arc, thread, time::Duration};

use chrono::DateTime;
use linnet_platform::{
    lifecycle::Lifecycle,
    redis_client::{RedisClient, RedisUnavailable},
    settings::RedisSettings,
};
use tokio::{sync::oneshot, time::Instant};
use tokio_util::sync::CancellationToken;

use super::{
    buffer::{ClickBuffers, ClickObservation, MAX_CLICK_BYTES, ObservationReader},
    country::CountryDatabase,
    metrics::RecordingMetrics,
    spool::{Spool, SpoolError},
    visitor::VisitorKeys,
};
use crate::{
    ClickSettings,
    batch::{Batch, BatchBuilder, BatchIds, PackedClick},
    enrich,
    stream::{FIELD, StreamNames},
};

/// The maximum number of clicks in a batch.
const MAX_BATCH: usize = 1_000;
/// The maximum memory of a batch while it is packed, in bytes: its clicks, and as much for their packed form.
pub const MAX_BATCH_BYTES: u64 = 2 * (MAX_BATCH * MAX_CLICK_BYTES) as u64;
/// Time between two measurements of the stream's size.
const MEASURE_EVERY: Duration = Duration::from_millis(500);
/// Share of its limit below which a full stream accepts batches again. At the limit itself, it would be full again at once.
const ROOM_PERCENT: u64 = 90;
/// The maximum number of batches of the spool that are published between two flushes.
const REPLAY_BATCHES: u32 = 32;
/// Time after the stop in which batches are published. Later ones go to the spool, so that a slow Redis does not delay the
/// exit until the process is killed.
const LAST_PUBLISH: Duration = Duration::from_secs(2);
/// Longest wait for the last flush.
const LAST_FLUSH: Duration = Duration::from_secs(6);

/// Stops the publisher.
pub struct PublisherHandle {
    stop: CancellationToken,
    finished: oneshot::Receiver<()>,
}

impl PublisherHandle {
    /// Flushes all buffers to the stream or the spool, and ends the thread. Call it after all server threads have stopped.
    pub async fn finish(self) {
        self.stop.cancel();
        if tokio::time::timeout(LAST_FLUSH, self.finished).await.is_err() {
            tracing::error!("last clicks not flushed in time");
        }
    }
}

/// The settings and shared state of the publisher.
pub(super) struct PublisherContext {
    pub(super) buffers: ClickBuffers,
    pub(super) settings: ClickSettings,
    pub(super) redis: RedisSettings,
    pub(super) keys: VisitorKeys,
    pub(super) countries: CountryDatabase,
    pub(super) metrics: Arc<RecordingMetrics>,
}

impl PublisherContext {
    /// Starts the thread. If it ends before the stop, the process drains and exits.
    pub(super) fn start(self, lifecycle: &Lifecycle) -> io::Result<PublisherHandle> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let stop = CancellationToken::new();
        let (thread_guard, thread_ended) = oneshot::channel::<()>();
        let (finish, finished) = oneshot::channel();
        let token = stop.clone();
        let owner = lifecycle.clone();
        thread::Builder::new().name("clicks".into()).spawn(move || {
            // Dropped when the thread ends, also by a panic.
            let _thread_guard = thread_guard;
            runtime.block_on(async {
                let (redis, connection) = match RedisClient::new(&self.redis, None) {
                    Ok(client) => client,
                    Err(error) => {
                        tracing::error!(%error, "click publisher has no Redis client");
                        return;
                    }
                };
                owner.spawn_critical("Redis client of clicks", connection);
                Publisher::new(self, redis, token).run().await;
            });
            // The handle may be dropped.
            let _ = finish.send(());
        })?;
        let token = stop.clone();
        lifecycle.spawn_critical("click publisher", async move {
            // Nothing is sent: the channel closes when the thread ends.
            let _ = thread_ended.await;
            if token.is_cancelled() {
                std::future::pending::<()>().await;
            }
        });
        Ok(PublisherHandle { stop, finished })
    }
}

struct Publisher {
    context: PublisherContext,
    stream: &'static str,
    redis: RedisClient,
    /// `None` if it cannot be opened.
    spool: Option<Spool>,
    builder: BatchBuilder,
    spare: Vec<Vec<u8>>,
    ids: BatchIds,
    is_stream_full: bool,
    measured_at: Option<Instant>,
    is_spooling: bool,
    stop: CancellationToken,
    publish_until: Option<Instant>,
}

impl Publisher {
    fn new(context: PublisherContext, redis: RedisClient, stop: CancellationToken) -> Self {
        let folder = &context.settings.spool_dir;
        let spool = Spool::open(folder, context.settings.spool_bytes)
            .inspect_err(|error| {
                tracing::error!(
                    folder = %folder.display(),
                    %error,
                    "spool unusable; clicks are lost while Redis is unreachable"
                );
            })
            .ok();
        Self {
            spool,
            context,
            stream: StreamNames::of(redis.key_layout()).clicks,
            redis,
            builder: BatchBuilder::default(),
            spare: Vec::new(),
            ids: BatchIds::new(),
            is_stream_full: false,
            measured_at: None,
            is_spooling: false,
            stop,
            publish_until: None,
        }
    }

    async fn run(mut self) {
        let flush_every = Duration::from_millis(self.context.settings.flush_ms);
        loop {
            let is_stopping = tokio::select! {
                () = self.stop.cancelled() => true,
                () = self.context.buffers.wait_for_many() => false,
                () = tokio::time::sleep(flush_every) => false,
            };
            if is_stopping {
                self.flush().await;
                if let Some(Err(error)) = self.spool.as_mut().map(Spool::sync) {
                    tracing::error!(%error, "spool not synced to disk");
                }
                return;
            }
            self.flush().await;
            self.replay().await;
        }
    }

    /// Drains the buffers and delivers their clicks.
    async fn flush(&mut self) {
        let began = Instant::now();
        let drained = self.context.buffers.drain(&mut self.spare);
        if drained.is_empty() {
            return;
        }
        for bytes in drained {
            for observation in ObservationReader::new(&bytes) {
                let click = self.pack_click(&observation);
                self.builder.push(click);
                if self.builder.click_count() >= MAX_BATCH {
                    self.deliver().await;
                }
            }
            ClickBuffers::recycle(&mut self.spare, bytes);
        }
        if self.builder.click_count() > 0 {
            self.deliver().await;
        }
        self.context.metrics.flush_duration.record(began.elapsed().as_secs_f64());
    }

    /// Replaces the visitor's address by a hash and a country.
    fn pack_click(&mut self, click: &ClickObservation<'_>) -> PackedClick {
        let at = i64::try_from(click.at_ms).ok().and_then(DateTime::from_timestamp_millis);
        let visitor = at
            .zip(click.client)
            .filter(|_| !click.has_opted_out)
            .map(|(at, client)| self.context.keys.visitor_hash(at, client, click.agent));
        let country = click.client.and_then(|client| self.context.countries.country_of(client));
        let texts = &mut self.builder;
        PackedClick {
            at_ms: click.at_ms,
            url_id: click.url_id,
            is_head: click.is_head,
            is_prefetch: click.is_prefetch,
            is_counted: click.is_counted,
            visitor,
            agent: texts.intern(&enrich::agent_text(click.agent)),
            referrer: texts.intern(&enrich::referrer_host(click.referrer)),
            language: texts.intern(&enrich::language(click.language)),
            country: country.and_then(|country| texts.intern(&country)),
        }
    }

    async fn deliver(&mut self) {
        let id = self.ids.next_id();
        let batch = self.builder.finish(id);
        let clicks = batch.clicks.len() as u64;
        #[expect(clippy::cast_precision_loss, reason = "at most 1,000")]
        self.context.metrics.batch_size.record(clicks as f64);
        self.deliver_packed(batch, clicks).await;
    }

    async fn deliver_packed(&mut self, batch: Batch, clicks: u64) {
        let packed = batch.pack();
        let is_spool_empty = self.spool.as_ref().is_none_or(Spool::is_empty);
        if is_spool_empty && self.has_room().await && self.publish(&packed).await.is_ok() {
            self.context.metrics.published.add(clicks);
            self.log_spooling(false);
            return;
        }
        self.log_spooling(true);
        let metrics = &self.context.metrics;
        let appended = match &mut self.spool {
            None => {
                metrics.dropped_spool_unusable.add(clicks);
                return;
            }
            Some(spool) => spool.append(&packed, u32::try_from(clicks).unwrap_or(u32::MAX)),
        };
        match appended {
            Ok(()) => metrics.spooled.add(clicks),
            Err(SpoolError::Full) => metrics.dropped_spool_full.add(clicks),
            Err(SpoolError::Io(error)) => {
                tracing::error!(%error, clicks, "clicks lost; spool not writable");
                metrics.dropped_spool_unusable.add(clicks);
            }
        }
        self.record_spool_size();
    }

    /// Logs when spooling begins and ends.
    fn log_spooling(&mut self, is_spooling: bool) {
        if self.is_spooling != is_spooling {
            self.is_spooling = is_spooling;
            if is_spooling {
                tracing::warn!("spooling clicks; Redis unreachable or stream full");
            } else {
                tracing::info!("spooling ended; clicks published to the stream");
            }
        }
    }

    /// Publishes batches of the spool, oldest first.
    async fn replay(&mut self) {
        for _ in 0..REPLAY_BATCHES {
            // At shutdown, spooled batches are left to the next process.
            if self.stop.is_cancelled() || !self.has_room().await {
                break;
            }
            let Some(spool) = &mut self.spool else { return };
            let next = match spool.peek() {
                Ok(Some(next)) => next,
                Ok(None) => break,
                Err(error) => {
                    tracing::error!(%error, "spool not readable");
                    break;
                }
            };
            let (batch, clicks) = next;
            if self.publish(&batch).await.is_err() {
                break;
            }
            self.context.metrics.published.add(clicks.into());
            let Some(spool) = &mut self.spool else { return };
            if let Err(error) = spool.advance(&batch) {
                tracing::error!(%error, "spool file not removed");
                break;
            }
        }
        self.record_spool_size();
    }

    async fn publish(&self, packed: &[u8]) -> Result<(), RedisUnavailable> {
        let mut add = redis::cmd("XADD");
        add.arg(self.stream).arg("*").arg(FIELD).arg(packed);
        let _: String = self.redis.query(&add).await?;
        Ok(())
    }

    /// Whether the circuit breaker is closed, the stream is below its limit, and the time for publishing has not ended.
    async fn has_room(&mut self) -> bool {
        if !self.redis.is_up() {
            return false;
        }
        let now = Instant::now();
        if self.stop.is_cancelled() {
            let until = *self.publish_until.get_or_insert(now + LAST_PUBLISH);
            if now >= until {
                return false;
            }
        }
        if self.measured_at.is_some_and(|measured_at| now - measured_at < MEASURE_EVERY) {
            return !self.is_stream_full;
        }
        self.measured_at = Some(now);
        let limit = self.context.settings.stream_bytes;
        let limit = if self.is_stream_full { limit / 100 * ROOM_PERCENT } else { limit };
        let mut usage = redis::cmd("MEMORY");
        usage.arg("USAGE").arg(self.stream).arg("SAMPLES").arg(5);
        match self.redis.query::<Option<u64>>(&usage).await {
            Ok(bytes) => self.is_stream_full = bytes.unwrap_or(0) >= limit,
            Err(RedisUnavailable::CircuitOpen | RedisUnavailable::Unconfirmed) => return false,
            // A server without the command counts as having room.
            Err(RedisUnavailable::CommandFailed(error)) => {
                tracing::debug!(%error, "stream size not measured");
            }
        }
        !self.is_stream_full
    }

    fn record_spool_size(&self) {
        let bytes = self.spool.as_ref().map_or(0, Spool::bytes);
        self.context.metrics.spool_bytes.store(bytes, std::sync::atomic::Ordering::Relaxed);
    }
}
