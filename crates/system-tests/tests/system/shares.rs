//! Each user's share of streams, uploads, exports and keys. Long responses end with the key or user that authorized
//! them.

use std::time::{Duration, Instant};

use chrono::{SecondsFormat, Utc};
use linnet_system_tests::{Client, EventStream, Stack, client::read_head, within};
use serde_json::{Value, json};
use sqlx::Connection as _;
use tokio::{io::AsyncWriteExt as _, net::TcpStream, task::JoinSet};

const SCOPES: &[&str] = &["urls:read", "urls:write", "users:read", "users:write", "jobs:write"];
/// Time within which a long response ends after its key or user.
const WITHIN: Duration = Duration::from_secs(1);
const ROWS: &str = "original_url\nhttps://example.com/1\n";

/// A user with a client, and the client's key.
struct User {
    id: i64,
    client: Client,
    key: String,
}

async fn user(stack: &Stack, name: &str) -> User {
    let (id, client) = stack.create_user(name, SCOPES).await;
    let made = new_key(&client, &json!({})).await;
    let key = made["key"].as_str().unwrap().to_owned();
    User { id, client: client.with_key(&key), key }
}

async fn new_key(client: &Client, more: &Value) -> Value {
    let mut body = json!({"name": "more", "scopes": SCOPES});
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let response = client.post("/api/v1/api-keys", &body).send().await;
    assert_eq!(response.status, 201, "{}", response.text());
    response.json()
}

async fn live_path(client: &Client) -> String {
    let link = client.shorten(&json!({"original_url": "https://example.com/"})).await;
    format!("/api/v1/urls/{}/live", link["id"])
}

async fn job_events_path(client: &Client) -> String {
    let job = client.request(http::Method::POST, "/api/v1/urls/bulk").body("text/csv", ROWS);
    let job = job.send().await;
    assert_eq!(job.status, 202, "{}", job.text());
    format!("/api/v1/jobs/{}/events", job.json()["job"]["id"])
}

fn assert_share_is_used_up(response: &linnet_system_tests::Response) {
    assert_eq!(response.problem(429)["code"], "too_many_concurrent");
    assert!(response.header("retry-after").is_some());
}

/// Begins an upload and leaves it unfinished.
async fn begin_upload(stack: &Stack, key: &str) -> TcpStream {
    let mut stream = TcpStream::connect(stack.client().address()).await.unwrap();
    let head = format!(
        "POST /api/v1/urls/bulk HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {key}\r\n\
         Content-Type: text/csv\r\nContent-Length: 1000\r\n\r\noriginal_url\n"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    stream
}

#[tokio::test]
async fn must_26_user_at_its_share_of_event_streams_affects_no_other_user() {
    let stack = Stack::builder()
        .env("LINNET__SHORTENER__LIVE_STREAMS_PER_USER", 2)
        .env("LINNET__SHORTENER__JOB_STREAMS_PER_USER", 2)
        .start()
        .await;
    let (one, two) = (user(&stack, "one").await, user(&stack, "two").await);
    for is_live in [true, false] {
        let mut paths = Vec::new();
        for user in [&one, &two] {
            paths.push(if is_live {
                live_path(&user.client).await
            } else {
                job_events_path(&user.client).await
            });
        }
        let mut open = Vec::new();
        for _ in 0..2 {
            open.push(EventStream::open(&one.client, &one.key, &paths[0], None).await);
        }
        assert_share_is_used_up(&one.client.get(&paths[0]).send().await);
        // Another key of the user has the same share.
        let other_key = new_key(&one.client, &json!({})).await;
        let other_key = one.client.with_key(other_key["key"].as_str().unwrap());
        assert_share_is_used_up(&other_key.get(&paths[0]).send().await);
        EventStream::open(&two.client, &two.key, &paths[1], None).await;
        drop(open);
        within(Duration::from_secs(10), "a closed stream to give its slot back", || async {
            EventStream::try_open(&one.client, &one.key, &paths[0], None).await.is_ok()
        })
        .await;
    }
}

#[tokio::test]
async fn must_26_user_whose_requests_fill_the_database_affects_no_other_user() {
    let stack = Stack::builder()
        .env("LINNET__POSTGRES__LOCK_TIMEOUT_MS", 1_000)
        .env("LINNET__POSTGRES__ACQUIRE_TIMEOUT_MS", 1_000)
        .start()
        .await;
    let (one, two) = (user(&stack, "one").await, user(&stack, "two").await);
    let target = json!({"original_url": "https://example.com/"});
    let link = one.client.shorten(&target).await;
    let path = format!("/api/v1/urls/{}", link["id"]);
    let mut database = stack.database().await;
    let mut lock = database.begin().await.unwrap();
    sqlx::raw_sql("SELECT FROM urls FOR UPDATE").execute(&mut *lock).await.unwrap();
    // Each of these holds a connection until PostgreSQL's lock timeout.
    let mut waiting = JoinSet::new();
    for _ in 0..60 {
        let (client, path, target) = (one.client.clone(), path.clone(), target.clone());
        waiting.spawn(async move { client.patch(&path, &target).send().await });
    }
    for _ in 0..20 {
        assert_eq!(two.client.get("/api/v1/urls").send().await.status, 200);
        let custom = json!({"original_url": "https://example.com/", "reuse": true});
        let made = two.client.post("/api/v1/urls", &custom).send().await;
        assert_eq!(made.status, 201, "{}", made.text());
        assert_eq!(two.client.delete(made.header("location").unwrap()).send().await.status, 204);
    }
    let mut refused = 0;
    while let Some(response) = waiting.join_next().await {
        let response = response.unwrap();
        if response.status == 429 {
            assert_share_is_used_up(&response);
            refused += 1;
        } else {
            assert_eq!(response.problem(409)["code"], "locked");
        }
    }
    assert!(refused > 0);
}

#[tokio::test]
async fn must_26_user_at_its_share_of_uploads_affects_no_other_user() {
    let stack = Stack::builder().env("LINNET__JOBS__UPLOADS_PER_USER", 2).start().await;
    let (one, two) = (user(&stack, "one").await, user(&stack, "two").await);
    let held = [begin_upload(&stack, &one.key).await, begin_upload(&stack, &one.key).await];
    let upload = |client: &Client| {
        client.request(http::Method::POST, "/api/v1/urls/bulk").body("text/csv", ROWS).send()
    };
    // Until both uploads hold a slot, another request could take it.
    within(Duration::from_secs(10), "the uploads to begin", || async {
        let held = [("kind", "uploads")];
        stack.shortener_metrics(0).await.sum("linnet_slots_held", &held) >= 2.0
    })
    .await;
    assert_share_is_used_up(&upload(&one.client).await);
    assert_eq!(upload(&two.client).await.status, 202);
    let metrics = stack.gateways[0].metrics().await;
    let labels = [("reason", "too_many_concurrent")];
    assert!(metrics.sum("linnet_gateway_limited_total", &labels) >= 1.0);
    let metrics = stack.shortener_metrics(0).await;
    let labels = [("kind", "uploads"), ("limit", "user")];
    assert!(metrics.sum("linnet_slots_refused_total", &labels) >= 1.0);
    drop(held);
    within(Duration::from_secs(10), "the slots to be given back", || async {
        upload(&one.client).await.status == 202
    })
    .await;
}

#[tokio::test]
async fn must_26_user_at_its_share_of_exports_affects_no_other_user() {
    let stack = Stack::start().await;
    let (one, two) = (user(&stack, "one").await, user(&stack, "two").await);
    // An export waits for the lock and holds its slot.
    let mut database = stack.database().await;
    let mut lock = database.begin().await.unwrap();
    sqlx::query("LOCK TABLE urls IN ACCESS EXCLUSIVE MODE").execute(&mut *lock).await.unwrap();
    let export = |client: &Client| client.get("/api/v1/urls/export").send();
    let first = tokio::spawn(export(&one.client));
    let second = tokio::spawn({
        let client = two.client.clone();
        async move {
            tokio::time::sleep(Duration::from_secs(1)).await;
            client.get("/api/v1/urls/export").send().await
        }
    });
    within(Duration::from_secs(10), "the export to begin", || async {
        let metrics = stack.shortener_metrics(0).await;
        metrics.sum("linnet_slots_held", &[("kind", "exports")]) >= 1.0
    })
    .await;
    assert_share_is_used_up(&export(&one.client).await);
    tokio::time::sleep(Duration::from_secs(1)).await;
    lock.rollback().await.unwrap();
    assert_eq!(first.await.unwrap().status, 200);
    assert_eq!(second.await.unwrap().status, 200, "another user's export");
}

#[tokio::test]
async fn must_26_keys_of_a_user_are_bounded() {
    let stack = Stack::builder().env("LINNET__SHORTENER__KEYS_PER_USER", 4).start().await;
    let one = user(&stack, "one").await;
    new_key(&one.client, &json!({})).await;
    let last = new_key(&one.client, &json!({})).await;
    let body = json!({"name": "more", "scopes": SCOPES});
    let refused = one.client.post("/api/v1/api-keys", &body).send().await.problem(409);
    assert_eq!(refused["code"], "too_many_keys");
    assert!(refused["detail"].as_str().unwrap().contains("4 API keys"), "{refused}");
    let last = format!("/api/v1/api-keys/{}", last["id"].as_str().unwrap());
    assert_eq!(one.client.delete(&last).send().await.status, 204);
    new_key(&one.client, &json!({})).await;
}

#[tokio::test]
async fn must_16_key_that_a_key_creates_ends_with_it() {
    let stack = Stack::builder().gateways(2).start().await;
    let one = user(&stack, "one").await;
    let text = |at: chrono::DateTime<Utc>| at.to_rfc3339_opts(SecondsFormat::Millis, true);
    let limit = Utc::now() + Duration::from_mins(1);
    let short = new_key(&one.client, &json!({"expires_at": text(limit)})).await;
    let short_client = one.client.with_key(short["key"].as_str().unwrap());
    let child = new_key(&short_client, &json!({})).await;
    assert_eq!(child["expires_at"], short["expires_at"], "no later than its maker");
    let sooner = text(limit - Duration::from_secs(30));
    new_key(&short_client, &json!({"expires_at": sooner})).await;
    for (client, at) in [
        (&short_client, limit + Duration::from_secs(1)),
        (&one.client, Utc::now() - Duration::from_secs(1)),
    ] {
        let body = json!({"name": "x", "scopes": SCOPES, "expires_at": text(at)});
        let refused = client.post("/api/v1/api-keys", &body).send().await;
        refused.problem(422);
        assert_eq!(refused.problem_fields(), ["expires_at"]);
    }
    let child_client = one.client.with_key(child["key"].as_str().unwrap());
    let grandchild = new_key(&child_client, &json!({})).await;
    let grandchild = one.client.with_key(grandchild["key"].as_str().unwrap());
    for client in [&child_client, &grandchild] {
        assert_eq!(client.get("/api/v1/urls").send().await.status, 200);
    }
    let path = format!("/api/v1/api-keys/{}", short["id"].as_str().unwrap());
    assert_eq!(one.client.delete(&path).send().await.status, 204);
    for client in [&short_client, &child_client, &grandchild] {
        within(WITHIN, "the key to be rejected", || async {
            client.get("/api/v1/urls").send().await.status == 401
        })
        .await;
    }
    assert_eq!(one.client.get("/api/v1/urls").send().await.status, 200);
}

/// The event that ends a user's long responses.
#[derive(Debug, Clone, Copy)]
enum End {
    KeyRevoked,
    MakerRevoked,
    UserDeleted,
}

#[tokio::test]
async fn must_27_streams_end_when_the_key_or_its_user_ends() {
    let stack = Stack::builder().shorteners(2).gateways(2).start().await;
    let client = stack.client();
    for end in [End::KeyRevoked, End::MakerRevoked, End::UserDeleted] {
        let one = user(&stack, &format!("{end:?}")).await;
        let made = new_key(&one.client, &json!({})).await;
        let key = made["key"].as_str().unwrap();
        let own = one.client.with_key(key);
        let mut streams = Vec::new();
        for path in [live_path(&own).await, job_events_path(&own).await] {
            for _ in 0..2 {
                streams.push(EventStream::open(&own, key, &path, None).await);
            }
        }
        let mut upload = begin_upload(&stack, key).await;
        tokio::time::sleep(Duration::from_millis(200)).await;
        let began = Instant::now();
        let path = match end {
            End::KeyRevoked => format!("/api/v1/api-keys/{}", made["id"].as_str().unwrap()),
            End::MakerRevoked => format!("/api/v1/api-keys/{}", &one.key[4..12]),
            End::UserDeleted => format!("/api/v1/users/{}", one.id),
        };
        assert_eq!(client.delete(&path).send().await.status, 204, "{end:?}");
        for stream in &mut streams {
            while stream.try_event().await.is_some() {}
        }
        let head = read_head(&mut upload).await;
        assert!(head.starts_with("HTTP/1.1 401"), "{end:?}: {head}");
        assert!(began.elapsed() < WITHIN, "{end:?}: {:?}", began.elapsed());
        assert_eq!(own.get("/api/v1/urls").send().await.status, 401);
    }
}
