//! Measures the stream and trims it.
//!
//! Acknowledged entries stay for [`KEEP_MS`], for live streams; entries that are not acknowledged are never trimmed.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use linnet_platform::{
    clock::Clock,
    redis_client::{RedisClient, RedisUnavailable},
};
use linnet_telemetry::metrics::Meter;
use redis::streams::{
    StreamInfoConsumersReply, StreamInfoGroupsReply, StreamPendingReply, StreamRangeReply,
};

use crate::{GROUP, StreamNames};

const MEASURE_EVERY: Duration = Duration::from_secs(1);
/// Time that acknowledged entries are kept, in milliseconds.
const KEEP_MS: u64 = 10_000;
/// Idle time after which a consumer without pending entries is deleted, in milliseconds.
const CONSUMER_IDLE_MS: usize = 600_000;

/// An entry's id: time in milliseconds, and a sequence number within that millisecond.
type EntryId = (u64, u64);

#[derive(Default)]
struct StreamStats {
    undelivered: AtomicU64,
    pending: AtomicU64,
    dead_letters: AtomicU64,
    lag_ms: AtomicU64,
    bytes: AtomicU64,
}

/// Keeps the stream's metrics current and the stream short.
pub struct StreamMonitor {
    redis: RedisClient,
    names: StreamNames,
    stats: Arc<StreamStats>,
    clock: Clock,
}

impl StreamMonitor {
    /// Registers the metrics.
    pub fn new(redis: RedisClient, meter: &Meter, clock: Clock) -> Self {
        let stats = Arc::new(StreamStats::default());
        register(meter, &stats);
        Self { names: StreamNames::of(redis.key_layout()), redis, stats, clock }
    }

    /// Measures and trims the stream every second. Never returns.
    pub async fn run(self) {
        loop {
            if let Err(RedisUnavailable::CommandFailed(error)) = self.measure_and_trim().await {
                // Before the first batch, there is neither stream nor group.
                tracing::debug!(%error, "click stream not measured");
            }
            tokio::time::sleep(MEASURE_EVERY).await;
        }
    }

    async fn measure_and_trim(&self) -> Result<(), RedisUnavailable> {
        let stats = &self.stats;
        let dead_letters: u64 =
            self.redis.query(redis::cmd("XLEN").arg(self.names.dead_letters)).await?;
        stats.dead_letters.store(dead_letters, Ordering::Relaxed);
        let mut usage = redis::cmd("MEMORY");
        usage.arg("USAGE").arg(self.names.clicks).arg("SAMPLES").arg(5);
        let bytes: Option<u64> = self.redis.query(&usage).await?;
        stats.bytes.store(bytes.unwrap_or(0), Ordering::Relaxed);

        let groups: StreamInfoGroupsReply =
            self.redis.query(redis::cmd("XINFO").arg("GROUPS").arg(self.names.clicks)).await?;
        let Some(group) = groups.groups.into_iter().find(|group| group.name == GROUP) else {
            return Ok(());
        };
        let pending: StreamPendingReply =
            self.redis.query(redis::cmd("XPENDING").arg(self.names.clicks).arg(GROUP)).await?;
        let oldest_pending = match &pending {
            StreamPendingReply::Data(data) => parse_id(&data.start_id),
            _ => None,
        };
        let last_delivered = parse_id(&group.last_delivered_id).unwrap_or_default();
        let first_undelivered = self.first_after(last_delivered).await?;

        stats.undelivered.store(group.lag.unwrap_or(0) as u64, Ordering::Relaxed);
        stats.pending.store(pending.count() as u64, Ordering::Relaxed);
        let now_ms = self.clock.now_ms();
        let oldest = oldest_pending.into_iter().chain(first_undelivered).min();
        let lag_ms = oldest.map_or(0, |(at_ms, _)| now_ms.saturating_sub(at_ms));
        stats.lag_ms.store(lag_ms, Ordering::Relaxed);

        let first_kept = (now_ms.saturating_sub(KEEP_MS), 0);
        let after_delivered = (last_delivered.0, last_delivered.1.saturating_add(1));
        self.trim_before(first_kept.min(oldest_pending.unwrap_or(after_delivered))).await?;
        self.delete_idle_consumers().await
    }

    async fn first_after(
        &self,
        (at_ms, number): EntryId,
    ) -> Result<Option<EntryId>, RedisUnavailable> {
        let mut range = redis::cmd("XRANGE");
        range.arg(self.names.clicks).arg(format!("({at_ms}-{number}")).arg("+").arg("COUNT").arg(1);
        let entries: StreamRangeReply = self.redis.query(&range).await?;
        Ok(entries.ids.first().and_then(|entry| parse_id(&entry.id)))
    }

    async fn trim_before(&self, (at_ms, number): EntryId) -> Result<(), RedisUnavailable> {
        let mut trim = redis::cmd("XTRIM");
        trim.arg(self.names.clicks).arg("MINID").arg(format!("{at_ms}-{number}"));
        self.redis.query::<u64>(&trim).await.map(drop)
    }

    async fn delete_idle_consumers(&self) -> Result<(), RedisUnavailable> {
        let mut info = redis::cmd("XINFO");
        info.arg("CONSUMERS").arg(self.names.clicks).arg(GROUP);
        let consumers: StreamInfoConsumersReply = self.redis.query(&info).await?;
        for consumer in consumers.consumers {
            if consumer.pending == 0 && consumer.idle > CONSUMER_IDLE_MS {
                let mut delete = redis::cmd("XGROUP");
                delete.arg("DELCONSUMER").arg(self.names.clicks).arg(GROUP).arg(&consumer.name);
                let _: u64 = self.redis.query(&delete).await?;
            }
        }
        Ok(())
    }
}

fn parse_id(id: &str) -> Option<EntryId> {
    let (at_ms, number) = id.split_once('-')?;
    Some((at_ms.parse().ok()?, number.parse().ok()?))
}

fn register(meter: &Meter, stats: &Arc<StreamStats>) {
    let gauge =
        |name: &'static str, unit, description, value_of: fn(&StreamStats) -> &AtomicU64| {
            let stats = Arc::clone(stats);
            meter
                .u64_observable_gauge(name)
                .with_unit(unit)
                .with_description(description)
                .with_callback(move |gauge| {
                    gauge.observe(value_of(&stats).load(Ordering::Relaxed), &[]);
                })
                .build();
        };
    gauge(
        "linnet_clicks_stream_undelivered",
        "",
        "Batches in the stream that no worker has read.",
        |stats| &stats.undelivered,
    );
    gauge(
        "linnet_clicks_stream_pending",
        "",
        "Batches that a worker has read and not acknowledged.",
        |stats| &stats.pending,
    );
    gauge("linnet_clicks_stream_dead", "", "Batches in the stream of dead letters.", |stats| {
        &stats.dead_letters
    });
    gauge("linnet_clicks_stream", "By", "Size of the stream in Redis, in bytes.", |stats| {
        &stats.bytes
    });
    let stats = Arc::clone(stats);
    meter
        .f64_observable_gauge("linnet_clicks_stream_lag")
        .with_unit("s")
        .with_description("Age of the oldest batch that is not written, in seconds.")
        .with_callback(move |gauge| {
            let lag = Duration::from_millis(stats.lag_ms.load(Ordering::Relaxed));
            gauge.observe(lag.as_secs_f64(), &[]);
        })
        .build();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entry_ids_are_ordered_numerically() {
        assert!(parse_id("9-1").unwrap() < parse_id("10-0").unwrap());
        assert!(parse_id("10-9").unwrap() < parse_id("10-10").unwrap());
        assert_eq!(parse_id("10"), None);
    }
}
