//! Redis with replicas and sentinels: no failover makes a process serve a stale response for longer than a second.

use std::time::{Duration, Instant};

use linnet_system_tests::{
    Load, Stack, client::get_unix, expected::metric, redis_proxy::Mode,
    stack::redis_group::command, within,
};
use serde_json::{Value, json};

/// Time within which every process serves a change.
const BOUND: Duration = Duration::from_secs(1);

pub(super) async fn create_links(stack: &Stack, count: usize) -> Vec<Value> {
    let mut links = Vec::new();
    for _ in 0..count {
        links.push(
            stack.client().shorten(&json!({"original_url": "https://example.com/old"})).await,
        );
    }
    // Fills L2 and L1 of both shorteners.
    for link in &links {
        for shortener in [0, 1, 0, 1] {
            assert_eq!(stack.resolve_at(shortener, code_of(link)).await.0, 302);
        }
    }
    links
}

pub(super) fn code_of(link: &Value) -> &str {
    link["short_code"].as_str().unwrap()
}

/// Edits a link, and returns the time of the acknowledgement.
pub(super) async fn edit(stack: &Stack, link: &Value, target: &str) -> Instant {
    let path = format!("/api/v1/urls/{}", link["id"]);
    let response = stack.client().patch(&path, &json!({ "original_url": target })).send().await;
    assert_eq!(response.status, 200, "{}", response.text());
    Instant::now()
}

/// Asserts that both shorteners serve the target within [`BOUND`], and nothing else afterwards.
pub(super) async fn assert_served(
    stack: &Stack,
    link: &Value,
    target: &str,
    changed: Instant,
    what: &str,
) {
    for shortener in [0, 1, 0, 1] {
        loop {
            let elapsed = changed.elapsed();
            let (status, location) = stack.resolve_at(shortener, code_of(link)).await;
            if (status, location.as_deref()) == (302, Some(target)) {
                break;
            }
            let response = format!("shortener {shortener}: {status} {location:?}, {elapsed:?}");
            assert!(elapsed < BOUND, "{what}: {response}");
        }
    }
}

pub(super) async fn wait_for_live_bus(stack: &Stack) {
    for shortener in 0..2 {
        within(Duration::from_secs(20), "a live invalidation bus", || async {
            stack.shortener_metrics(shortener).await.sum(metric::INVALIDATION_BUS_LIVE, &[]) > 0.0
        })
        .await;
    }
}

pub(super) async fn wait_for_empty_outbox(stack: &Stack) {
    let database = tokio::sync::Mutex::new(stack.database().await);
    within(Duration::from_secs(5), "every change to be published", || async {
        let rows = "SELECT count(*) FROM cache_invalidations";
        let mut database = database.lock().await;
        sqlx::query_scalar::<_, i64>(rows).fetch_one(&mut *database).await.unwrap() == 0
    })
    .await;
}

/// The entry of a link in L2.
async fn l2_entry(port: u16, link: &Value) -> Option<String> {
    let reply = command(port, &["GET", &format!("l:{}", code_of(link))]).await;
    reply.strip_prefix('$')?.lines().nth(1).map(ToOwned::to_owned)
}

/// Writes old entries into the replicas, as if they had not received the last writes of the master.
async fn undo_last_writes(ports: &[u16], entries: &[(&Value, String)]) {
    for port in ports {
        let accepted = async |words: &[&str]| {
            let reply = command(*port, words).await;
            assert!(reply.starts_with("+OK"), "{words:?}: {reply}");
        };
        accepted(&["CONFIG", "SET", "replica-read-only", "no"]).await;
        for (link, entry) in entries {
            let key = format!("l:{}", code_of(link));
            accepted(&["SET", &key, entry, "PX", "86400000"]).await;
        }
        accepted(&["CONFIG", "SET", "replica-read-only", "yes"]).await;
    }
}

/// Resolves these links at both shorteners until the load is finished.
pub(super) fn start_redirects(stack: &Stack, links: &[Value]) -> Load {
    let folder = stack.folder().to_owned();
    let codes: Vec<String> = links.iter().map(|link| format!("/{}", code_of(link))).collect();
    Load::start(4, move |number| {
        let socket = folder.join(format!("r{}", number % 2));
        let code = codes[number / 2 % codes.len()].clone();
        async move {
            let response = get_unix(&socket, &code).await;
            response.map_or("no response".to_owned(), |response| response.status.to_string())
        }
    })
}

#[tokio::test]
async fn must_07_replica_that_takes_over_without_the_last_writes_serves_no_stale_entry() {
    let mut stack = Stack::builder().shorteners(2).workers(1).sentinels().start().await;
    wait_for_live_bus(&stack).await;
    let links = create_links(&stack, 8).await;
    let (steady, edited) = links.split_at(4);
    let old = stack.redis_port();
    let mut entries = Vec::new();
    for link in edited {
        entries.push((link, l2_entry(old, link).await.expect("an entry in L2")));
    }
    for link in edited {
        let changed = edit(&stack, link, "https://example.com/new").await;
        assert_served(&stack, link, "https://example.com/new", changed, "before the failover")
            .await;
    }
    wait_for_empty_outbox(&stack).await;
    let replicas: Vec<u16> =
        stack.redis_group.as_ref().unwrap().replicas.iter().map(|(_, port)| *port).collect();
    undo_last_writes(&replicas, &entries).await;

    let redirects = start_redirects(&stack, steady);
    redirects.wait_for_requests(100).await;
    stack.redis.kill().await;
    let mut group = stack.redis_group.take().unwrap();
    let (mut new, mut edits) = (None, 0);
    {
        let mut failover = Box::pin(group.wait_for_other_master(old));
        while new.is_none() {
            let (link, target) = (&edited[0], format!("https://example.com/during/{edits}"));
            let changed = edit(&stack, link, &target).await;
            assert_served(&stack, link, &target, changed, "during the failover").await;
            edits += 1;
            if let std::task::Poll::Ready(port) = futures::poll!(&mut failover) {
                new = Some(port);
            }
        }
    }
    let new = new.unwrap();
    stack.redis_group = Some(group);
    wait_for_live_bus(&stack).await;
    let changed = edit(&stack, &edited[0], "https://example.com/new").await;
    for link in edited {
        assert_served(&stack, link, "https://example.com/new", changed, "after the failover").await;
    }
    let outcomes = redirects.finish().await;
    assert_eq!(outcomes.keys().collect::<Vec<_>>(), ["302"], "{outcomes:?}");
    assert!(edits > 0, "no edit during the failover");
    assert!(l2_entry(new, &edited[0]).await.is_some(), "the new master is not used");

    let ingested = async || stack.workers[0].metrics().await.sum(metric::CLICKS_INGESTED, &[]);
    let before = ingested().await;
    assert_eq!(stack.resolve_at(0, code_of(&links[0])).await.0, 302);
    within(Duration::from_secs(20), "a click to be ingested", || async {
        ingested().await > before
    })
    .await;
}

/// A master that a manual failover replaces accepts commands for eight more seconds. One shortener reaches it, but no
/// sentinel.
#[tokio::test]
async fn must_07_process_that_reaches_only_the_replaced_master_serves_no_stale_entry() {
    let mut stack = Stack::builder().shorteners(2).sentinels().proxied_redis().start().await;
    wait_for_live_bus(&stack).await;
    let links = create_links(&stack, 12).await;
    let old = stack.redis_port();
    let of_second = 3..6;
    for proxy in &stack.shortener_redis[of_second.clone()] {
        proxy.set(Mode::BlackHole);
    }
    let mut group = stack.redis_group.take().unwrap();
    let reply = command(group.sentinels[0].1, &["SENTINEL", "FAILOVER", "linnet"]).await;
    assert!(reply.starts_with("+OK"), "{reply}");
    let new = group.wait_for_other_master(old).await;
    stack.redis_group = Some(group);
    let failed_over = Instant::now();
    let mut replaced = 0;
    // The gateway sends changes to either shortener.
    for link in &links {
        let changed = edit(&stack, link, "https://example.com/new").await;
        // A slow machine may need longer for all links than the old master accepts commands.
        if command(old, &["ROLE"]).await.contains("master") {
            replaced += 1;
        }
        assert_served(&stack, link, "https://example.com/new", changed, "in a partition").await;
    }
    assert!(replaced > 0, "the old master ended too early: {:?}", failed_over.elapsed());
    for proxy in &stack.shortener_redis[of_second] {
        proxy.set(Mode::Pass);
    }
    wait_for_live_bus(&stack).await;
    let changed = failed_over;
    for link in &links {
        assert_served(&stack, link, "https://example.com/new", changed, "after the partition")
            .await;
        assert!(l2_entry(new, link).await.is_some(), "the new master is not used");
    }
}

#[tokio::test]
async fn links_and_changes_work_while_no_majority_of_sentinels_responds() {
    let mut stack = Stack::builder().shorteners(2).sentinels().start().await;
    wait_for_live_bus(&stack).await;
    let links = create_links(&stack, 2).await;
    for (sentinel, _) in &mut stack.redis_group.as_mut().unwrap().sentinels[..2] {
        sentinel.kill().await;
    }
    for shortener in 0..2 {
        within(Duration::from_secs(5), "a stale invalidation bus", || async {
            stack.shortener_metrics(shortener).await.sum(metric::INVALIDATION_BUS_LIVE, &[]) == 0.0
        })
        .await;
    }
    let changed = edit(&stack, &links[0], "https://example.com/new").await;
    assert_served(&stack, &links[0], "https://example.com/new", changed, "without sentinels").await;
    for (sentinel, _) in &mut stack.redis_group.as_mut().unwrap().sentinels[..2] {
        sentinel.start();
    }
    wait_for_live_bus(&stack).await;
    let changed = edit(&stack, &links[1], "https://example.com/new").await;
    assert_served(&stack, &links[1], "https://example.com/new", changed, "with sentinels").await;
}
