//! Many misses at once.

use std::time::Duration;

use futures::{StreamExt, stream};
use linnet_system_tests::{Stack, within};
use serde_json::json;
use sqlx::Connection;

/// Waits until every one of these visits has reached the shortener, which then waits for PostgreSQL.
async fn all_wait(stack: &Stack, visits: usize) {
    let folder = format!("/proc/{}/fd", stack.shorteners[0].pid().unwrap());
    within(Duration::from_secs(8), "all visits wait", || async {
        // nginx opens a connection for each.
        std::fs::read_dir(&folder).unwrap().count() >= visits
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn must_19_a_thousand_misses_of_one_code_make_one_look_up() {
    let mut builder = Stack::builder().env("LINNET__CACHE__WARMUP_LINKS", 0);
    for timeout in
        ["POSTGRES__LOCK_TIMEOUT", "POSTGRES__STATEMENT_TIMEOUT", "RESOLVE__DATABASE_TIMEOUT"]
    {
        builder = builder.env(&format!("LINNET__{timeout}_MS"), 9_000);
    }
    let mut stack = builder.start().await;
    // `exists` is a link that no tier above PostgreSQL holds; `absent` is no link.
    let body = json!({"original_url": "https://example.com/", "short_code": "exists"});
    stack.client().shorten(&body).await;
    // A new Redis and a new process hold nothing.
    stack.redis.kill().await;
    stack.start_redis().await;
    stack.shorteners[0].stop().await;
    stack.shorteners[0].start();
    stack.ready().await;
    let client = stack.client().anonymous();
    let mut database = stack.database().await;
    for (code, status) in [("exists", 302), ("absent", 404)] {
        let before = stack.database_lookups().await;
        // The first look-up lasts until all the others are there.
        let mut lock = database.begin().await.unwrap();
        sqlx::query("LOCK TABLE urls IN ACCESS EXCLUSIVE MODE").execute(&mut *lock).await.unwrap();
        let visits = (0..1_000).map(|_| client.get(&format!("/{code}")).send());
        let visits = tokio::spawn(futures::future::join_all(visits));
        all_wait(&stack, 1_000).await;
        lock.rollback().await.unwrap();
        let answers = visits.await.unwrap();
        assert!(answers.iter().all(|answer| answer.status == status), "{code}");
        assert_eq!(stack.database_lookups().await - before, 1.0, "{code}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn must_19_two_processes_ask_the_database_once_for_each_code() {
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
    stack.ready().await;
    let before = stack.database_lookups().await;
    for shortener in [0, 1, 0, 1] {
        for code in &codes {
            assert_eq!(stack.resolve_at(shortener, code).await.0, 302);
        }
    }
    assert_eq!(stack.database_lookups().await - before, 200.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn must_19_random_codes_neither_reach_postgresql_unbounded_nor_evict_hot_links() {
    let stack = Stack::builder()
        .env("LINNET__CACHE__L1_BYTES", 1024 * 1024)
        .env("LINNET__CACHE__L1_NEGATIVE_ENTRIES", 1_000)
        .start()
        .await;
    let client = stack.client().anonymous();
    let mut hot = Vec::new();
    for n in 0..50 {
        let body = json!({"original_url": format!("https://example.com/{n}")});
        let link = stack.client().shorten(&body).await;
        hot.push(link["short_code"].as_str().unwrap().to_owned());
    }
    for code in &hot {
        assert_eq!(client.resolve(code).await.0, 302);
    }
    stream::iter(0..20_000)
        .for_each_concurrent(64, |n| {
            let client = &client;
            async move { assert_eq!(client.resolve(&format!("random{n}")).await.0, 404) }
        })
        .await;
    let local = || async {
        stack.shortener_metrics(0).await.sum("linnet_cache_lookups", &[("tier", "local")])
    };
    let before = local().await;
    for code in &hot {
        assert_eq!(client.resolve(code).await.0, 302);
    }
    assert_eq!(local().await - before, 50.0, "every hot link is still in the local cache");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn must_19_one_client_that_draws_codes_stops_at_its_budget() {
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
    let asked = stack.database_lookups().await - before;
    assert!(asked < 400.0, "{asked} look-ups for 5,000 guesses by one client");
    within(Duration::from_secs(5), "the look-ups are over", || async {
        client.resolve("drawn0").await.0 != 503
    })
    .await;
}
