//! Every process serves a change within a second.
//!
//! The tests measure the second from the response to the change, which arrives shortly after the commit.

use std::time::{Duration, Instant};

use linnet_system_tests::{
    Client, Stack, expected::metric, raw, redis_proxy::Mode, services::local, within,
};
use serde_json::{Value, json};

/// Time within which every process serves a change.
const BOUND: Duration = Duration::from_secs(1);

/// The kinds of changes that make a cached link stale.
#[derive(Debug, Clone, Copy)]
enum ChangeKind {
    Edit,
    Deactivate,
    Delete,
    Limit,
}

const CHANGES: [ChangeKind; 4] =
    [ChangeKind::Edit, ChangeKind::Deactivate, ChangeKind::Delete, ChangeKind::Limit];

async fn create_link(stack: &Stack) -> Value {
    stack.client().shorten(&json!({"original_url": "https://example.com/old"})).await
}

fn code_of(link: &Value) -> String {
    link["short_code"].as_str().unwrap().to_owned()
}

/// Fills L2 and L1 of every process with the old link.
async fn warm_caches(stack: &Stack, code: &str) {
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
    let response = match kind {
        ChangeKind::Edit => {
            client.patch(&path, &json!({"original_url": "https://example.com/new"})).send().await
        }
        ChangeKind::Deactivate => client.patch(&path, &json!({"is_active": false})).send().await,
        ChangeKind::Delete => client.delete(&path).send().await,
        // The expiry is well within the bound.
        ChangeKind::Limit => {
            let soon = chrono::Utc::now() + chrono::Duration::milliseconds(300);
            client.patch(&path, &json!({ "expires_at": soon })).send().await
        }
    };
    assert!(response.status < 300, "{kind:?}: {} {}", response.status, response.text());
}

fn is_current(kind: ChangeKind, (status, location): &(u16, Option<String>)) -> bool {
    match kind {
        ChangeKind::Edit => location.as_deref() == Some("https://example.com/new"),
        ChangeKind::Deactivate | ChangeKind::Delete | ChangeKind::Limit => *status == 404,
    }
}

/// Asserts that every process serves the change within [`BOUND`], and no stale response later. Returns
/// the time of the change.
async fn assert_takes_effect_everywhere(
    stack: &Stack,
    code: &str,
    kind: ChangeKind,
    what: &str,
) -> Instant {
    let changed = Instant::now();
    for shortener in 0..stack.shorteners.len() {
        let left = BOUND.saturating_sub(changed.elapsed());
        let what = format!("{kind:?} at shortener {shortener} {what}");
        within(left, &what, || async {
            is_current(kind, &stack.resolve_at(shortener, code).await)
        })
        .await;
    }
    assert_no_stale_response(stack, code, kind, changed, what).await;
    changed
}

/// Asserts that no process serves a stale response later than [`BOUND`] after the change.
async fn assert_no_stale_response(
    stack: &Stack,
    code: &str,
    kind: ChangeKind,
    changed: Instant,
    what: &str,
) {
    for round in 0..20 {
        for shortener in 0..stack.shorteners.len() {
            let elapsed = changed.elapsed();
            let response = stack.resolve_at(shortener, code).await;
            let what = format!("{kind:?} {what}: {response:?} in round {round}, {elapsed:?}");
            assert!(is_current(kind, &response) || elapsed < BOUND, "{what}");
        }
    }
}

#[tokio::test]
async fn must_07_change_takes_effect_in_every_process() {
    let stack = Stack::builder().shorteners(2).start().await;
    for kind in CHANGES {
        let link = create_link(&stack).await;
        warm_caches(&stack, &code_of(&link)).await;
        change(&stack.client(), &link, kind).await;
        assert_takes_effect_everywhere(&stack, &code_of(&link), kind, "without faults").await;
    }
}

#[tokio::test]
async fn must_07_change_takes_effect_in_a_process_without_redis() {
    for mode in [Mode::BlackHole, Mode::Refuse] {
        let stack = Stack::builder().shorteners(2).proxied_redis().start().await;
        for kind in CHANGES {
            let link = create_link(&stack).await;
            let code = code_of(&link);
            warm_caches(&stack, &code).await;
            stack.shortener_redis[1].set(mode);
            change(&stack.client(), &link, kind).await;
            let what = format!("with one process cut off ({mode:?})");
            let changed = assert_takes_effect_everywhere(&stack, &code, kind, &what).await;
            stack.shortener_redis[1].set(Mode::Pass);
            // The subscription must be live before the next change.
            within(Duration::from_secs(10), "a live invalidation bus", || async {
                stack.shortener_metrics(1).await.sum(metric::INVALIDATION_BUS_LIVE, &[]) > 0.0
            })
            .await;
            assert_no_stale_response(&stack, &code, kind, changed, "after the cut").await;
        }
    }
}

#[tokio::test]
async fn must_07_change_made_by_a_process_without_redis_takes_effect_everywhere() {
    for mode in [Mode::BlackHole, Mode::Refuse] {
        let stack = Stack::builder().shorteners(2).proxied_redis().start().await;
        for kind in CHANGES {
            let link = create_link(&stack).await;
            warm_caches(&stack, &code_of(&link)).await;
            // The gateway sends the change to either shortener, so each is disconnected once.
            for cut in 0..2 {
                let link = create_link(&stack).await;
                let code = code_of(&link);
                warm_caches(&stack, &code).await;
                stack.shortener_redis[cut].set(mode);
                change(&stack.client(), &link, kind).await;
                let what = format!("with shortener {cut} cut off ({mode:?})");
                let changed = assert_takes_effect_everywhere(&stack, &code, kind, &what).await;
                stack.shortener_redis[cut].set(Mode::Pass);
                assert_no_stale_response(&stack, &code, kind, changed, "after the cut").await;
            }
        }
    }
}

#[tokio::test]
async fn must_07_resumed_redis_restores_no_stale_entry() {
    let mut stack = Stack::builder().shorteners(2).start().await;
    let mut links = Vec::new();
    for kind in CHANGES {
        let link = create_link(&stack).await;
        warm_caches(&stack, &code_of(&link)).await;
        links.push((link, kind));
    }
    // Redis is stopped, not killed, so that it keeps its stale entries.
    stack.redis.signal(linnet_system_tests::Signal::STOP);
    for (link, kind) in &links {
        change(&stack.client(), link, *kind).await;
    }
    let changed = Instant::now();
    for (link, kind) in &links {
        assert_takes_effect_everywhere(&stack, &code_of(link), *kind, "with Redis stopped").await;
    }
    stack.redis.signal(linnet_system_tests::Signal::CONT);
    for (link, kind) in &links {
        assert_no_stale_response(&stack, &code_of(link), *kind, changed, "with Redis resumed")
            .await;
    }
    // A restarted process fills its L1 from Redis and PostgreSQL.
    stack.shorteners[1].stop().await;
    stack.shorteners[1].start();
    stack.wait_until_ready().await;
    for (link, kind) in &links {
        assert_no_stale_response(&stack, &code_of(link), *kind, changed, "after a restart").await;
    }
}

/// After a power cut, a Redis with an append-only file lacks its last writes. It may have acknowledged them.
#[tokio::test]
async fn must_07_redis_that_restarts_without_its_last_writes_serves_no_stale_entry() {
    let mut stack =
        Stack::builder().shorteners(2).redis_env("LINNET_REDIS_APPENDONLY", "yes").start().await;
    let home = stack.folder().join("redis/home");
    let copy = |from: &str, to: &str| {
        let script = format!("rm -rf {to} && cp -a {from} {to}");
        let status =
            std::process::Command::new("sh").args(["-c", &script]).current_dir(&home).status();
        assert!(status.unwrap().success());
    };
    let mut links = Vec::new();
    for kind in CHANGES {
        let link = create_link(&stack).await;
        warm_caches(&stack, &code_of(&link)).await;
        links.push((link, kind));
    }
    copy("appendonlydir", "before");
    for (link, kind) in &links {
        change(&stack.client(), link, *kind).await;
    }
    let changed = Instant::now();
    for (link, kind) in &links {
        assert_takes_effect_everywhere(&stack, &code_of(link), *kind, "before the restart").await;
    }
    let database = tokio::sync::Mutex::new(stack.database().await);
    within(Duration::from_secs(5), "every change to be published", || async {
        let rows = "SELECT count(*) FROM cache_invalidations";
        let mut database = database.lock().await;
        sqlx::query_scalar::<_, i64>(rows).fetch_one(&mut *database).await.unwrap() == 0
    })
    .await;
    stack.redis.kill().await;
    copy("before", "appendonlydir");
    stack.start_redis().await;
    for shortener in 0..2 {
        within(Duration::from_secs(10), "a live invalidation bus", || async {
            stack.shortener_metrics(shortener).await.sum(metric::INVALIDATION_BUS_LIVE, &[]) > 0.0
        })
        .await;
    }
    for (link, kind) in &links {
        assert_no_stale_response(&stack, &code_of(link), *kind, changed, "after the restart").await;
    }
}

/// Redis responds but rejects writes when its memory is full, its disk fails or it is a replica.
#[tokio::test]
async fn must_07_redis_that_rejects_writes_serves_no_stale_entry() {
    let stack = Stack::builder().shorteners(2).start().await;
    let require_replicas = async |replicas: u8| {
        let command = format!("CONFIG SET min-replicas-to-write {replicas}\r\nQUIT\r\n");
        let response = raw::exchange(local(stack.redis_port()), command.as_bytes()).await;
        assert!(response.text.starts_with("+OK"), "{}", response.text);
    };
    for kind in CHANGES {
        let link = create_link(&stack).await;
        warm_caches(&stack, &code_of(&link)).await;
        require_replicas(1).await;
        change(&stack.client(), &link, kind).await;
        let what = "with a Redis that rejects writes";
        let changed = assert_takes_effect_everywhere(&stack, &code_of(&link), kind, what).await;
        require_replicas(0).await;
        assert_no_stale_response(
            &stack,
            &code_of(&link),
            kind,
            changed,
            "with Redis accepting writes",
        )
        .await;
    }
}

#[tokio::test]
async fn must_07_cache_fills_that_race_changes_restore_no_stale_entry() {
    let stack = Stack::builder().shorteners(2).start().await;
    for round in 0..15 {
        let link = create_link(&stack).await;
        let code = code_of(&link);
        // The caches are empty. The visits fill them while the link is deleted.
        let visits = (0..50).map(|n| stack.resolve_at(n % 2, &code));
        let path = format!("/api/v1/urls/{}", link["id"]);
        let client = stack.client();
        let (deleted, _) =
            tokio::join!(client.delete(&path).send(), futures::future::join_all(visits));
        assert_eq!(deleted.status, 204);
        assert_takes_effect_everywhere(
            &stack,
            &code,
            ChangeKind::Delete,
            &format!("in race {round}"),
        )
        .await;
    }
}

#[tokio::test]
async fn must_07_revoked_key_is_rejected_by_every_gateway() {
    let stack = Stack::builder().gateways(2).shorteners(2).proxied_redis().start().await;
    for cut in [None, Some(Mode::BlackHole), Some(Mode::Refuse)] {
        let (name, client) = (format!("revoked{cut:?}").replace(['(', ')'], ""), stack.client());
        let (user, theirs) = stack.create_user(&name, &["urls:read"]).await;
        // nginx alternates, so both gateways cache the key.
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
        // Eight requests reach both gateways.
        within(BOUND, &format!("401 from both gateways ({cut:?})"), || async {
            for _ in 0..8 {
                if theirs.get("/api/v1/urls").send().await.status != 401 {
                    return false;
                }
            }
            true
        })
        .await;
        assert!(revoked.elapsed() < Duration::from_secs(30), "the cached key may have expired");
        stack.gateway_redis[1].set(Mode::Pass);
    }
}
