//! Watches the stream: how much waits, for how long, and what may go.
//!
//! Entries stay for a while after they are acknowledged, so that whoever watches a link's clicks live
//! can read them too; then they are trimmed.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use linnet_platform::{
    clock::Clock,
    redis_client::{RedisAway, RedisClient},
    settings::RedisSettings,
};
use linnet_telemetry::metrics::Meter;
use redis::streams::{
    StreamInfoConsumersReply, StreamInfoGroupsReply, StreamPendingReply, StreamRangeReply,
};

use crate::{DEAD_LETTERS, GROUP, STREAM};

const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How long entries are kept for live readers, in milliseconds.
const KEEP_MS: u64 = 10_000;
/// A consumer that holds nothing and has not asked for so long is gone, in milliseconds.
const CONSUMER_GONE_MS: usize = 600_000;

/// An entry's id: a time in milliseconds, and a number within it.
type EntryId = (u64, u64);

#[derive(Default)]
struct Seen {
    undelivered: AtomicU64,
    pending: AtomicU64,
    dead: AtomicU64,
    lag_ms: AtomicU64,
    bytes: AtomicU64,
}

/// Watches, and trims. Never ends.
pub async fn watch(link: RedisClient, meter: Meter, clock: Clock) {
    let seen = Arc::new(Seen::default());
    register(&meter, &seen);
    loop {
        if let Err(RedisAway::Failed(error)) = look(&link, &seen, clock.now_ms()).await {
            // Before the first batch there is neither stream nor group.
            tracing::debug!(%error, "the stream of clicks cannot be watched");
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// The client that [`watch`] uses, and its task.
pub fn client(
    settings: &RedisSettings,
) -> redis::RedisResult<(RedisClient, impl Future<Output = ()> + Send + 'static)> {
    RedisClient::new(settings, None)
}

async fn look(link: &RedisClient, seen: &Seen, now_ms: u64) -> Result<(), RedisAway> {
    let dead: u64 = link.query(redis::cmd("XLEN").arg(DEAD_LETTERS)).await?;
    seen.dead.store(dead, Ordering::Relaxed);
    let mut usage = redis::cmd("MEMORY");
    usage.arg("USAGE").arg(STREAM).arg("SAMPLES").arg(5);
    let bytes: Option<u64> = link.query(&usage).await?;
    seen.bytes.store(bytes.unwrap_or(0), Ordering::Relaxed);

    let groups: StreamInfoGroupsReply =
        link.query(redis::cmd("XINFO").arg("GROUPS").arg(STREAM)).await?;
    let Some(group) = groups.groups.into_iter().find(|group| group.name == GROUP) else {
        return Ok(());
    };
    let pending: StreamPendingReply =
        link.query(redis::cmd("XPENDING").arg(STREAM).arg(GROUP)).await?;
    let oldest_pending = match &pending {
        StreamPendingReply::Data(data) => parse_id(&data.start_id),
        _ => None,
    };
    let delivered = parse_id(&group.last_delivered_id).unwrap_or_default();
    let mut after = redis::cmd("XRANGE");
    let from = format!("({}-{}", delivered.0, delivered.1);
    after.arg(STREAM).arg(from).arg("+").arg("COUNT").arg(1);
    let first: StreamRangeReply = link.query(&after).await?;
    let first_undelivered = first.ids.first().and_then(|entry| parse_id(&entry.id));

    seen.undelivered.store(group.lag.unwrap_or(0) as u64, Ordering::Relaxed);
    seen.pending.store(pending.count() as u64, Ordering::Relaxed);
    let oldest = oldest_pending.into_iter().chain(first_undelivered).min();
    let lag = oldest.map_or(0, |(at_ms, _)| now_ms.saturating_sub(at_ms));
    seen.lag_ms.store(lag, Ordering::Relaxed);

    // What is not acknowledged stays, however old.
    let keep = (now_ms.saturating_sub(KEEP_MS), 0);
    let done = oldest_pending.unwrap_or((delivered.0, delivered.1.saturating_add(1)));
    let (at_ms, number) = keep.min(done);
    let mut trim = redis::cmd("XTRIM");
    trim.arg(STREAM).arg("MINID").arg(format!("{at_ms}-{number}"));
    let _: u64 = link.query(&trim).await?;
    forget_consumers(link).await
}

async fn forget_consumers(link: &RedisClient) -> Result<(), RedisAway> {
    let mut info = redis::cmd("XINFO");
    info.arg("CONSUMERS").arg(STREAM).arg(GROUP);
    let consumers: StreamInfoConsumersReply = link.query(&info).await?;
    for consumer in consumers.consumers {
        if consumer.pending == 0 && consumer.idle > CONSUMER_GONE_MS {
            let mut delete = redis::cmd("XGROUP");
            delete.arg("DELCONSUMER").arg(STREAM).arg(GROUP).arg(&consumer.name);
            let _: u64 = link.query(&delete).await?;
        }
    }
    Ok(())
}

fn parse_id(id: &str) -> Option<EntryId> {
    let (at_ms, number) = id.split_once('-')?;
    Some((at_ms.parse().ok()?, number.parse().ok()?))
}

fn register(meter: &Meter, seen: &Arc<Seen>) {
    let gauge = |name: &'static str, unit, description, of: fn(&Seen) -> &AtomicU64| {
        let seen = Arc::clone(seen);
        meter
            .u64_observable_gauge(name)
            .with_unit(unit)
            .with_description(description)
            .with_callback(move |gauge| gauge.observe(of(&seen).load(Ordering::Relaxed), &[]))
            .build();
    };
    gauge(
        "linnet_clicks_stream_undelivered",
        "",
        "Batches in the stream that no worker has taken",
        |seen| &seen.undelivered,
    );
    gauge(
        "linnet_clicks_stream_pending",
        "",
        "Batches that a worker has taken and not acknowledged",
        |seen| &seen.pending,
    );
    gauge("linnet_clicks_stream_dead", "", "Batches among the dead letters", |seen| &seen.dead);
    gauge("linnet_clicks_stream", "By", "Size of the stream in Redis", |seen| &seen.bytes);
    let lag = Arc::clone(seen);
    meter
        .f64_observable_gauge("linnet_clicks_stream_lag")
        .with_unit("s")
        .with_description("Age of the oldest batch that is not written")
        .with_callback(move |gauge| {
            let lag = Duration::from_millis(lag.lag_ms.load(Ordering::Relaxed));
            gauge.observe(lag.as_secs_f64(), &[]);
        })
        .build();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_ordered_by_number_and_not_by_text() {
        assert!(parse_id("9-1").unwrap() < parse_id("10-0").unwrap());
        assert!(parse_id("10-9").unwrap() < parse_id("10-10").unwrap());
        assert_eq!(parse_id("10"), None);
    }
}
