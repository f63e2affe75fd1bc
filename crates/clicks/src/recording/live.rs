//! Clicks as they come, for those who watch a link.
//!
//! One task of the process reads the stream beside the workers, without a consumer group, and only
//! while somebody watches. So what is shown is as fresh as the stream, whatever the workers do. Entries
//! stay in the stream for some seconds after they were written, and a watcher that reconnects within
//! that time misses nothing.

use std::{
    collections::HashMap,
    fmt,
    str::FromStr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use chrono::{DateTime, Utc};
use linnet_platform::{
    redis_client::{RedisAway, RedisClient, client, jittered},
    settings::RedisSettings,
};
use redis::{
    AsyncConnectionConfig, RedisError, Value,
    streams::{StreamId, StreamRangeReply, StreamReadReply},
};
use serde::Serialize;
use tokio::sync::{Notify, mpsc};

use linnet_domain::{ClickKind, LinkId};

use crate::{Batch, Enricher, FIELD, PackedClick, STREAM};

/// Those who may watch at a time, in one process.
const MAX_WATCHERS: usize = 1_000;
/// Clicks that wait for a slow watcher; beyond it they are passed over, and the watcher is told.
const WATCHER_QUEUE: usize = 256;
const BLOCK: Duration = Duration::from_millis(500);
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(3);
const RETRY_EVERY: Duration = Duration::from_secs(1);
/// Batches read at a time.
const COUNT: u32 = 64;
/// Reads of [`COUNT`] batches that a reconnecting watcher may cause.
const MAX_CATCH_UP: u32 = 50;

/// A click's place in the stream: an entry's time and number, and a place in its batch. It is the
/// event id that a client gives back as `Last-Event-ID`, to any process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct LiveId {
    at_ms: u64,
    number: u64,
    place: u32,
}

/// The text is no event id of ours.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("not an id of this stream of events")]
pub struct ParseLiveIdError;

impl FromStr for LiveId {
    type Err = ParseLiveIdError;

    fn from_str(text: &str) -> Result<Self, ParseLiveIdError> {
        let parts = || {
            let (entry, place) = text.split_once('.')?;
            let (at_ms, number) = entry.split_once('-')?;
            let (at_ms, number) = (at_ms.parse().ok()?, number.parse().ok()?);
            Some(Self { at_ms, number, place: place.parse().ok()? })
        };
        parts().ok_or(ParseLiveIdError)
    }
}

impl fmt::Display for LiveId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}.{}", self.at_ms, self.number, self.place)
    }
}

/// A click as a watcher sees it. What is not known is left out.
#[derive(Debug, Clone, Serialize)]
pub struct LiveClick {
    /// Its place.
    #[serde(skip)]
    pub id: LiveId,
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

struct Watcher {
    url_id: LinkId,
    clicks: mpsc::Sender<LiveClick>,
    missed: Arc<AtomicU64>,
}

struct Inner {
    watchers: Mutex<HashMap<u64, Watcher>>,
    next: AtomicU64,
    came: Notify,
    enricher: Arc<Enricher>,
}

/// The process's watchers; clones share them.
#[derive(Clone)]
pub struct LiveClicks(Arc<Inner>);

/// One watcher's end; dropped, it watches no more.
pub struct Watch {
    live: LiveClicks,
    number: u64,
    /// Clicks as they come.
    pub clicks: mpsc::Receiver<LiveClick>,
    missed: Arc<AtomicU64>,
}

impl Watch {
    /// Clicks that were passed over because this watcher was too slow, since the last call.
    pub fn take_missed(&self) -> u64 {
        self.missed.swap(0, Ordering::Relaxed)
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.live.lock().remove(&self.number);
    }
}

impl LiveClicks {
    /// Nobody watches yet.
    pub fn new(enricher: Arc<Enricher>) -> Self {
        Self(Arc::new(Inner {
            watchers: Mutex::default(),
            next: AtomicU64::new(0),
            came: Notify::new(),
            enricher,
        }))
    }

    /// Watches a link; `None` when too many watch already.
    pub fn watch(&self, url_id: LinkId) -> Option<Watch> {
        let (sender, clicks) = mpsc::channel(WATCHER_QUEUE);
        let missed = Arc::new(AtomicU64::new(0));
        let number = self.0.next.fetch_add(1, Ordering::Relaxed);
        let mut watchers = self.lock();
        if watchers.len() >= MAX_WATCHERS {
            return None;
        }
        let watcher = Watcher { url_id, clicks: sender, missed: Arc::clone(&missed) };
        watchers.insert(number, watcher);
        drop(watchers);
        self.0.came.notify_one();
        Some(Watch { live: self.clone(), number, clicks, missed })
    }

    /// The clicks on a link after `last`, as far as the stream still has them; and whether it has all
    /// of them.
    pub async fn since(
        &self,
        link: &RedisClient,
        url_id: LinkId,
        last: LiveId,
    ) -> Result<(Vec<LiveClick>, bool), RedisAway> {
        let mut from = format!("{}-{}", last.at_ms, last.number);
        let mut clicks = Vec::new();
        let mut is_whole = false;
        for _ in 0..MAX_CATCH_UP {
            let mut range = redis::cmd("XRANGE");
            range.arg(STREAM).arg(&from).arg("+").arg("COUNT").arg(COUNT);
            let entries: StreamRangeReply = link.query(&range).await?;
            let Some(newest) = entries.ids.last() else { break };
            from = format!("({}", newest.id);
            for (id, batch) in entries.ids.iter().filter_map(read_entry) {
                is_whole |= (id.at_ms, id.number) == (last.at_ms, last.number);
                clicks.extend(self.shown(id, &batch, |click| click.url_id == url_id));
            }
        }
        clicks.retain(|click| click.id > last);
        Ok((clicks, is_whole))
    }

    /// Reads the stream while somebody watches. Never ends.
    pub async fn follow(self, settings: RedisSettings) {
        loop {
            if self.lock().is_empty() {
                self.0.came.notified().await;
                continue;
            }
            if let Err(error) = self.read(&settings).await {
                tracing::debug!(%error, "live clicks wait for Redis");
                tokio::time::sleep(jittered(RETRY_EVERY)).await;
            }
        }
    }

    async fn read(&self, settings: &RedisSettings) -> Result<(), RedisError> {
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(settings.connect_timeout()))
            .set_response_timeout(Some(RESPONSE_TIMEOUT));
        let client = client(settings)?;
        let mut redis = client.get_multiplexed_async_connection_with_config(&config).await?;
        // From now on. Later reads name the entry that was read last, so none is passed over.
        let mut newest = redis::cmd("XREVRANGE");
        newest.arg(STREAM).arg("+").arg("-").arg("COUNT").arg(1);
        let newest: StreamRangeReply = newest.query_async(&mut redis).await?;
        let mut last =
            newest.ids.first().map_or_else(|| "0-0".to_owned(), |entry| entry.id.clone());
        while !self.lock().is_empty() {
            let block = u64::try_from(BLOCK.as_millis()).unwrap_or(u64::MAX);
            let mut read = redis::cmd("XREAD");
            read.arg("COUNT").arg(COUNT).arg("BLOCK").arg(block);
            read.arg("STREAMS").arg(STREAM).arg(&last);
            let reply: Option<StreamReadReply> = read.query_async(&mut redis).await?;
            for entry in reply.unwrap_or_default().keys.into_iter().flat_map(|key| key.ids) {
                if let Some((id, batch)) = read_entry(&entry) {
                    self.show(id, &batch);
                }
                last = entry.id;
            }
        }
        Ok(())
    }

    fn show(&self, id: LiveId, batch: &Batch) {
        let watchers = self.lock();
        for watcher in watchers.values() {
            for click in self.shown(id, batch, |click| click.url_id == watcher.url_id) {
                if watcher.clicks.try_send(click).is_err() {
                    watcher.missed.fetch_add(1, Ordering::Relaxed);
                }
            }
        }
    }

    /// The clicks of a batch that somebody wants to see.
    fn shown<'a>(
        &'a self,
        id: LiveId,
        batch: &'a Batch,
        wanted: impl Fn(&PackedClick) -> bool + 'a,
    ) -> impl Iterator<Item = LiveClick> + 'a {
        batch.clicks.iter().zip(0_u32..).filter(move |(click, _)| wanted(click)).filter_map(
            move |(click, place)| {
                let at = i64::try_from(click.at_ms).ok()?;
                let text = |place: Option<u32>| {
                    let place = usize::try_from(place?).ok()?;
                    batch.texts.get(place).map(String::as_str)
                };
                let agent = text(click.agent).map(|agent| self.0.enricher.agent(agent));
                let is_bot = agent.as_ref().is_none_or(|agent| agent.is_bot);
                let kind = ClickKind::of(click.is_head, is_bot, click.is_prefetch);
                let mut parts =
                    agent.map(|agent| agent.value.parts).unwrap_or_default().into_iter();
                let owned = |place| text(place).unwrap_or_default().to_owned();
                Some(LiveClick {
                    id: LiveId { place, ..id },
                    timestamp: DateTime::from_timestamp_millis(at)?,
                    kind: kind.name(),
                    browser: parts.next().unwrap_or_default(),
                    os: parts.next().unwrap_or_default(),
                    device: parts.next().unwrap_or_default(),
                    country: owned(click.country),
                    language: owned(click.language),
                    referrer: owned(click.referrer),
                })
            },
        )
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<u64, Watcher>> {
        // The map is whole whatever panicked while it was held.
        self.0.watchers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An entry's id, and its batch; nothing for one that cannot be read, which the workers bury.
fn read_entry(entry: &StreamId) -> Option<(LiveId, Batch)> {
    let id = format!("{}.0", entry.id).parse().ok()?;
    match entry.map.get(FIELD) {
        Some(Value::BulkString(packed)) => Some((id, Batch::unpack(packed).ok()?)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_read_as_they_are_written_and_ordered_by_place() {
        let id: LiveId = "1763700000000-3.17".parse().unwrap();
        assert_eq!(id.to_string(), "1763700000000-3.17");
        assert!(id < "1763700000000-10.0".parse().unwrap());
        for odd in ["", "1", "1-1", "1-1.", "a-1.1", "1-1.1.1", "-1-1.1", "1-1.-1"] {
            assert_eq!(odd.parse::<LiveId>(), Err(ParseLiveIdError), "{odd}");
        }
    }
}
