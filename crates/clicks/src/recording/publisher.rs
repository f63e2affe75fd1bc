//! Empties the buffers into the stream, through the spool when need be.
//!
//! It has a thread and a runtime of its own: packing and writing files must not keep redirects, the
//! change feed or health checks waiting.
//!
//! Order: while anything waits in the spool, what comes new goes behind it. A batch whose fate is
//! unknown (the connection broke after it was sent) is spooled and sent again; ids make that harmless.

use std::{io, sync::Arc, thread, time::Duration};

use chrono::DateTime;
use linnet_platform::{
    lifecycle::Lifecycle,
    redis_client::{RedisAway, RedisClient},
    settings::RedisSettings,
};
use tokio::{sync::oneshot, time::Instant};
use tokio_util::sync::CancellationToken;

use super::{
    buffer::{Clicks, Seen},
    spool::{Spool, SpoolError},
};
use crate::{
    ClickBuffers, ClickMetrics, ClickSettings, Countries, VisitorKeys,
    batch::{Batch, BatchBuilder, BatchIds, PackedClick},
    enrich,
    stream::{FIELD, STREAM},
};

/// Clicks of one batch, at most.
const MAX_BATCH: usize = 1_000;
/// How often the stream's size is asked for.
const SIZE_EVERY: Duration = Duration::from_millis(500);
/// The stream takes from the spool again below this share of its limit.
const ROOM_PERCENT: u64 = 90;
/// Batches taken from the spool between two looks at the buffers.
const REPLAY_AT_ONCE: u32 = 32;
/// When the process stops, the stream is offered clicks for so long; then all go into the spool.
const LAST_PUBLISH: Duration = Duration::from_secs(2);
/// Longest wait for the end of the last flush.
const LAST_FLUSH: Duration = Duration::from_secs(6);

/// Ends the publisher.
pub struct PublisherHandle {
    stop: CancellationToken,
    done: Option<oneshot::Receiver<()>>,
}

impl PublisherHandle {
    /// Flushes what the buffers hold, into the stream or the spool, and ends the thread. To be called
    /// when no worker serves any more.
    pub async fn finish(mut self) {
        self.stop.cancel();
        if let Some(done) = self.done.take()
            && tokio::time::timeout(LAST_FLUSH, done).await.is_err()
        {
            tracing::error!("the last clicks were not flushed in time");
        }
    }
}

/// What the publisher works with.
pub struct Publisher {
    /// Where clicks come from.
    pub buffers: ClickBuffers,
    /// Section `clicks`.
    pub settings: ClickSettings,
    /// Section `redis`.
    pub redis: RedisSettings,
    /// Keys of the visitors' hashes.
    pub keys: VisitorKeys,
    /// Countries of addresses.
    pub countries: Countries,
    /// What is counted.
    pub metrics: Arc<ClickMetrics>,
}

impl Publisher {
    /// Starts the thread. If it dies, so does the process.
    pub fn start(self, lifecycle: &Lifecycle) -> io::Result<PublisherHandle> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let stop = CancellationToken::new();
        let (ended, end) = oneshot::channel::<()>();
        let (finished, done) = oneshot::channel();
        let token = stop.clone();
        let owner = lifecycle.clone();
        thread::Builder::new().name("clicks".into()).spawn(move || {
            // Dropped when the thread ends, however it ends.
            let _ended = ended;
            runtime.block_on(async {
                let (link, task) = match RedisClient::new(&self.redis, None) {
                    Ok(made) => made,
                    Err(error) => {
                        tracing::error!(%error, "no Redis link for clicks");
                        return;
                    }
                };
                owner.own("redis link of clicks", task);
                Running::new(self, link, token).run().await;
            });
            // Nobody may wait any more.
            let _ = finished.send(());
        })?;
        let token = stop.clone();
        lifecycle.own("click publisher", async move {
            // Nothing is ever sent: it ends with the thread.
            let _ = end.await;
            if token.is_cancelled() {
                std::future::pending::<()>().await;
            }
        });
        Ok(PublisherHandle { stop, done: Some(done) })
    }
}

struct Running {
    parts: Publisher,
    link: RedisClient,
    spool: Option<Spool>,
    builder: BatchBuilder,
    spare: Vec<Vec<u8>>,
    ids: BatchIds,
    is_full: bool,
    size_asked: Option<Instant>,
    is_spooling: bool,
    stop: CancellationToken,
    publish_until: Option<Instant>,
}

impl Running {
    fn new(parts: Publisher, link: RedisClient, stop: CancellationToken) -> Self {
        let folder = &parts.settings.spool_dir;
        let spool = Spool::open(folder, parts.settings.spool_bytes)
            .inspect_err(|error| {
                tracing::error!(
                    folder = %folder.display(),
                    %error,
                    "no spool: clicks are lost while Redis is away"
                );
            })
            .ok();
        Self {
            spool,
            parts,
            link,
            builder: BatchBuilder::default(),
            spare: Vec::new(),
            ids: BatchIds::new(),
            is_full: false,
            size_asked: None,
            is_spooling: false,
            stop,
            publish_until: None,
        }
    }

    async fn run(mut self) {
        let every = Duration::from_millis(self.parts.settings.flush_ms);
        loop {
            let stopping = tokio::select! {
                () = self.stop.cancelled() => true,
                () = self.parts.buffers.many() => false,
                () = tokio::time::sleep(every) => false,
            };
            if stopping {
                self.flush().await;
                if let Some(Err(error)) = self.spool.as_mut().map(Spool::sync) {
                    tracing::error!(%error, "the spool could not be synced");
                }
                return;
            }
            self.flush().await;
            self.replay().await;
        }
    }

    /// Takes what the buffers hold and delivers it.
    async fn flush(&mut self) {
        let began = Instant::now();
        let taken = self.parts.buffers.take(&mut self.spare);
        if taken.is_empty() {
            return;
        }
        for bytes in taken {
            for seen in Clicks::new(&bytes) {
                let click = self.pack_click(&seen);
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
        self.parts.metrics.flush_duration.record(began.elapsed().as_secs_f64());
    }

    /// From here on the address is forgotten.
    fn pack_click(&mut self, seen: &Seen<'_>) -> PackedClick {
        let at = i64::try_from(seen.at_ms).ok().and_then(DateTime::from_timestamp_millis);
        let visitor = at
            .zip(seen.client)
            .filter(|_| !seen.opted_out)
            .map(|(at, client)| self.parts.keys.visitor(at, client, seen.agent));
        let country = seen.client.and_then(|client| self.parts.countries.country(client));
        let texts = &mut self.builder;
        PackedClick {
            at_ms: seen.at_ms,
            url_id: seen.url_id,
            is_head: seen.is_head,
            is_prefetch: seen.is_prefetch,
            is_counted: seen.is_counted,
            visitor,
            agent: texts.text(&enrich::agent_text(seen.agent)),
            referrer: texts.text(&enrich::referrer_host(seen.referrer)),
            language: texts.text(&enrich::language(seen.language)),
            country: country.and_then(|country| texts.text(&country)),
        }
    }

    async fn deliver(&mut self) {
        let id = self.ids.next_id();
        let batch = self.builder.finish(id);
        let clicks = batch.clicks.len() as u64;
        #[expect(clippy::cast_precision_loss, reason = "at most a thousand")]
        self.parts.metrics.batch_size.record(clicks as f64);
        self.deliver_packed(batch, clicks).await;
    }

    async fn deliver_packed(&mut self, batch: Batch, clicks: u64) {
        let packed = batch.pack();
        let is_first = self.spool.as_ref().is_none_or(Spool::is_empty);
        if is_first && self.has_room().await && self.publish(&packed).await.is_ok() {
            self.parts.metrics.published.add(clicks);
            self.note_spooling(false);
            return;
        }
        self.note_spooling(true);
        let metrics = &self.parts.metrics;
        let appended = match &mut self.spool {
            None => {
                metrics.dropped_no_spool.add(clicks);
                return;
            }
            Some(spool) => spool.append(&packed, u32::try_from(clicks).unwrap_or(u32::MAX)),
        };
        match appended {
            Ok(()) => metrics.spooled.add(clicks),
            Err(SpoolError::Full) => metrics.dropped_spool.add(clicks),
            Err(SpoolError::Io(error)) => {
                tracing::error!(%error, clicks, "clicks are lost: the spool cannot be written");
                metrics.dropped_no_spool.add(clicks);
            }
        }
        self.note_size();
    }

    /// Says once that clicks take the long way, and once that they no longer do.
    fn note_spooling(&mut self, is_spooling: bool) {
        if self.is_spooling != is_spooling {
            self.is_spooling = is_spooling;
            if is_spooling {
                tracing::warn!("clicks wait in the spool: Redis is away or the stream is full");
            } else {
                tracing::info!("clicks go into the stream again");
            }
        }
    }

    /// Sends what waits in the spool, oldest first, a bounded number at a time.
    async fn replay(&mut self) {
        for _ in 0..REPLAY_AT_ONCE {
            // What is in a file is safe there.
            if self.stop.is_cancelled() || !self.has_room().await {
                break;
            }
            let Some(spool) = &mut self.spool else { return };
            let next = match spool.peek() {
                Ok(Some(next)) => next,
                Ok(None) => break,
                Err(error) => {
                    tracing::error!(%error, "the spool cannot be read");
                    break;
                }
            };
            let (batch, clicks) = next;
            if self.publish(&batch).await.is_err() {
                break;
            }
            self.parts.metrics.published.add(clicks.into());
            let Some(spool) = &mut self.spool else { return };
            if let Err(error) = spool.advance(&batch) {
                tracing::error!(%error, "a file of the spool cannot be removed");
                break;
            }
        }
        self.note_size();
    }

    async fn publish(&self, packed: &[u8]) -> Result<(), RedisAway> {
        let mut add = redis::cmd("XADD");
        add.arg(STREAM).arg("*").arg(FIELD).arg(packed);
        let _: String = self.link.query(&add).await?;
        Ok(())
    }

    /// Whether Redis is there and the stream below its limit, and there is time for it.
    async fn has_room(&mut self) -> bool {
        if !self.link.is_up() {
            return false;
        }
        let now = Instant::now();
        if self.stop.is_cancelled() {
            // A Redis that answers slowly must not keep the process until somebody kills it.
            let until = *self.publish_until.get_or_insert(now + LAST_PUBLISH);
            if now >= until {
                return false;
            }
        }
        if self.size_asked.is_some_and(|asked| now - asked < SIZE_EVERY) {
            return !self.is_full;
        }
        self.size_asked = Some(now);
        let limit = self.parts.settings.stream_bytes;
        // A stream that is full has room again a little below its limit, or it would be full again
        // at once.
        let limit = if self.is_full { limit / 100 * ROOM_PERCENT } else { limit };
        let mut usage = redis::cmd("MEMORY");
        usage.arg("USAGE").arg(STREAM).arg("SAMPLES").arg(5);
        match self.link.query::<Option<u64>>(&usage).await {
            Ok(bytes) => self.is_full = bytes.unwrap_or(0) >= limit,
            Err(RedisAway::Open) => return false,
            // A server without the command is not a full one.
            Err(RedisAway::Failed(error)) => tracing::debug!(%error, "no size of the stream"),
        }
        !self.is_full
    }

    fn note_size(&self) {
        let bytes = self.spool.as_ref().map_or(0, Spool::bytes);
        self.parts.metrics.spool_bytes.store(bytes, std::sync::atomic::Ordering::Relaxed);
    }
}
