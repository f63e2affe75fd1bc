//! Redis and PostgreSQL away.

use std::time::Duration;

use linnet_system_tests::{Load, Signal, Stack, Tally, stack::Postgres, within};
use serde_json::json;

async fn links(stack: &Stack, count: usize) -> Vec<String> {
    let mut codes = Vec::new();
    for n in 0..count {
        let body = json!({"original_url": format!("https://example.com/{n}")});
        codes.push(stack.client().shorten(&body).await["short_code"].as_str().unwrap().to_owned());
    }
    codes
}

/// Visits these codes in turn, through nginx.
fn visits(stack: &Stack, codes: &[String]) -> Load {
    let (client, codes) = (stack.client().anonymous(), codes.to_vec());
    Load::start(16, move |n| {
        let request = client.get(&format!("/{}", codes[n % codes.len()]));
        async move {
            match request.try_send().await {
                Ok(answer) => answer.status.to_string(),
                Err(error) => error,
            }
        }
    })
}

fn only(tally: &Tally, statuses: &[&str]) {
    assert!(tally.keys().all(|status| statuses.contains(&status.as_str())), "{tally:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn must_17_without_redis_links_resolve_from_postgresql() {
    let mut stack = Stack::builder().shorteners(2).start().await;
    let codes = links(&stack, 40).await;
    let load = visits(&stack, &codes);
    load.more(300).await;
    stack.redis.kill().await;
    load.more(1_000).await;
    let client = stack.client();
    // Beyond the caches, too.
    let new = links(&stack, 3).await;
    for code in &new {
        assert_eq!(client.resolve(code).await.0, 302, "made and resolved without Redis");
    }
    assert_eq!(client.resolve("never-made").await.0, 404);
    for shortener in &stack.shorteners {
        assert!(shortener.is_ready().await, "Redis is not needed: {}", shortener.name());
    }
    stack.start_redis().await;
    for number in 0..2 {
        within(Duration::from_secs(10), "Redis is used again", || async {
            stack.shortener_metrics(number).await.sum("linnet_invalidation_bus_live", &[]) == 1.0
        })
        .await;
    }
    load.more(300).await;
    only(&load.finish().await, &["302"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn must_17_a_redis_that_hangs_is_like_one_that_is_away() {
    let stack = Stack::builder().shorteners(2).start().await;
    let codes = links(&stack, 40).await;
    let mut stack = stack;
    let load = visits(&stack, &codes);
    load.more(300).await;
    stack.redis.signal(Signal::STOP);
    load.more(1_000).await;
    assert_eq!(stack.client().resolve("never-made").await.0, 404);
    let new = links(&stack, 1).await;
    assert_eq!(stack.client().resolve(&new[0]).await.0, 302);
    stack.redis.signal(Signal::CONT);
    load.more(300).await;
    only(&load.finish().await, &["302"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn must_17_without_postgresql_what_is_cached_resolves_and_a_true_miss_is_503() {
    let mut stack = Stack::builder().shorteners(2).postgres(Postgres::Own).start().await;
    let client = stack.client();
    let codes = links(&stack, 40).await;
    let uncached = links(&stack, 2).await;
    for shortener in 0..2 {
        for code in &codes {
            assert_eq!(stack.resolve_at(shortener, code).await.0, 302);
        }
    }
    // Not in Redis either: as if its day were over.
    let mut redis = RedisConnection::open(&stack).await;
    for code in &uncached {
        redis.command(&format!("DEL l:{code}")).await;
    }
    let load = visits(&stack, &codes);
    load.more(300).await;
    stack.kill_postgres().await;
    load.more(1_000).await;
    for code in uncached.iter().map(String::as_str).chain(["never-made"]) {
        let answer = client.get(&format!("/{code}")).send().await;
        assert_eq!(answer.status, 503, "a true miss is not a 404");
        assert!(answer.header("retry-after").is_some());
        assert!(answer.header("cache-control").unwrap().contains("no-store"));
    }
    load.more(300).await;
    only(&load.finish().await, &["302"]);
    // A process without a local cache has what Redis holds, once it has given up on the changes that
    // it would first have to hear of from PostgreSQL.
    stack.shorteners[0].stop().await;
    stack.shorteners[0].start();
    within(Duration::from_secs(10), "it serves from Redis", || async {
        stack.folder().join("r0").exists() && stack.resolve_at(0, &codes[0]).await.0 == 302
    })
    .await;
    let refused = client.post("/api/v1/urls", &json!({"original_url": "https://example.com/"}));
    let refused = refused.send().await;
    assert_eq!(refused.problem(503)["code"], "unavailable");
    assert!(refused.header("retry-after").is_some());

    stack.start_postgres().await;
    for code in &uncached {
        within(Duration::from_secs(10), "it recovers by itself", || async {
            client.resolve(code).await.0 == 302
        })
        .await;
    }
    within(Duration::from_secs(10), "the API recovers by itself", || async {
        let body = json!({"original_url": "https://example.com/again"});
        client.post("/api/v1/urls", &body).send().await.status == 201
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn must_17_a_postgresql_that_hangs_makes_nothing_else_hang() {
    let mut stack = Stack::builder().postgres(Postgres::Own).start().await;
    let codes = links(&stack, 20).await;
    for code in &codes {
        assert_eq!(stack.client().resolve(code).await.0, 302);
    }
    // The backends, which hold the connections, and not only the server that took them.
    let mut database = stack.database().await;
    let backends: Vec<i32> = sqlx::query_scalar(
        "SELECT pid FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND pid IS NOT NULL",
    )
    .fetch_all(&mut database)
    .await
    .unwrap();
    let signal = |signal: Signal| {
        for pid in &backends {
            // One may have ended.
            let _ = rustix::process::kill_process(
                rustix::process::Pid::from_raw(*pid).unwrap(),
                signal,
            );
        }
    };
    let load = visits(&stack, &codes);
    load.more(200).await;
    stack.postgres.as_mut().unwrap().signal(Signal::STOP);
    signal(Signal::STOP);
    let misses = (0..200).map(|n| {
        let client = stack.client();
        async move { client.resolve(&format!("missing{n}")).await.0 }
    });
    let statuses = futures::future::join_all(misses).await;
    assert!(statuses.iter().all(|status| *status == 503), "{statuses:?}");
    load.more(500).await;
    signal(Signal::CONT);
    stack.postgres.as_mut().unwrap().signal(Signal::CONT);
    within(Duration::from_secs(15), "it recovers by itself", || async {
        stack.client().resolve("never-made").await.0 == 404
    })
    .await;
    only(&load.finish().await, &["302"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn must_17_without_both_nothing_is_said_not_to_exist() {
    let mut stack = Stack::builder().shorteners(2).postgres(Postgres::Own).start().await;
    let codes = links(&stack, 20).await;
    let load = visits(&stack, &codes);
    load.more(200).await;
    stack.redis.kill().await;
    stack.kill_postgres().await;
    // Each miss waits for the database in vain.
    load.more(50).await;
    stack.start_postgres().await;
    stack.start_redis().await;
    for code in &codes {
        within(Duration::from_secs(15), "it recovers by itself", || async {
            stack.client().resolve(code).await.0 == 302
        })
        .await;
    }
    only(&load.finish().await, &["302", "503"]);
}

/// Redis's own protocol, for the one command that is needed.
struct RedisConnection(tokio::net::TcpStream);

impl RedisConnection {
    async fn open(stack: &Stack) -> Self {
        Self(tokio::net::TcpStream::connect(("127.0.0.1", stack.redis_port())).await.unwrap())
    }

    /// Sends a command of plain words and returns the answer's first line.
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
