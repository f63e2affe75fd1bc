//! Concurrent misses: single-flight, negative entries and budgets.

use std::time::Duration;

use futures::{StreamExt, stream};
use linnet_system_tests::{Stack, expected::metric, within};
use serde_json::json;
use sqlx::Connection;

/// Waits until `visits` visits have reached the shortener, which waits for PostgreSQL.
async fn wait_for_connections(stack: &Stack, visits: usize) {
    let folder = format!("/proc/{}/fd", stack.shorteners[0].pid().unwrap());
    within(Duration::from_secs(8), "a connection per visit", || async {
        // nginx opens a connection for each visit.
        std::fs::read_dir(&folder).unwrap().count() >= visits
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn must_19_thousand_concurrent_misses_of_one_code_cause_one_lookup() {
    let mut builder = Stack::builder().env("LINNET__CACHE__WARMUP_LINKS", 0);
    for timeout in
        ["POSTGRES__LOCK_TIMEOUT", "POSTGRES__STATEMENT_TIMEOUT", "RESOLVE__DATABASE_TIMEOUT"]
    {
        builder = builder.env(&format!("LINNET__{timeout}_MS"), 9_000);
    }
    let mut stack = builder.start().await;
    // `exists` is a link that only PostgreSQL contains; `absent` does not exist.
    let body = json!({"original_url": "https://example.com/", "short_code": "exists"});
    stack.client().shorten(&body).await;
    // The restarts empty L1 and L2.
    stack.redis.kill().await;
    stack.start_redis().await;
    stack.shorteners[0].stop().await;
    stack.shorteners[0].start();
    stack.wait_until_ready().await;
    let client = stack.client().anonymous();
    let mut database = stack.database().await;
    for (code, status) in [("exists", 302), ("absent", 404)] {
        let before = stack.database_lookups().await;
        // The lock delays the first lookup until all other visits have arrived.
        let mut lock = database.begin().await.unwrap();
        sqlx::query("LOCK TABLE urls IN ACCESS EXCLUSIVE MODE").execute(&mut *lock).await.unwrap();
        let visits = (0..1_000).map(|_| client.get(&format!("/{code}")).send());
        let visits = tokio::spawn(futures::future::join_all(visits));
        wait_for_connections(&stack, 1_000).await;
        lock.rollback().await.unwrap();
        let responses = visits.await.unwrap();
        assert!(responses.iter().all(|response| response.status == status), "{code}");
        assert_eq!(stack.database_lookups().await - before, 1.0, "{code}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn must_19_two_processes_look_up_each_code_once_in_the_database() {
    let mut stack =
        Stack::builder().shorteners(2).env("LINNET__CACHE__WARMUP_LINKS", 0).start().await;
    let mut codes = Vec::new();
    for n in 0..200 {
        let body = json!({"original_url": format!("https://example.com/{n}")});
        let link = stack.client().shorten(&body).await;
        codes.push(link["short_code"].as_str().unwrap().to_owned());
    }
    stack.redis.kill().await;
    stack.start_redis().await;
    for shortener in &mut stack.shorteners {
        shortener.stop().await;
        shortener.start();
    }
    stack.wait_until_ready().await;
    let before = stack.database_lookups().await;
    for shortener in [0, 1, 0, 1] {
        for code in &codes {
            assert_eq!(stack.resolve_at(shortener, code).await.0, 302);
        }
    }
    assert_eq!(stack.database_lookups().await - before, 200.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn must_19_random_codes_do_not_evict_popular_links_from_l1() {
    let stack = Stack::builder()
        .env("LINNET__CACHE__L1_BYTES", 1024 * 1024)
        .env("LINNET__CACHE__L1_NEGATIVE_ENTRIES", 1_000)
        .start()
        .await;
    let client = stack.client().anonymous();
    let mut popular = Vec::new();
    for n in 0..50 {
        let body = json!({"original_url": format!("https://example.com/{n}")});
        let link = stack.client().shorten(&body).await;
        popular.push(link["short_code"].as_str().unwrap().to_owned());
    }
    for code in &popular {
        assert_eq!(client.resolve(code).await.0, 302);
    }
    stream::iter(0..20_000)
        .for_each_concurrent(64, |n| {
            let client = &client;
            async move { assert_eq!(client.resolve(&format!("random{n}")).await.0, 404) }
        })
        .await;
    let l1_hits = || async {
        stack.shortener_metrics(0).await.sum(metric::CACHE_LOOKUPS, &[("tier", "local")])
    };
    let before = l1_hits().await;
    for code in &popular {
        assert_eq!(client.resolve(code).await.0, 302);
    }
    assert_eq!(l1_hits().await - before, 50.0, "popular links that L1 still contains");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn must_19_database_lookups_of_a_guessing_client_end_at_its_budget() {
    let stack = Stack::builder()
        .env("LINNET__RESOLVE__MISSES_PER_MINUTE", 60)
        .env("LINNET__RESOLVE__MISSES_BURST", 100)
        .start()
        .await;
    let client = stack.client().anonymous();
    let before = stack.database_lookups().await;
    stream::iter(0..5_000)
        .for_each_concurrent(64, |n| {
            let client = &client;
            async move {
                let status = client.resolve(&format!("drawn{n}")).await.0;
                assert!([404, 429].contains(&status), "{status}");
            }
        })
        .await;
    let lookups = stack.database_lookups().await - before;
    assert!(lookups < 400.0, "{lookups} lookups for 5,000 guesses by one client");
    within(Duration::from_secs(5), "in-flight lookups to end", || async {
        client.resolve("drawn0").await.0 != 503
    })
    .await;
}
