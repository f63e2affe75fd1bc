//! Clicks of shorteners that are stopped or killed.

use std::{
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use linnet_system_tests::{Load, client, expected::metric, redis_proxy::Mode, within};

use super::support::{
    DRAIN_TIMEOUT, assert_clicks_exactly, builder, create_links, recorded_clicks, redirected,
    start_visits, unpublished, wait_until_drained,
};

const FLUSH_MS: u64 = 500;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn must_17_stopping_shortener_publishes_every_click() {
    let mut stack = builder()
        .env("LINNET__SHUTDOWN__DRAIN_MS", 2_500)
        // The interval is so long that buffers contain clicks at shutdown.
        .env("LINNET__CLICKS__FLUSH_MS", 5_000)
        .start()
        .await;
    let codes = create_links(&stack, 20).await;
    let load = start_visits(&stack, &codes);
    for shortener in 0..2 {
        load.wait_for_requests(200).await;
        assert!(stack.shorteners[shortener].stop().await.success());
        stack.shorteners[shortener].start();
        stack.wait_until_ready().await;
    }
    load.wait_for_requests(200).await;
    let served = redirected(&load.finish().await);
    assert_clicks_exactly(&stack, served).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn must_17_clicks_of_a_shortener_stopped_while_redis_hangs_are_published_by_the_next() {
    let mut stack = builder().proxied_redis().env("LINNET__CLICKS__FLUSH_MS", 5_000).start().await;
    let codes = create_links(&stack, 20).await;
    let load = start_visits(&stack, &codes);
    load.wait_for_requests(500).await;
    let served = redirected(&load.finish().await);
    for proxy in &stack.shortener_redis {
        proxy.set(Mode::BlackHole);
    }
    for shortener in &mut stack.shorteners {
        assert!(shortener.stop().await.success());
    }
    for (shortener, proxy) in stack.shorteners.iter_mut().zip(&stack.shortener_redis) {
        proxy.set(Mode::Pass);
        shortener.start();
    }
    stack.wait_until_ready().await;
    // The restarted processes' counters began at 0, so only the recorded clicks can be compared.
    within(DRAIN_TIMEOUT, "the clicks of the spools", || async {
        recorded_clicks(&mut stack.database().await).await >= served
    })
    .await;
    assert_eq!(recorded_clicks(&mut stack.database().await).await, served);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn must_17_killed_shortener_loses_only_unflushed_clicks() {
    let mut stack = builder()
        .shorteners(1)
        .env("LINNET__SHORTENER__SERVER_THREADS", 1)
        .env("LINNET__CLICKS__FLUSH_MS", FLUSH_MS)
        .start()
        .await;
    let codes = create_links(&stack, 5).await;
    // Visits go to the socket, because nginx would retry them. The time of each redirect is recorded.
    let socket = stack.folder().join("r0");
    let redirected_at: Arc<Mutex<Vec<Instant>>> = Arc::default();
    let load = {
        let redirected_at = Arc::clone(&redirected_at);
        Load::start(4, move |n| {
            let (socket, redirected_at) = (socket.clone(), Arc::clone(&redirected_at));
            let path = format!("/{}", codes[n % codes.len()]);
            async move {
                let is_redirect =
                    client::get_unix(&socket, &path).await.is_some_and(|a| a.status == 302);
                if is_redirect {
                    redirected_at.lock().unwrap().push(Instant::now());
                } else {
                    tokio::task::yield_now().await;
                }
                if is_redirect { "302" } else { "none" }.to_owned()
            }
        })
    };
    load.wait_for_requests(500).await;
    // Published clicks cannot be lost.
    let published =
        || async { stack.shortener_metrics(0).await.sum(metric::CLICKS_PUBLISHED, &[]) };
    let first = published().await;
    within(DRAIN_TIMEOUT, "another flush", || async { published().await > first }).await;
    let safe = published().await;
    load.wait_for_requests(50).await;
    let killed = Instant::now();
    stack.shorteners[0].kill().await;
    load.finish().await;
    wait_until_stream_drained(&stack).await;

    let recorded = recorded_clicks(&mut stack.database().await).await;
    let redirected_at = redirected_at.lock().unwrap();
    let served = i64::try_from(redirected_at.len()).unwrap();
    // A click waits for up to one interval in the buffer, and the batch of the previous interval may be in transit.
    let unsafe_for = Duration::from_millis(2 * FLUSH_MS);
    let at_risk = redirected_at.iter().filter(|at| **at + unsafe_for > killed).count();
    let lost = served - recorded;
    assert!(recorded as f64 >= safe, "{recorded} recorded, {safe} published");
    assert!(lost <= i64::try_from(at_risk).unwrap(), "lost {lost}, at risk {at_risk}");
}

/// Waits until the stream is empty, without the metrics of shorteners.
async fn wait_until_stream_drained(stack: &linnet_system_tests::Stack) {
    let redis = tokio::sync::Mutex::new(super::support::connect_redis(stack).await);
    within(DRAIN_TIMEOUT, "an empty stream", || async {
        super::support::unacknowledged_entries(&mut *redis.lock().await).await == 0
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn must_17_spool_of_a_killed_shortener_is_published_by_the_next() {
    let mut stack = builder().proxied_redis().start().await;
    let codes = create_links(&stack, 20).await;
    for proxy in &stack.shortener_redis {
        proxy.set(Mode::Refuse);
    }
    let load = start_visits(&stack, &codes);
    load.wait_for_requests(1_000).await;
    let served = redirected(&load.finish().await);
    for shortener in 0..2 {
        within(DRAIN_TIMEOUT, "all clicks are in the spool", || async {
            let metrics = stack.shortener_metrics(shortener).await;
            let spooled = metrics.sum(metric::CLICKS_SPOOLED, &[]);
            spooled > 0.0
                && spooled + metrics.sum(metric::CLICKS_PUBLISHED, &[])
                    == metrics.sum(metric::CLICKS_ACCEPTED, &[])
                && unpublished(&metrics) > 0.0
        })
        .await;
    }
    for shortener in &mut stack.shorteners {
        shortener.kill().await;
    }
    for (shortener, proxy) in stack.shorteners.iter_mut().zip(&stack.shortener_redis) {
        proxy.set(Mode::Pass);
        shortener.start();
    }
    stack.wait_until_ready().await;
    super::support::wait_for_clicks(&stack, served).await;
    wait_until_drained(&stack).await;
    assert_eq!(recorded_clicks(&mut stack.database().await).await, served);
}
