//! Full spools, missing spools and a full stream.

use linnet_clicks::STREAM;
use linnet_system_tests::{
    Client, Load, Stack,
    expected::{log, metric},
    redis_proxy::Mode,
    within,
};
use rand::{RngExt, SeedableRng, rngs::StdRng};

use super::support::{
    DRAIN_TIMEOUT, assert_clicks_exactly, assert_roll_ups_match, builder, connect_redis,
    create_links, recorded_clicks, redirected, sum_of_shorteners, wait_until_drained,
};

const MIB: u32 = 1024 * 1024;

/// Visits with a long, unique `User-Agent`, in the background.
fn start_visits_with_long_agents(client: &Client, codes: &[String]) -> Load {
    let (client, codes) = (client.anonymous(), codes.to_vec());
    Load::start(8, move |n| {
        let mut random = StdRng::seed_from_u64(n as u64);
        let agent: String =
            (0..512).map(|_| char::from(random.random_range(b'0'..=b'z'))).collect();
        let request = client.get(&format!("/{}", codes[n % codes.len()])).user_agent(&agent);
        async move {
            match request.try_send().await {
                Ok(response) => response.status.to_string(),
                Err(error) => error,
            }
        }
    })
}

/// Asserts that every served click is recorded or counted as dropped. Returns both numbers.
async fn assert_accounted_for(stack: &Stack, served: i64) -> (i64, i64) {
    wait_until_drained(stack).await;
    let mut database = stack.database().await;
    let recorded = recorded_clicks(&mut database).await;
    let dropped = sum_of_shorteners(stack, metric::CLICKS_DROPPED).await;
    assert_eq!(sum_of_shorteners(stack, metric::CLICKS_ACCEPTED).await, served);
    assert_eq!(recorded + dropped, served);
    assert_roll_ups_match(&mut database).await;
    (recorded, dropped)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn must_17_clicks_dropped_by_a_full_spool_are_counted() {
    let stack = builder()
        .shorteners(1)
        .proxied_redis()
        .env("LINNET__CLICKS__SPOOL_BYTES", MIB)
        .start()
        .await;
    let codes = create_links(&stack, 5).await;
    stack.shortener_redis[0].set(Mode::Refuse);
    let load = start_visits_with_long_agents(&stack.client(), &codes);
    within(DRAIN_TIMEOUT, "clicks are dropped", || async {
        stack.shortener_metrics(0).await.sum(metric::CLICKS_DROPPED, &[("reason", "spool_full")])
            > 100.0
    })
    .await;
    assert!(
        stack.shortener_metrics(0).await.sum(metric::CLICKS_SPOOL_BYTES, &[]) <= f64::from(MIB)
    );
    stack.shortener_redis[0].set(Mode::Pass);
    within(DRAIN_TIMEOUT, "an empty spool", || async {
        stack.shortener_metrics(0).await.sum(metric::CLICKS_SPOOL_BYTES, &[]) == 0.0
    })
    .await;
    let dropped = sum_of_shorteners(&stack, metric::CLICKS_DROPPED).await;
    load.wait_for_requests(100).await;
    let served = redirected(&load.finish().await);
    let (recorded, dropped_in_all) = assert_accounted_for(&stack, served).await;
    assert_eq!(dropped_in_all, dropped, "clicks dropped after the spool had room");
    assert!(recorded > 1_000, "{recorded}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn must_17_redirects_continue_without_a_spool_and_losses_are_counted() {
    let mut stack = builder().shorteners(1).proxied_redis().start().await;
    let codes = create_links(&stack, 5).await;
    // Root may write to any folder, so the spool's parent is a file.
    let file = stack.folder().join("a-file");
    std::fs::write(&file, "").unwrap();
    let folder = file.join("spool");
    stack.shorteners[0].stop().await;
    stack.shorteners[0].set_env("LINNET__CLICKS__SPOOL_DIR", folder.to_str().unwrap());
    stack.shorteners[0].start();
    stack.wait_until_ready().await;
    let errors: Vec<_> = stack.shorteners[0]
        .log_lines()
        .into_iter()
        .filter(|line| line["level"] == "ERROR" && line.to_string().contains(log::SPOOL_UNUSABLE))
        .collect();
    assert_eq!(errors.len(), 1, "{errors:?}");

    let load = start_visits_with_long_agents(&stack.client(), &codes);
    load.wait_for_requests(100).await;
    stack.shortener_redis[0].set(Mode::Refuse);
    within(DRAIN_TIMEOUT, "clicks are dropped", || async {
        let reason = [("reason", "spool_unusable")];
        stack.shortener_metrics(0).await.sum(metric::CLICKS_DROPPED, &reason) > 100.0
    })
    .await;
    stack.shortener_redis[0].set(Mode::Pass);
    within(DRAIN_TIMEOUT, "clicks are published again", || async {
        let before = sum_of_shorteners(&stack, metric::CLICKS_DROPPED).await;
        load.wait_for_requests(300).await;
        sum_of_shorteners(&stack, metric::CLICKS_DROPPED).await == before
    })
    .await;
    let served = redirected(&load.finish().await);
    assert_accounted_for(&stack, served).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clicks_are_spooled_in_order_while_the_stream_is_full() {
    let mut stack = builder()
        .shorteners(1)
        // With one buffer and one consumer, clicks have an order.
        .env("LINNET__SHORTENER__SERVER_THREADS", 1)
        .env("LINNET__WORKER__CONSUMERS", 1)
        .env("LINNET__CLICKS__STREAM_BYTES", MIB)
        .start()
        .await;
    let codes = create_links(&stack, 5).await;
    stack.workers[0].stop().await;
    let load = start_visits_with_long_agents(&stack.client(), &codes);
    within(DRAIN_TIMEOUT, "the stream is full", || async {
        sum_of_shorteners(&stack, metric::CLICKS_SPOOLED).await > 500
    })
    .await;
    let mut redis = connect_redis(&stack).await;
    let bytes: u32 =
        redis::cmd("MEMORY").arg("USAGE").arg(STREAM).query_async(&mut redis).await.unwrap();
    assert!((MIB..8 * MIB).contains(&bytes), "the stream has {bytes} bytes");
    load.wait_for_requests(500).await;
    let served = redirected(&load.finish().await);
    stack.workers[0].start();
    assert_clicks_exactly(&stack, served).await;
    assert_eq!(sum_of_shorteners(&stack, metric::CLICKS_DROPPED).await, 0);
    // Clicks of different links may be written concurrently, so only the order per link counts.
    let out_of_order: i64 = sqlx::query_scalar(
        "SELECT count(*) FROM (SELECT clicked_at < lag(clicked_at) OVER (PARTITION BY url_id ORDER BY id)
                                      AS is_late FROM all_clicks) AS seen WHERE is_late",
    )
    .fetch_one(&mut stack.database().await)
    .await
    .unwrap();
    assert_eq!(out_of_order, 0, "the ids of a link's clicks are in the order of time");
}
