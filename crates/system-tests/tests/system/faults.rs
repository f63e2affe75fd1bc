//! Redirects while Redis and PostgreSQL are down or hang.

use std::time::Duration;

use linnet_system_tests::{
    Load, OutcomeCounts, Signal, Stack, expected::metric, stack::Postgres, within,
};
use serde_json::json;

/// Creates links and returns their codes.
async fn create_links(stack: &Stack, count: usize) -> Vec<String> {
    let mut codes = Vec::new();
    for n in 0..count {
        let body = json!({"original_url": format!("https://example.com/{n}")});
        codes.push(stack.client().shorten(&body).await["short_code"].as_str().unwrap().to_owned());
    }
    codes
}

/// Visits these codes in turn through nginx, in the background.
fn start_visits(stack: &Stack, codes: &[String]) -> Load {
    let (client, codes) = (stack.client().anonymous(), codes.to_vec());
    Load::start(16, move |n| {
        let request = client.get(&format!("/{}", codes[n % codes.len()]));
        async move {
            match request.try_send().await {
                Ok(response) => response.status.to_string(),
                Err(error) => error,
            }
        }
    })
}

/// Asserts that no request had another outcome.
fn assert_only(counts: &OutcomeCounts, statuses: &[&str]) {
    assert!(counts.keys().all(|status| statuses.contains(&status.as_str())), "{counts:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn must_17_links_resolve_from_postgresql_without_redis() {
    let mut stack = Stack::builder().shorteners(2).start().await;
    let codes = create_links(&stack, 40).await;
    let load = start_visits(&stack, &codes);
    load.wait_for_requests(300).await;
    stack.redis.kill().await;
    load.wait_for_requests(1_000).await;
    let client = stack.client();
    // Links that are not cached resolve too.
    let new = create_links(&stack, 3).await;
    for code in &new {
        assert_eq!(client.resolve(code).await.0, 302, "created and resolved without Redis");
    }
    assert_eq!(client.resolve("never-made").await.0, 404);
    for shortener in &stack.shorteners {
        assert!(shortener.is_ready().await, "not ready without Redis: {}", shortener.name());
    }
    stack.start_redis().await;
    for number in 0..2 {
        within(Duration::from_secs(10), "a live invalidation bus", || async {
            stack.shortener_metrics(number).await.sum(metric::INVALIDATION_BUS_LIVE, &[]) == 1.0
        })
        .await;
    }
    load.wait_for_requests(300).await;
    assert_only(&load.finish().await, &["302"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn must_17_links_resolve_while_redis_hangs() {
    let stack = Stack::builder().shorteners(2).start().await;
    let codes = create_links(&stack, 40).await;
    let mut stack = stack;
    let load = start_visits(&stack, &codes);
    load.wait_for_requests(300).await;
    stack.redis.signal(Signal::STOP);
    load.wait_for_requests(1_000).await;
    assert_eq!(stack.client().resolve("never-made").await.0, 404);
    let new = create_links(&stack, 1).await;
    assert_eq!(stack.client().resolve(&new[0]).await.0, 302);
    stack.redis.signal(Signal::CONT);
    load.wait_for_requests(300).await;
    assert_only(&load.finish().await, &["302"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn must_17_cached_links_resolve_without_postgresql_and_misses_get_503() {
    let mut stack = Stack::builder().shorteners(2).postgres(Postgres::Own).start().await;
    let client = stack.client();
    let codes = create_links(&stack, 40).await;
    let uncached = create_links(&stack, 2).await;
    for shortener in 0..2 {
        for code in &codes {
            assert_eq!(stack.resolve_at(shortener, code).await.0, 302);
        }
    }
    // The entries are also removed from L2, as if they had expired.
    let mut redis = RedisConnection::open(&stack).await;
    for code in &uncached {
        redis.command(&format!("DEL l:{code}")).await;
    }
    let load = start_visits(&stack, &codes);
    load.wait_for_requests(300).await;
    stack.kill_postgres().await;
    load.wait_for_requests(1_000).await;
    for code in uncached.iter().map(String::as_str).chain(["never-made"]) {
        let response = client.get(&format!("/{code}")).send().await;
        assert_eq!(response.status, 503, "a link that is not cached");
        assert!(response.header("retry-after").is_some());
        assert!(response.header("cache-control").unwrap().contains("no-store"));
    }
    load.wait_for_requests(300).await;
    assert_only(&load.finish().await, &["302"]);
    // A restarted process reads L2, once it has given up waiting for the outbox in PostgreSQL.
    stack.shorteners[0].stop().await;
    stack.shorteners[0].start();
    within(Duration::from_secs(10), "a redirect from L2", || async {
        stack.folder().join("r0").exists() && stack.resolve_at(0, &codes[0]).await.0 == 302
    })
    .await;
    let rejected = client.post("/api/v1/urls", &json!({"original_url": "https://example.com/"}));
    let rejected = rejected.send().await;
    assert_eq!(rejected.problem(503)["code"], "unavailable");
    assert!(rejected.header("retry-after").is_some());

    stack.start_postgres().await;
    for code in &uncached {
        within(Duration::from_secs(10), "responses from PostgreSQL again", || async {
            client.resolve(code).await.0 == 302
        })
        .await;
    }
    within(Duration::from_secs(10), "201 from the API", || async {
        let body = json!({"original_url": "https://example.com/again"});
        client.post("/api/v1/urls", &body).send().await.status == 201
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn must_17_hung_postgresql_delays_no_cached_redirect() {
    let mut stack = Stack::builder().postgres(Postgres::Own).start().await;
    let codes = create_links(&stack, 20).await;
    for code in &codes {
        assert_eq!(stack.client().resolve(code).await.0, 302);
    }
    // The backends serve the connections; the postmaster only accepts them.
    let mut database = stack.database().await;
    let backends: Vec<i32> = sqlx::query_scalar(
        "SELECT pid FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND pid IS NOT NULL",
    )
    .fetch_all(&mut database)
    .await
    .unwrap();
    let signal = |signal: Signal| {
        for pid in &backends {
            // An error means that the backend has ended.
            let _ = rustix::process::kill_process(
                rustix::process::Pid::from_raw(*pid).unwrap(),
                signal,
            );
        }
    };
    let load = start_visits(&stack, &codes);
    load.wait_for_requests(200).await;
    stack.postgres.as_mut().unwrap().signal(Signal::STOP);
    signal(Signal::STOP);
    let misses = (0..200).map(|n| {
        let client = stack.client();
        async move { client.resolve(&format!("missing{n}")).await.0 }
    });
    let statuses = futures::future::join_all(misses).await;
    assert!(statuses.iter().all(|status| *status == 503), "{statuses:?}");
    load.wait_for_requests(500).await;
    signal(Signal::CONT);
    stack.postgres.as_mut().unwrap().signal(Signal::CONT);
    within(Duration::from_secs(15), "responses from PostgreSQL again", || async {
        stack.client().resolve("never-made").await.0 == 404
    })
    .await;
    assert_only(&load.finish().await, &["302"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn must_17_no_link_gets_404_without_redis_and_postgresql() {
    let mut stack = Stack::builder().shorteners(2).postgres(Postgres::Own).start().await;
    let codes = create_links(&stack, 20).await;
    let load = start_visits(&stack, &codes);
    load.wait_for_requests(200).await;
    stack.redis.kill().await;
    stack.kill_postgres().await;
    // Few requests, because each miss waits until its database timeout.
    load.wait_for_requests(50).await;
    stack.start_postgres().await;
    stack.start_redis().await;
    for code in &codes {
        within(Duration::from_secs(15), "responses from PostgreSQL again", || async {
            stack.client().resolve(code).await.0 == 302
        })
        .await;
    }
    assert_only(&load.finish().await, &["302", "503"]);
}

/// A connection that sends inline commands of the Redis protocol.
struct RedisConnection(tokio::net::TcpStream);

impl RedisConnection {
    async fn open(stack: &Stack) -> Self {
        Self(tokio::net::TcpStream::connect(("127.0.0.1", stack.redis_port())).await.unwrap())
    }

    /// Sends an inline command and returns the first line of the reply.
    async fn command(&mut self, words: &str) -> String {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        self.0.write_all(format!("{words}\r\n").as_bytes()).await.unwrap();
        let mut line = Vec::new();
        while !line.ends_with(b"\r\n") {
            line.push(self.0.read_u8().await.unwrap());
        }
        let line = String::from_utf8(line).unwrap();
        assert!(!line.starts_with('-'), "{words}: {line}");
        line
    }
}
