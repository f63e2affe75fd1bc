//! Helpers for the tests of the click pipeline: visits, waits, metrics and batches.

use std::time::Duration;

use linnet_clicks::{Batch, FIELD, PackedClick, STREAM};
use linnet_domain::{LinkId, Subject};
use linnet_store::shard_of;
use linnet_system_tests::{
    Builder, Client, Load, Metrics, OutcomeCounts, Process, Stack, expected::metric, within,
};
use redis::{aio::MultiplexedConnection, streams::StreamRangeReply};
use serde_json::json;
use sqlx::PgConnection;
use tokio::sync::Mutex;

/// Longest wait until accepted clicks are recorded.
pub(super) const DRAIN_TIMEOUT: Duration = Duration::from_secs(90);

/// Two shorteners and a worker that takes over batches after a second.
pub(super) fn builder() -> Builder {
    Stack::builder().shorteners(2).workers(1).env("LINNET__WORKER__CLAIM_AFTER_MS", 1_000)
}

/// Creates a link and returns its id and short code.
pub(super) async fn create_link(client: &Client, body: &serde_json::Value) -> (i64, String) {
    let link = client.shorten(body).await;
    (link["id"].as_i64().unwrap(), link["short_code"].as_str().unwrap().to_owned())
}

/// Creates links and returns their short codes.
pub(super) async fn create_links(stack: &Stack, count: usize) -> Vec<String> {
    let mut codes = Vec::new();
    for n in 0..count {
        let target = format!("https://example.com/{n}");
        codes.push(create_link(&stack.client(), &json!({"original_url": target})).await.1);
    }
    codes
}

/// Visits these codes in turn through nginx, in the background.
pub(super) fn start_visits(stack: &Stack, codes: &[String]) -> Load {
    let (client, codes) = (stack.client().anonymous(), codes.to_vec());
    Load::start(8, move |n| {
        let request = client.get(&format!("/{}", codes[n % codes.len()]));
        async move {
            match request.try_send().await {
                Ok(response) => response.status.to_string(),
                Err(error) => error,
            }
        }
    })
}

/// Asserts that every request was redirected and returns their number.
pub(super) fn redirected(counts: &OutcomeCounts) -> i64 {
    assert_eq!(counts.keys().collect::<Vec<_>>(), ["302"], "{counts:?}");
    i64::try_from(counts["302"]).unwrap()
}

/// The number of clicks in PostgreSQL.
pub(super) async fn recorded_clicks(database: &mut PgConnection) -> i64 {
    sqlx::query_scalar("SELECT count(*) FROM all_clicks").fetch_one(database).await.unwrap()
}

/// Waits until at least `wanted` clicks are recorded.
pub(super) async fn wait_for_clicks(stack: &Stack, wanted: i64) {
    let database = Mutex::new(stack.database().await);
    within(DRAIN_TIMEOUT, &format!("{wanted} clicks in the database"), || async {
        recorded_clicks(&mut *database.lock().await).await >= wanted
    })
    .await;
}

/// Waits until the pipeline is empty and asserts that exactly `wanted` clicks are recorded. Visits must
/// have ended.
pub(super) async fn assert_clicks_exactly(stack: &Stack, wanted: i64) {
    wait_for_clicks(stack, wanted).await;
    wait_until_drained(stack).await;
    let mut database = stack.database().await;
    assert_eq!(recorded_clicks(&mut database).await, wanted);
    assert_roll_ups_match(&mut database).await;
}

/// Asserts that every roll-up totals the raw clicks. The tests' links have an owner.
pub(super) async fn assert_roll_ups_match(database: &mut PgConnection) {
    let wanted = recorded_clicks(database).await;
    let totals: Vec<(String, i64)> = sqlx::query_as(
        "SELECT 'hours of all', coalesce(sum(clicks + bots + prefetches + heads), 0)::bigint
           FROM click_hours WHERE subject = 0
         UNION ALL SELECT 'hours of links', coalesce(sum(clicks + bots + prefetches + heads), 0)::bigint
           FROM click_totals_by_hour WHERE subject > 0
         UNION ALL SELECT 'days of all', coalesce(sum(clicks + bots + prefetches + heads), 0)::bigint
           FROM click_days WHERE subject = 0
         UNION ALL SELECT 'days of links', coalesce(sum(clicks + bots + prefetches + heads), 0)::bigint
           FROM click_totals_by_day WHERE subject > 0
         UNION ALL SELECT 'days of users', coalesce(sum(clicks + bots + prefetches + heads), 0)::bigint
           FROM click_days WHERE subject < 0",
    )
    .fetch_all(&mut *database)
    .await
    .unwrap();
    for (what, total) in totals {
        assert_eq!(total, wanted, "{what}: differs from the raw clicks");
    }
    let people: (i64, i64, i64) = sqlx::query_as(
        "SELECT (SELECT count(*) FROM all_clicks WHERE kind = 0),
                (SELECT coalesce(sum(clicks), 0)::bigint FROM urls),
                (SELECT coalesce(sum(clicks), 0)::bigint FROM click_days_by_value
                   JOIN click_values ON id = value_id WHERE subject = 0 AND kind = 1)",
    )
    .fetch_one(database)
    .await
    .unwrap();
    assert_eq!(
        (people.0, people.0),
        (people.1, people.2),
        "people: raw clicks, clicks of links, clicks by agent"
    );
}

/// Waits until no buffer, spool or stream contains a click.
pub(super) async fn wait_until_drained(stack: &Stack) {
    let redis = Mutex::new(connect_redis(stack).await);
    within(DRAIN_TIMEOUT, "empty buffers, spools and stream", || async {
        let mut pending = 0.0;
        for number in 0..stack.shorteners.len() {
            pending += unpublished(&stack.shortener_metrics(number).await);
        }
        pending == 0.0 && unacknowledged_entries(&mut *redis.lock().await).await == 0
    })
    .await;
}

/// Clicks that a shortener has accepted but not published, plus the bytes of its spool; 0 if it has
/// published everything.
pub(super) fn unpublished(metrics: &Metrics) -> f64 {
    let clicks = metrics.sum(metric::CLICKS_ACCEPTED, &[])
        - metrics.sum(metric::CLICKS_PUBLISHED, &[])
        - metrics.sum(metric::CLICKS_DROPPED, &[])
        // Clicks that a full buffer dropped were not accepted.
        + metrics.sum(metric::CLICKS_DROPPED, &[("reason", "buffer_full")]);
    // Negative if the process published clicks from another process's spool.
    clicks.max(0.0) + metrics.sum(metric::CLICKS_SPOOL_BYTES, &[])
}

/// The sum of a counter over all shorteners.
pub(super) async fn sum_of_shorteners(stack: &Stack, name: &str) -> i64 {
    sum_of(&stack.shorteners, name).await
}

/// The sum of a counter over all workers.
pub(super) async fn sum_of_workers(stack: &Stack, name: &str) -> i64 {
    sum_of(&stack.workers, name).await
}

async fn sum_of(processes: &[Process], name: &str) -> i64 {
    let mut sum = 0.0;
    for process in processes {
        sum += process.metrics().await.sum(name, &[]);
    }
    #[expect(clippy::cast_possible_truncation, reason = "whole and small")]
    let sum = sum as i64;
    sum
}

/// Connects to Redis, past the proxies.
pub(super) async fn connect_redis(stack: &Stack) -> MultiplexedConnection {
    let url = format!("redis://127.0.0.1:{}/0", stack.redis_port());
    let client = redis::Client::open(url).unwrap();
    client.get_multiplexed_async_connection().await.unwrap()
}

/// The number of stream entries that no worker has acknowledged; at most one undelivered entry counts.
pub(super) async fn unacknowledged_entries(redis: &mut MultiplexedConnection) -> usize {
    let groups: redis::RedisResult<redis::streams::StreamInfoGroupsReply> =
        redis::cmd("XINFO").arg("GROUPS").arg(STREAM).query_async(redis).await;
    // The stream does not exist yet.
    let Ok(groups) = groups else { return 0 };
    // No worker has created the group yet.
    let Some(group) = groups.groups.first() else { return usize::MAX };
    let from = format!("({}", group.last_delivered_id);
    let more: StreamRangeReply = redis::cmd("XRANGE")
        .arg(STREAM)
        .arg(from)
        .arg("+")
        .arg("COUNT")
        .arg(1)
        .query_async(redis)
        .await
        .unwrap();
    group.pending + more.ids.len()
}

/// Unpacks the batches in a reply to `XRANGE`.
pub(super) fn unpack_batches(reply: &StreamRangeReply) -> Vec<Batch> {
    let packed = reply.ids.iter().map(|entry| entry.get::<Vec<u8>>(FIELD).unwrap());
    packed.map(|packed| Batch::unpack(&packed).unwrap()).collect()
}

/// The number of clicks in these batches that are not recorded. `click_batches` contains the recorded
/// shards of each batch.
pub(super) async fn lost_clicks(database: &mut PgConnection, batches: &[Batch]) -> i64 {
    let ids: Vec<Vec<u8>> = batches.iter().map(|batch| batch.id.to_vec()).collect();
    let known: Vec<(Vec<u8>, i16)> =
        sqlx::query_as("SELECT id, shard FROM click_batches WHERE id = ANY($1)")
            .bind(ids)
            .fetch_all(database)
            .await
            .unwrap();
    let is_known = |batch: &Batch, click: &PackedClick| {
        known.contains(&(batch.id.to_vec(), shard_of(Subject::Link(click.url_id))))
    };
    let lost = |batch: &Batch| batch.clicks.iter().filter(|click| !is_known(batch, click)).count();
    i64::try_from(batches.iter().map(lost).sum::<usize>()).unwrap()
}

/// Adds a packed batch to the stream, like a shortener.
pub(super) async fn add_to_stream(redis: &mut MultiplexedConnection, packed: &[u8]) {
    let _: String = redis::cmd("XADD")
        .arg(STREAM)
        .arg("*")
        .arg(FIELD)
        .arg(packed)
        .query_async(redis)
        .await
        .unwrap();
}

/// A click by a person whose visitor hash is unknown.
pub(super) fn test_click(url_id: i64, at_ms: u64) -> PackedClick {
    PackedClick {
        at_ms,
        url_id: LinkId::new(url_id).unwrap(),
        is_head: false,
        is_prefetch: false,
        is_counted: false,
        visitor: None,
        agent: Some(0),
        referrer: None,
        language: None,
        country: None,
    }
}

/// A batch of clicks with the same `User-Agent`. `number` determines its id.
pub(super) fn test_batch(number: u64, clicks: Vec<PackedClick>) -> Batch {
    let id = (0xface_u128 << 64 | u128::from(number)).to_be_bytes();
    Batch { id, clicks, texts: vec![linnet_system_tests::client::BROWSER.to_owned()] }
}

/// Milliseconds since 1970.
pub(super) fn now_ms() -> u64 {
    u64::try_from(chrono::Utc::now().timestamp_millis()).unwrap()
}
