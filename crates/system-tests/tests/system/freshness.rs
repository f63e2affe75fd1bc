//! Every process serves the new answer within a second of a change.
//!
//! The bound is counted from the answer to the change, which is later than the commit; so a second
//! here is stricter for the product than the promise only by what the answer's way back takes.

use std::time::{Duration, Instant};

use linnet_system_tests::{Client, Stack, raw, redis_proxy::Mode, services::local, within};
use serde_json::{Value, json};

const BOUND: Duration = Duration::from_secs(1);

/// The ways in which an answer can become untrue.
#[derive(Debug, Clone, Copy)]
enum ChangeKind {
    Edit,
    Deactivate,
    Delete,
    Limit,
}

const CHANGES: [ChangeKind; 4] =
    [ChangeKind::Edit, ChangeKind::Deactivate, ChangeKind::Delete, ChangeKind::Limit];

async fn link(stack: &Stack) -> Value {
    stack.client().shorten(&json!({"original_url": "https://example.com/old"})).await
}

fn code(link: &Value) -> String {
    link["short_code"].as_str().unwrap().to_owned()
}

/// Warms L1 of both processes and L2, so that all hold the old answer.
async fn warm(stack: &Stack, code: &str) {
    for _ in 0..2 {
        for shortener in 0..stack.shorteners.len() {
            let (status, location) = stack.resolve_at(shortener, code).await;
            assert_eq!((status, location.as_deref()), (302, Some("https://example.com/old")));
        }
    }
}

/// Makes the change through the API.
async fn change(client: &Client, link: &Value, kind: ChangeKind) {
    let path = format!("/api/v1/urls/{}", link["id"]);
    let answer = match kind {
        ChangeKind::Edit => {
            client.patch(&path, &json!({"original_url": "https://example.com/new"})).send().await
        }
        ChangeKind::Deactivate => client.patch(&path, &json!({"is_active": false})).send().await,
        ChangeKind::Delete => client.delete(&path).send().await,
        // An end in the past.
        ChangeKind::Limit => {
            client.patch(&path, &json!({"expires_at": "2020-01-01T00:00:00Z"})).send().await
        }
    };
    assert!(answer.status < 300, "{kind:?}: {} {}", answer.status, answer.text());
}

fn is_new(kind: ChangeKind, (status, location): &(u16, Option<String>)) -> bool {
    match kind {
        ChangeKind::Edit => location.as_deref() == Some("https://example.com/new"),
        ChangeKind::Deactivate | ChangeKind::Delete | ChangeKind::Limit => *status == 404,
    }
}

/// Every process serves the new answer within the bound, and no old one after it. Returns when the
/// change was.
async fn seen_everywhere(stack: &Stack, code: &str, kind: ChangeKind, what: &str) -> Instant {
    let changed = Instant::now();
    for shortener in 0..stack.shorteners.len() {
        let left = BOUND.saturating_sub(changed.elapsed());
        let what = format!("{kind:?} at shortener {shortener} {what}");
        within(left, &what, || async { is_new(kind, &stack.resolve_at(shortener, code).await) })
            .await;
    }
    stays_new(stack, code, kind, changed, what).await;
    changed
}

/// No process serves the old answer when the change's second is over, whatever has come back since.
async fn stays_new(stack: &Stack, code: &str, kind: ChangeKind, changed: Instant, what: &str) {
    for round in 0..20 {
        for shortener in 0..stack.shorteners.len() {
            let asked_after = changed.elapsed();
            let answer = stack.resolve_at(shortener, code).await;
            let what = format!("{kind:?} {what}: {answer:?} again, round {round}, {asked_after:?}");
            assert!(is_new(kind, &answer) || asked_after < BOUND, "{what}");
        }
    }
}

#[tokio::test]
async fn must_07_a_change_is_seen_by_every_process() {
    let stack = Stack::builder().shorteners(2).start().await;
    for kind in CHANGES {
        let link = link(&stack).await;
        warm(&stack, &code(&link)).await;
        change(&stack.client(), &link, kind).await;
        seen_everywhere(&stack, &code(&link), kind, "with all well").await;
    }
}

#[tokio::test]
async fn must_07_a_change_is_seen_by_a_process_that_is_cut_off() {
    for mode in [Mode::BlackHole, Mode::Refuse] {
        let stack = Stack::builder().shorteners(2).proxied_redis().start().await;
        for kind in CHANGES {
            let link = link(&stack).await;
            let code = code(&link);
            warm(&stack, &code).await;
            stack.shortener_redis[1].set(mode);
            change(&stack.client(), &link, kind).await;
            let what = format!("with one process cut off ({mode:?})");
            let changed = seen_everywhere(&stack, &code, kind, &what).await;
            stack.shortener_redis[1].set(Mode::Pass);
            // It listens again before the next round.
            within(Duration::from_secs(10), "the feed is back", || async {
                stack.shortener_metrics(1).await.sum("linnet_invalidation_bus_live", &[]) > 0.0
            })
            .await;
            stays_new(&stack, &code, kind, changed, "after the cut").await;
        }
    }
}

#[tokio::test]
async fn must_07_a_change_is_seen_when_its_maker_is_cut_off() {
    // One gateway and one shortener behind it make the change; the other only resolves.
    for mode in [Mode::BlackHole, Mode::Refuse] {
        let stack = Stack::builder().shorteners(2).proxied_redis().start().await;
        for kind in CHANGES {
            let link = link(&stack).await;
            warm(&stack, &code(&link)).await;
            // Whichever of the two makes it: the API goes around, so both are tried in turn.
            for cut in 0..2 {
                let link = self::link(&stack).await;
                let code = code(&link);
                warm(&stack, &code).await;
                stack.shortener_redis[cut].set(mode);
                change(&stack.client(), &link, kind).await;
                let what = format!("with shortener {cut} cut off ({mode:?})");
                let changed = seen_everywhere(&stack, &code, kind, &what).await;
                stack.shortener_redis[cut].set(Mode::Pass);
                stays_new(&stack, &code, kind, changed, "after the cut").await;
            }
        }
    }
}

#[tokio::test]
async fn must_07_redis_that_was_away_brings_nothing_old_back() {
    let mut stack = Stack::builder().shorteners(2).start().await;
    let mut links = Vec::new();
    for kind in CHANGES {
        let link = link(&stack).await;
        warm(&stack, &code(&link)).await;
        links.push((link, kind));
    }
    // Stopped, not killed: what it holds is there when it goes on.
    stack.redis.signal(linnet_system_tests::Signal::STOP);
    for (link, kind) in &links {
        change(&stack.client(), link, *kind).await;
    }
    let changed = Instant::now();
    for (link, kind) in &links {
        seen_everywhere(&stack, &code(link), *kind, "with Redis away").await;
    }
    stack.redis.signal(linnet_system_tests::Signal::CONT);
    for (link, kind) in &links {
        stays_new(&stack, &code(link), *kind, changed, "with Redis back").await;
    }
    // A process that starts now knows only what PostgreSQL and Redis hold.
    stack.shorteners[1].stop().await;
    stack.shorteners[1].start();
    stack.ready().await;
    for (link, kind) in &links {
        stays_new(&stack, &code(link), *kind, changed, "after a restart").await;
    }
}

/// A server that answers and refuses writes: memory full, a failing disk, a replica after a failover.
#[tokio::test]
async fn must_07_redis_that_refuses_writes_serves_nothing_old() {
    let stack = Stack::builder().shorteners(2).start().await;
    let set = async |replicas: u8| {
        let command = format!("CONFIG SET min-replicas-to-write {replicas}\r\nQUIT\r\n");
        let answer = raw::exchange(local(stack.redis_port()), command.as_bytes()).await;
        assert!(answer.text.starts_with("+OK"), "{}", answer.text);
    };
    for kind in CHANGES {
        let link = link(&stack).await;
        warm(&stack, &code(&link)).await;
        set(1).await;
        change(&stack.client(), &link, kind).await;
        let what = "with a Redis that refuses writes";
        let changed = seen_everywhere(&stack, &code(&link), kind, what).await;
        set(0).await;
        stays_new(&stack, &code(&link), kind, changed, "with Redis writing again").await;
    }
}

#[tokio::test]
async fn must_07_fills_that_race_changes_bring_nothing_back() {
    let stack = Stack::builder().shorteners(2).start().await;
    for round in 0..15 {
        let link = link(&stack).await;
        let code = code(&link);
        // Nothing is cached: the visits below fill the caches while the link goes away.
        let visits = (0..50).map(|n| stack.resolve_at(n % 2, &code));
        let path = format!("/api/v1/urls/{}", link["id"]);
        let client = stack.client();
        let (gone, _) =
            tokio::join!(client.delete(&path).send(), futures::future::join_all(visits));
        assert_eq!(gone.status, 204);
        seen_everywhere(&stack, &code, ChangeKind::Delete, &format!("in race {round}")).await;
    }
}

#[tokio::test]
async fn must_07_a_revoked_key_stops_everywhere() {
    let stack = Stack::builder().gateways(2).shorteners(2).proxied_redis().start().await;
    for cut in [None, Some(Mode::BlackHole), Some(Mode::Refuse)] {
        let (name, client) = (format!("revoked{cut:?}").replace(['(', ')'], ""), stack.client());
        let (user, theirs) = stack.user(&name, &["urls:read"]).await;
        // Both gateways know the key: nginx goes around.
        for _ in 0..8 {
            assert_eq!(theirs.get("/api/v1/urls").send().await.status, 200);
        }
        if let Some(mode) = cut {
            stack.gateway_redis[1].set(mode);
        }
        let keys = client.get(&format!("/api/v1/api-keys?user_id={user}")).send().await.json();
        let path = format!("/api/v1/api-keys/{}", keys[0]["id"].as_str().unwrap());
        assert_eq!(client.delete(&path).send().await.status, 204);
        let revoked = Instant::now();
        // Eight in a row reach both gateways.
        within(BOUND, &format!("the key is refused everywhere ({cut:?})"), || async {
            for _ in 0..8 {
                if theirs.get("/api/v1/urls").send().await.status != 401 {
                    return false;
                }
            }
            true
        })
        .await;
        assert!(revoked.elapsed() < Duration::from_secs(30), "or the cache has run out by itself");
        stack.gateway_redis[1].set(Mode::Pass);
    }
}
