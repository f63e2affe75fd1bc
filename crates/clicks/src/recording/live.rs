//! Live streams of a link's clicks.
//!
//! - One task of the process reads the stream, and only while a subscription exists. It reads without a consumer group, so
//!   slow or stopped workers do not delay live clicks.
//! - Entries stay in the stream for some seconds after they are written, so a client that reconnects within that time
//!   misses nothing.

mod id;

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use chrono::{DateTime, Utc};
use linnet_platform::{
    backoff::jittered,
    lock::MutexExt as _,
    redis_client::{RedisClient, RedisUnavailable},
    redis_connection::connect_confirmed,
    settings::RedisSettings,
    waiting_share::WaitingShare,
};
use redis::{
    RedisError, Value,
    streams::{StreamId, StreamRangeReply, StreamReadReply},
};
use serde::Serialize;
use tokio::sync::{Notify, Semaphore, mpsc};

use linnet_domain::{ClickKind, LinkId, UserId};

use crate::{Batch, FIELD, PackedClick, StreamNames, UserAgentParser};

pub use id::{LiveClickId, ParseLiveClickIdError};

/// The maximum number of subscriptions of one process.
const MAX_SUBSCRIPTIONS: usize = 1_000;
/// Clicks that wait for a slow subscriber. Further clicks are skipped and counted.
const QUEUED_CLICKS: usize = 128;
/// Longest wait of a read for new entries.
const BLOCK: Duration = Duration::from_millis(500);
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(3);
const RETRY_EVERY: Duration = Duration::from_secs(1);
/// Batches of one read.
const READ_BATCHES: u32 = 8;
/// Bytes of batches that are read and unpacked at once: 100 to 300 bytes for each of a batch's 1,000 clicks.
pub const LIVE_READ_BYTES: u64 = READ_BATCHES as u64 * 300 * 1_000;
/// The maximum memory of one stream, in bytes: its queue of clicks and its task. Streams of one link share the clicks.
pub const LIVE_STREAM_BYTES: u64 = QUEUED_CLICKS as u64 * 480 + 4 * 1024;
/// The maximum number of reads of [`READ_BATCHES`] for one reconnecting client.
const MAX_REPLAY_READS: u32 = 400;
/// A replay begins at most this long ago. The stream is longer while no worker deletes from it.
const REPLAY_AGE: Duration = Duration::from_mins(1);
/// One replay of an owner reads or waits for its turn, and so many others wait for it.
const WAITING_REPLAYS: usize = 2;
/// Longest wait of a replay for the others of its owner.
const REPLAY_WAIT: Duration = Duration::from_secs(5);

/// A click as clients see it. All watchers of its link share it.
#[derive(Debug)]
pub struct LiveClick {
    /// Its event id.
    pub id: LiveClickId,
    data: String,
}

impl LiveClick {
    /// The click as JSON.
    pub fn data(&self) -> &str {
        &self.data
    }
}

/// The JSON of a click. Unknown values are omitted.
#[derive(Serialize)]
struct LiveClickData {
    timestamp: DateTime<Utc>,
    kind: &'static str,
    #[serde(skip_serializing_if = "String::is_empty")]
    browser: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    os: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    device: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    country: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    language: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    referrer: String,
}

struct Subscriber {
    clicks: mpsc::Sender<Arc<LiveClick>>,
    skipped: Arc<AtomicU64>,
}

#[derive(Default)]
struct Subscribers {
    count: usize,
    by_link: HashMap<LinkId, HashMap<u64, Subscriber>>,
}

struct Shared {
    subscribers: Mutex<Subscribers>,
    next_number: AtomicU64,
    subscribed: Notify,
    /// One permit, for the replay that reads the stream.
    replays: Semaphore,
    /// An owner's replays wait for each other before one of them waits for the permit.
    replay_shares: WaitingShare<Option<UserId>>,
    user_agents: Arc<UserAgentParser>,
}

/// The subscriptions of the process; clones share them.
#[derive(Clone)]
pub struct LiveClicks(Arc<Shared>);

/// A subscription to a link's clicks. It ends when it is dropped.
pub struct LiveClickSubscription {
    live: LiveClicks,
    url_id: LinkId,
    number: u64,
    /// The clicks, in the order of the stream.
    pub clicks: mpsc::Receiver<Arc<LiveClick>>,
    skipped: Arc<AtomicU64>,
}

impl LiveClickSubscription {
    /// The number of clicks since the last call that were skipped because the subscriber was too slow.
    pub fn take_skipped(&self) -> u64 {
        self.skipped.swap(0, Ordering::Relaxed)
    }
}

impl Drop for LiveClickSubscription {
    fn drop(&mut self) {
        let mut subscribers = self.live.subscribers();
        if let Some(of_link) = subscribers.by_link.get_mut(&self.url_id) {
            of_link.remove(&self.number);
            if of_link.is_empty() {
                subscribers.by_link.remove(&self.url_id);
            }
            subscribers.count -= 1;
        }
    }
}

impl LiveClicks {
    pub(super) fn new(user_agents: Arc<UserAgentParser>) -> Self {
        Self(Arc::new(Shared {
            subscribers: Mutex::default(),
            next_number: AtomicU64::new(0),
            subscribed: Notify::new(),
            replays: Semaphore::new(1),
            replay_shares: WaitingShare::new(1, WAITING_REPLAYS, REPLAY_WAIT),
            user_agents,
        }))
    }

    /// Subscribes to a link's clicks; `None` if the process has too many subscriptions.
    pub fn subscribe(&self, url_id: LinkId) -> Option<LiveClickSubscription> {
        let (sender, clicks) = mpsc::channel(QUEUED_CLICKS);
        let skipped = Arc::new(AtomicU64::new(0));
        let number = self.0.next_number.fetch_add(1, Ordering::Relaxed);
        let mut subscribers = self.subscribers();
        if subscribers.count >= MAX_SUBSCRIPTIONS {
            return None;
        }
        let subscriber = Subscriber { clicks: sender, skipped: Arc::clone(&skipped) };
        subscribers.by_link.entry(url_id).or_default().insert(number, subscriber);
        subscribers.count += 1;
        drop(subscribers);
        self.0.subscribed.notify_one();
        Some(LiveClickSubscription { live: self.clone(), url_id, number, clicks, skipped })
    }

    /// Returns a link's clicks after `last` that are still in the stream, at most as many as a stream's queue holds, and
    /// whether they are complete: false if there were more, if the entry of `last` is too old or has been trimmed, or if
    /// too many of the owner's calls are in progress.
    pub async fn since(
        &self,
        redis: &RedisClient,
        owner: Option<UserId>,
        url_id: LinkId,
        last: LiveClickId,
    ) -> Result<(Vec<LiveClick>, bool), RedisUnavailable> {
        // A replay keeps the batches that it reads in memory, so only one replay reads at a time. The semaphore is
        // never closed.
        let Ok(_share) = self.0.replay_shares.take(owner).await else {
            return Ok((Vec::new(), false));
        };
        let _turn = self.0.replays.acquire().await;
        let stream = StreamNames::of(redis.key_layout()).clicks;
        let mut from = last.entry_id_or_after(Utc::now() - REPLAY_AGE);
        let mut clicks = Vec::new();
        let (mut is_complete, mut is_truncated) = (false, false);
        for _ in 0..MAX_REPLAY_READS {
            let mut range = redis::cmd("XRANGE");
            range.arg(stream).arg(&from).arg("+").arg("COUNT").arg(READ_BATCHES);
            let entries: StreamRangeReply = redis.query(&range).await?;
            let Some(newest) = entries.ids.last() else { break };
            from = format!("({}", newest.id);
            for (id, batch) in entries.ids.iter().filter_map(read_entry) {
                is_complete |= id.is_same_entry(last);
                let of_link = batch.clicks.iter().zip(0_u32..);
                let of_link = of_link.filter(|(click, _)| click.url_id == url_id);
                clicks.extend(of_link.filter_map(|(click, position)| {
                    self.live_click(id.at(position), &batch, click)
                }));
                clicks.retain(|click| click.id > last);
                let surplus = clicks.len().saturating_sub(QUEUED_CLICKS);
                clicks.drain(..surplus);
                is_truncated |= surplus > 0;
            }
        }
        Ok((clicks, is_complete && !is_truncated))
    }

    /// Reads the stream while a subscription exists. Never returns.
    pub(super) async fn run(self, settings: RedisSettings) {
        loop {
            if self.subscribers().count == 0 {
                self.0.subscribed.notified().await;
                continue;
            }
            if let Err(error) = self.read_stream(&settings).await {
                tracing::debug!(%error, "stream of live clicks not read; retrying");
                tokio::time::sleep(jittered(RETRY_EVERY)).await;
            }
        }
    }

    async fn read_stream(&self, settings: &RedisSettings) -> Result<(), RedisError> {
        let stream = StreamNames::of(settings.key_layout()).clicks;
        let (mut redis, master) = connect_confirmed(settings, RESPONSE_TIMEOUT).await?;
        // Each read passes the last id that it has seen. `$` would skip entries that arrive between two reads.
        let mut newest = redis::cmd("XREVRANGE");
        newest.arg(stream).arg("+").arg("-").arg("COUNT").arg(1);
        let newest: StreamRangeReply = newest.query_async(&mut redis).await?;
        let mut last =
            newest.ids.first().map_or_else(|| "0-0".to_owned(), |entry| entry.id.clone());
        while self.subscribers().count > 0 {
            master.check()?;
            let block = u64::try_from(BLOCK.as_millis()).unwrap_or(u64::MAX);
            let mut read = redis::cmd("XREAD");
            read.arg("COUNT").arg(READ_BATCHES).arg("BLOCK").arg(block);
            read.arg("STREAMS").arg(stream).arg(&last);
            let reply: Option<StreamReadReply> = read.query_async(&mut redis).await?;
            for entry in reply.unwrap_or_default().keys.into_iter().flat_map(|key| key.ids) {
                if let Some((id, batch)) = read_entry(&entry) {
                    self.deliver(id, &batch).await;
                }
                last = entry.id;
            }
        }
        Ok(())
    }

    /// Parses each watched click once, whatever the number of its watchers. Other tasks run between two clicks.
    async fn deliver(&self, id: LiveClickId, batch: &Batch) {
        for (click, position) in batch.clicks.iter().zip(0_u32..) {
            if !self.subscribers().by_link.contains_key(&click.url_id) {
                continue;
            }
            let Some(live) = self.live_click(id.at(position), batch, click) else { continue };
            let live = Arc::new(live);
            if let Some(of_link) = self.subscribers().by_link.get(&click.url_id) {
                for subscriber in of_link.values() {
                    if subscriber.clicks.try_send(Arc::clone(&live)).is_err() {
                        subscriber.skipped.fetch_add(1, Ordering::Relaxed);
                    }
                }
            }
            tokio::task::yield_now().await;
        }
    }

    fn live_click(&self, id: LiveClickId, batch: &Batch, click: &PackedClick) -> Option<LiveClick> {
        let at = i64::try_from(click.at_ms).ok()?;
        let text = |index: Option<u32>| {
            let index = usize::try_from(index?).ok()?;
            batch.texts.get(index).map(String::as_str)
        };
        let agent = text(click.agent).map(|agent| self.0.user_agents.parse(agent));
        let is_bot = agent.as_ref().is_none_or(|agent| agent.is_bot);
        let kind = ClickKind::of(click.is_head, is_bot, click.is_prefetch);
        let mut parts = agent.map(|agent| agent.value.parts).unwrap_or_default().into_iter();
        let owned = |index| text(index).unwrap_or_default().to_owned();
        let data = LiveClickData {
            timestamp: DateTime::from_timestamp_millis(at)?,
            kind: kind.name(),
            browser: parts.next().unwrap_or_default(),
            os: parts.next().unwrap_or_default(),
            device: parts.next().unwrap_or_default(),
            country: owned(click.country),
            language: owned(click.language),
            referrer: owned(click.referrer),
        };
        Some(LiveClick { id, data: serde_json::to_string(&data).ok()? })
    }

    fn subscribers(&self) -> MutexGuard<'_, Subscribers> {
        self.0.subscribers.lock_ignoring_poison()
    }
}

/// An entry's id and batch; `None` for an unreadable batch, which a worker moves to the dead letters.
fn read_entry(entry: &StreamId) -> Option<(LiveClickId, Batch)> {
    let id = LiveClickId::of_entry(&entry.id)?;
    match entry.map.get(FIELD) {
        Some(Value::BulkString(packed)) => Some((id, Batch::unpack(packed).ok()?)),
        _ => None,
    }
}
