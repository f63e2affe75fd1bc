//! What is bounded, at its bound.

use linnet_clicks::STREAM;
use linnet_system_tests::{Client, Load, Stack, redis_proxy::Mode, within};
use rand::{RngExt, SeedableRng, rngs::StdRng};

use super::support::{
    DRAIN, adds_up, all_led, builder, drained, links, of_shorteners, recorded, recorded_exactly,
    redis,
};

const MIB: u32 = 1024 * 1024;

/// Visits with long agents of which each is another one.
fn long_visits(client: &Client, codes: &[String]) -> Load {
    let (client, codes) = (client.anonymous(), codes.to_vec());
    Load::start(8, move |n| {
        let mut random = StdRng::seed_from_u64(n as u64);
        let agent: String =
            (0..512).map(|_| char::from(random.random_range(b'0'..=b'z'))).collect();
        let request = client.get(&format!("/{}", codes[n % codes.len()])).user_agent(&agent);
        async move {
            match request.try_send().await {
                Ok(answer) => answer.status.to_string(),
                Err(error) => error,
            }
        }
    })
}

async fn accounted_for(stack: &Stack, served: i64) -> (i64, i64) {
    drained(stack).await;
    let mut database = stack.database().await;
    let recorded = recorded(&mut database).await;
    let dropped = of_shorteners(stack, "linnet_clicks_dropped").await;
    assert_eq!(of_shorteners(stack, "linnet_clicks_accepted").await, served);
    assert_eq!(recorded + dropped, served);
    adds_up(&mut database).await;
    (recorded, dropped)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn must_17_what_a_full_spool_does_not_take_is_counted() {
    let stack = builder()
        .shorteners(1)
        .proxied_redis()
        .env("LINNET__CLICKS__SPOOL_BYTES", MIB)
        .start()
        .await;
    let codes = links(&stack, 5).await;
    stack.shortener_redis[0].set(Mode::Refuse);
    let load = long_visits(&stack.client(), &codes);
    within(DRAIN, "clicks are dropped", || async {
        stack.shortener_metrics(0).await.sum("linnet_clicks_dropped", &[("reason", "spool_full")])
            > 100.0
    })
    .await;
    assert!(
        stack.shortener_metrics(0).await.sum("linnet_clicks_spool_bytes", &[]) <= f64::from(MIB)
    );
    stack.shortener_redis[0].set(Mode::Pass);
    // It has room again, and takes everything that comes now.
    within(DRAIN, "the spool is empty again", || async {
        stack.shortener_metrics(0).await.sum("linnet_clicks_spool_bytes", &[]) == 0.0
    })
    .await;
    let dropped = of_shorteners(&stack, "linnet_clicks_dropped").await;
    load.more(100).await;
    let served = all_led(&load.finish().await);
    let (recorded, dropped_in_all) = accounted_for(&stack, served).await;
    assert_eq!(dropped_in_all, dropped, "nothing more was dropped");
    assert!(recorded > 1_000, "{recorded}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn must_17_without_a_spool_redirects_go_on_and_losses_are_counted() {
    let mut stack = builder().shorteners(1).proxied_redis().start().await;
    let codes = links(&stack, 5).await;
    // Root may write into every folder, but nobody below a file.
    let file = stack.folder().join("a-file");
    std::fs::write(&file, "").unwrap();
    let folder = file.join("spool");
    stack.shorteners[0].stop().await;
    stack.shorteners[0].set_env("LINNET__CLICKS__SPOOL_DIR", folder.to_str().unwrap());
    stack.shorteners[0].start();
    stack.ready().await;
    let errors: Vec<_> = stack.shorteners[0]
        .log_lines()
        .into_iter()
        .filter(|line| line["level"] == "ERROR" && line.to_string().contains("no spool"))
        .collect();
    assert_eq!(errors.len(), 1, "{errors:?}");

    let load = long_visits(&stack.client(), &codes);
    load.more(100).await;
    stack.shortener_redis[0].set(Mode::Refuse);
    within(DRAIN, "clicks are dropped", || async {
        let reason = [("reason", "spool_unusable")];
        stack.shortener_metrics(0).await.sum("linnet_clicks_dropped", &reason) > 100.0
    })
    .await;
    stack.shortener_redis[0].set(Mode::Pass);
    within(DRAIN, "clicks go into the stream again", || async {
        let before = of_shorteners(&stack, "linnet_clicks_dropped").await;
        load.more(300).await;
        of_shorteners(&stack, "linnet_clicks_dropped").await == before
    })
    .await;
    let served = all_led(&load.finish().await);
    accounted_for(&stack, served).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_stream_makes_clicks_wait_in_the_spool_and_keeps_their_order() {
    let mut stack = builder()
        .shorteners(1)
        // One buffer and one consumer, so that there is an order.
        .env("LINNET__SHORTENER__SERVER_THREADS", 1)
        .env("LINNET__WORKER__CONSUMERS", 1)
        .env("LINNET__CLICKS__STREAM_BYTES", MIB)
        .start()
        .await;
    let codes = links(&stack, 5).await;
    stack.workers[0].stop().await;
    let load = long_visits(&stack.client(), &codes);
    within(DRAIN, "the stream is full", || async {
        of_shorteners(&stack, "linnet_clicks_spooled").await > 500
    })
    .await;
    let mut redis = redis(&stack).await;
    let bytes: u32 =
        redis::cmd("MEMORY").arg("USAGE").arg(STREAM).query_async(&mut redis).await.unwrap();
    assert!((MIB..8 * MIB).contains(&bytes), "the stream has {bytes} bytes");
    load.more(500).await;
    let served = all_led(&load.finish().await);
    stack.workers[0].start();
    recorded_exactly(&stack, served).await;
    assert_eq!(of_shorteners(&stack, "linnet_clicks_dropped").await, 0);
    // Links may be written side by side.
    let out_of_order: i64 = sqlx::query_scalar(
        "SELECT count(*) FROM (SELECT clicked_at < lag(clicked_at) OVER (PARTITION BY url_id ORDER BY id)
                                      AS is_late FROM clicks) AS seen WHERE is_late",
    )
    .fetch_one(&mut stack.database().await)
    .await
    .unwrap();
    assert_eq!(out_of_order, 0, "a link's clicks are numbered in the order in which they came");
}
