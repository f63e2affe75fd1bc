//! What the tests of the pipeline have in common.

use std::time::Duration;

use linnet_clicks::{Batch, FIELD, PackedClick, STREAM};
use linnet_store::shard_of;
use linnet_system_tests::{Builder, Client, Load, Metrics, Process, Stack, Tally, within};
use redis::{aio::MultiplexedConnection, streams::StreamRangeReply};
use serde_json::json;
use sqlx::PgConnection;
use tokio::sync::Mutex;

/// Longest wait for what was accepted to be recorded.
pub(super) const DRAIN: Duration = Duration::from_secs(90);

pub(super) fn builder() -> Builder {
    Stack::builder().shorteners(2).workers(1).env("LINNET__WORKER__CLAIM_AFTER_MS", 1_000)
}

pub(super) async fn link(client: &Client, body: &serde_json::Value) -> (i64, String) {
    let link = client.shorten(body).await;
    (link["id"].as_i64().unwrap(), link["short_code"].as_str().unwrap().to_owned())
}

/// So many links; each code is one that all shorteners know already.
pub(super) async fn links(stack: &Stack, count: usize) -> Vec<String> {
    let mut codes = Vec::new();
    for n in 0..count {
        let target = format!("https://example.com/{n}");
        codes.push(link(&stack.client(), &json!({"original_url": target})).await.1);
    }
    codes
}

/// Visits these codes in turn, through nginx.
pub(super) fn visits(stack: &Stack, codes: &[String]) -> Load {
    let (client, codes) = (stack.client().anonymous(), codes.to_vec());
    Load::start(8, move |n| {
        let request = client.get(&format!("/{}", codes[n % codes.len()]));
        async move {
            match request.try_send().await {
                Ok(answer) => answer.status.to_string(),
                Err(error) => error,
            }
        }
    })
}

/// All requests were led on; how many.
pub(super) fn all_led(tally: &Tally) -> i64 {
    assert_eq!(tally.keys().collect::<Vec<_>>(), ["302"], "{tally:?}");
    i64::try_from(tally["302"]).unwrap()
}

pub(super) async fn recorded(database: &mut PgConnection) -> i64 {
    sqlx::query_scalar("SELECT count(*) FROM clicks").fetch_one(database).await.unwrap()
}

/// Waits until so many clicks are recorded.
pub(super) async fn recorded_at_least(stack: &Stack, wanted: i64) {
    let database = Mutex::new(stack.database().await);
    within(DRAIN, &format!("{wanted} clicks in the database"), || async {
        recorded(&mut *database.lock().await).await >= wanted
    })
    .await;
}

/// Waits until so many clicks are recorded and nothing more waits: no more may come.
pub(super) async fn recorded_exactly(stack: &Stack, wanted: i64) {
    recorded_at_least(stack, wanted).await;
    drained(stack).await;
    let mut database = stack.database().await;
    assert_eq!(recorded(&mut database).await, wanted);
    adds_up(&mut database).await;
}

/// Every roll-up has what the raw clicks have. The links of the tests have an owner.
pub(super) async fn adds_up(database: &mut PgConnection) {
    let wanted = recorded(database).await;
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
        assert_eq!(total, wanted, "{what}: not what the raw clicks are");
    }
    let people: (i64, i64, i64) = sqlx::query_as(
        "SELECT (SELECT count(*) FROM clicks WHERE kind = 0),
                (SELECT coalesce(sum(clicks), 0)::bigint FROM urls),
                (SELECT coalesce(sum(clicks), 0)::bigint FROM click_days_by_value
                   JOIN click_values ON id = value_id WHERE subject = 0 AND kind = 1)",
    )
    .fetch_one(database)
    .await
    .unwrap();
    assert_eq!((people.0, people.0), (people.1, people.2), "people: raw, of links, by agent");
}

/// Waits until no buffer, spool or stream holds a click any more.
pub(super) async fn drained(stack: &Stack) {
    let redis = Mutex::new(redis(stack).await);
    within(DRAIN, "nothing waits any more", || async {
        let mut held = 0.0;
        for number in 0..stack.shorteners.len() {
            held += held_by(&stack.shortener_metrics(number).await);
        }
        held == 0.0 && unwritten(&mut *redis.lock().await).await == 0
    })
    .await;
}

/// Clicks that a shortener has and the stream has not, and bytes of its spool.
pub(super) fn held_by(metrics: &Metrics) -> f64 {
    let clicks = metrics.sum("linnet_clicks_accepted", &[])
        - metrics.sum("linnet_clicks_published", &[])
        - metrics.sum("linnet_clicks_dropped", &[])
        // Those were not accepted.
        + metrics.sum("linnet_clicks_dropped", &[("reason", "buffer_full")]);
    // It may have published what another process had accepted.
    clicks.max(0.0) + metrics.sum("linnet_clicks_spool_bytes", &[])
}

/// A counter, over all shorteners.
pub(super) async fn of_shorteners(stack: &Stack, name: &str) -> i64 {
    of(&stack.shorteners, name).await
}

/// A counter, over all workers.
pub(super) async fn of_workers(stack: &Stack, name: &str) -> i64 {
    of(&stack.workers, name).await
}

async fn of(processes: &[Process], name: &str) -> i64 {
    let mut sum = 0.0;
    for process in processes {
        sum += process.metrics().await.sum(name, &[]);
    }
    #[expect(clippy::cast_possible_truncation, reason = "whole and small")]
    let sum = sum as i64;
    sum
}

/// A connection to Redis itself.
pub(super) async fn redis(stack: &Stack) -> MultiplexedConnection {
    let url = format!("redis://127.0.0.1:{}/0", stack.redis_port());
    let client = redis::Client::open(url).unwrap();
    client.get_multiplexed_async_connection().await.unwrap()
}

/// Entries that no worker has taken, or taken and not acknowledged.
pub(super) async fn unwritten(redis: &mut MultiplexedConnection) -> usize {
    let groups: redis::RedisResult<redis::streams::StreamInfoGroupsReply> =
        redis::cmd("XINFO").arg("GROUPS").arg(STREAM).query_async(redis).await;
    // Without a stream, or without a group yet.
    let Ok(groups) = groups else { return 0 };
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

/// The batches of a reply of `XRANGE`.
pub(super) fn batches(reply: &StreamRangeReply) -> Vec<Batch> {
    let packed = reply.ids.iter().map(|entry| entry.get::<Vec<u8>>(FIELD).unwrap());
    packed.map(|packed| Batch::unpack(&packed).unwrap()).collect()
}

/// Clicks of those batches that are not in the database: each is there with the shard of its link.
pub(super) async fn lost(database: &mut PgConnection, batches: &[Batch]) -> i64 {
    let ids: Vec<Vec<u8>> = batches.iter().map(|batch| batch.id.to_vec()).collect();
    let known: Vec<(Vec<u8>, i16)> =
        sqlx::query_as("SELECT id, shard FROM click_batches WHERE id = ANY($1)")
            .bind(ids)
            .fetch_all(database)
            .await
            .unwrap();
    let is_known = |batch: &Batch, click: &PackedClick| {
        known.contains(&(batch.id.to_vec(), shard_of(click.url_id)))
    };
    let lost = |batch: &Batch| batch.clicks.iter().filter(|click| !is_known(batch, click)).count();
    i64::try_from(batches.iter().map(lost).sum::<usize>()).unwrap()
}

/// Puts a batch into the stream, as a shortener does.
pub(super) async fn add(redis: &mut MultiplexedConnection, packed: &[u8]) {
    let _: String = redis::cmd("XADD")
        .arg(STREAM)
        .arg("*")
        .arg(FIELD)
        .arg(packed)
        .query_async(redis)
        .await
        .unwrap();
}

/// A person's click by nobody in particular.
pub(super) fn click(url_id: i64, at_ms: u64) -> PackedClick {
    PackedClick {
        at_ms,
        url_id,
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

/// A batch of clicks by one browser.
pub(super) fn batch(number: u64, clicks: Vec<PackedClick>) -> Batch {
    let id = (0xface_u128 << 64 | u128::from(number)).to_be_bytes();
    Batch { id, clicks, texts: vec![linnet_system_tests::client::BROWSER.to_owned()] }
}

/// Milliseconds since 1970.
pub(super) fn now_ms() -> u64 {
    u64::try_from(chrono::Utc::now().timestamp_millis()).unwrap()
}
