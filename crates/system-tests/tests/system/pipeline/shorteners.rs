//! Shorteners that stop and die.

use std::{
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use linnet_system_tests::{Load, client, redis_proxy::Mode, within};

use super::support::{
    DRAIN, all_led, builder, drained, held_by, links, recorded, recorded_exactly, visits,
};

const FLUSH_MS: u64 = 500;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn must_17_a_shortener_that_stops_leaves_no_click_behind() {
    let mut stack = builder()
        .env("LINNET__SHUTDOWN__DRAIN_MS", 2_500)
        // What is in the buffers is there for long.
        .env("LINNET__CLICKS__FLUSH_MS", 5_000)
        .start()
        .await;
    let codes = links(&stack, 20).await;
    let load = visits(&stack, &codes);
    for shortener in 0..2 {
        load.more(200).await;
        assert!(stack.shorteners[shortener].stop().await.success());
        stack.shorteners[shortener].start();
        stack.ready().await;
    }
    load.more(200).await;
    let served = all_led(&load.finish().await);
    recorded_exactly(&stack, served).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn must_17_a_shortener_that_stops_while_redis_hangs_leaves_its_clicks_to_the_next() {
    let mut stack = builder().proxied_redis().env("LINNET__CLICKS__FLUSH_MS", 5_000).start().await;
    let codes = links(&stack, 20).await;
    let load = visits(&stack, &codes);
    load.more(500).await;
    let served = all_led(&load.finish().await);
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
    stack.ready().await;
    // Its own count began anew, so only what is recorded tells.
    within(DRAIN, "what the spools held", || async {
        recorded(&mut stack.database().await).await >= served
    })
    .await;
    assert_eq!(recorded(&mut stack.database().await).await, served);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn must_17_a_shortener_that_is_killed_loses_what_it_had_not_flushed() {
    let mut stack = builder()
        .shorteners(1)
        .env("LINNET__SHORTENER__SERVER_THREADS", 1)
        .env("LINNET__CLICKS__FLUSH_MS", FLUSH_MS)
        .start()
        .await;
    let codes = links(&stack, 5).await;
    // Visited at its socket, so that nothing is tried twice. Each answer with its time.
    let socket = stack.folder().join("r0");
    let answered: Arc<Mutex<Vec<Instant>>> = Arc::default();
    let load = {
        let answered = Arc::clone(&answered);
        Load::start(4, move |n| {
            let (socket, answered) = (socket.clone(), Arc::clone(&answered));
            let path = format!("/{}", codes[n % codes.len()]);
            async move {
                let led = client::get_unix(&socket, &path).await.is_some_and(|a| a.status == 302);
                if led {
                    answered.lock().unwrap().push(Instant::now());
                } else {
                    tokio::task::yield_now().await;
                }
                if led { "302" } else { "none" }.to_owned()
            }
        })
    };
    load.more(500).await;
    // What has been published is safe, and that keeps up with what is served.
    let published =
        || async { stack.shortener_metrics(0).await.sum("linnet_clicks_published", &[]) };
    let first = published().await;
    within(DRAIN, "another flush", || async { published().await > first }).await;
    let safe = published().await;
    load.more(50).await;
    let killed = Instant::now();
    stack.shorteners[0].kill().await;
    load.finish().await;
    drained_stream(&stack).await;

    let recorded = recorded(&mut stack.database().await).await;
    let answered = answered.lock().unwrap();
    let served = i64::try_from(answered.len()).unwrap();
    // One interval in the buffer, and at worst the one before still on its way.
    let unsafe_for = Duration::from_millis(2 * FLUSH_MS);
    let at_stake = answered.iter().filter(|at| **at + unsafe_for > killed).count();
    let lost = served - recorded;
    assert!(recorded as f64 >= safe, "{recorded} recorded, {safe} published");
    assert!(lost <= i64::try_from(at_stake).unwrap(), "lost {lost}, at stake {at_stake}");
}

/// The shortener is gone: only what the stream holds is waited for.
async fn drained_stream(stack: &linnet_system_tests::Stack) {
    let redis = tokio::sync::Mutex::new(super::support::redis(stack).await);
    within(DRAIN, "the worker has everything", || async {
        super::support::unwritten(&mut *redis.lock().await).await == 0
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn must_17_the_spool_of_a_shortener_that_was_killed_is_the_next_ones() {
    let mut stack = builder().proxied_redis().start().await;
    let codes = links(&stack, 20).await;
    for proxy in &stack.shortener_redis {
        proxy.set(Mode::Refuse);
    }
    let load = visits(&stack, &codes);
    load.more(1_000).await;
    let served = all_led(&load.finish().await);
    for shortener in 0..2 {
        within(DRAIN, "all clicks are in the spool", || async {
            let metrics = stack.shortener_metrics(shortener).await;
            let spooled = metrics.sum("linnet_clicks_spooled", &[]);
            spooled > 0.0
                && spooled + metrics.sum("linnet_clicks_published", &[])
                    == metrics.sum("linnet_clicks_accepted", &[])
                && held_by(&metrics) > 0.0
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
    stack.ready().await;
    super::support::recorded_at_least(&stack, served).await;
    drained(&stack).await;
    assert_eq!(recorded(&mut stack.database().await).await, served);
}
