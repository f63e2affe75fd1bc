//! Quotas of rows: links, events and idempotency keys of one user.

use http::Method;
use linnet_system_tests::{Client, Response, Stack, eventually};
use serde_json::{Value, json};
use std::time::Duration;

const SCOPES: &[&str] = &["urls:read", "urls:write", "jobs:write"];
const URLS: &str = "/api/v1/urls";
const EVENTS: &str = "/api/v1/events";

async fn count_rows(stack: &Stack) {
    let (code, output, error) = stack.cli(&["admin", "run-task", "row-quotas"]).await;
    assert_eq!(code, 0, "{output}{error}");
}

/// Asserts that the response names the quota.
fn assert_refused(response: &Response, code: &str) {
    let problem = response.problem(409);
    assert_eq!(problem["code"], code, "{problem}");
    assert_eq!(response.problem_fields(), ["user_id"]);
}

/// Imports a file and returns the finished job.
async fn import(client: &Client, path: &str, content_type: &str, rows: &str) -> Value {
    let response =
        client.request(Method::POST, path).body(content_type, rows.to_owned()).send().await;
    assert_eq!(response.status, 202, "{}", response.text());
    let path = format!("/api/v1/jobs/{}", response.json()["job"]["id"]);
    eventually(Duration::from_secs(20), "the job ends", || async {
        let job = client.get(&path).send().await.json();
        (job["state"] == "succeeded").then_some(job)
    })
    .await
}

#[tokio::test]
// Long because each step uses up a quota that the next one needs.
async fn must_26_user_at_its_quota_of_rows_creates_no_more_and_affects_no_other_user() {
    let stack = Stack::builder()
        .workers(1)
        .env("LINNET__LINKS__PER_USER", 3)
        .env("LINNET__LINKS__EVENTS_PER_USER", 6)
        .env("LINNET__SHORTENER__IDEMPOTENCY_KEYS_PER_USER", 2)
        .start()
        .await;
    let admin = stack.client();
    let (id, full) = stack.create_user("full", SCOPES).await;
    let (_, other) = stack.create_user("other", SCOPES).await;
    let new = |n: u32| json!({"original_url": format!("https://example.com/{n}")});
    let first = full.shorten(&new(1)).await;
    for (n, key) in [(2, "a"), (3, "b")] {
        let created = full.post(URLS, &new(n)).header("idempotency-key", key).send().await;
        assert_eq!(created.status, 201, "{}", created.text());
    }
    count_rows(&stack).await;

    // Every way to create a link, but not to find one.
    let mut chosen = new(4);
    chosen["short_code"] = json!("chosen");
    let mut reuse = new(4);
    reuse["reuse"] = json!(true);
    for body in [&new(4), &chosen, &reuse] {
        assert_refused(&full.post(URLS, body).send().await, "too_many_links");
    }
    reuse["original_url"] = json!("https://example.com/1");
    assert_eq!(full.post(URLS, &reuse).send().await.json()["id"], first["id"]);
    let mut named = new(4);
    named["user_id"] = json!(id);
    assert_refused(&admin.post(URLS, &named).send().await, "too_many_links");
    let concurrent = (0..20).map(|n| full.post(URLS, &new(n)).send());
    for refused in futures::future::join_all(concurrent).await {
        assert_refused(&refused, "too_many_links");
    }
    let rows = "original_url\nhttps://example.com/5\nhttps://example.com/6\n";
    let job = import(&full, "/api/v1/urls/bulk", "text/csv", rows).await;
    assert_eq!((&job["rows_written"], &job["rows_failed"]), (&json!(0), &json!(2)), "{job}");
    let rows =
        format!("original_url,user_id\nhttps://example.com/5,{id}\nhttps://example.com/6,\n");
    let job = import(&admin, "/api/v1/urls/bulk", "text/csv", &rows).await;
    assert_eq!((&job["rows_written"], &job["rows_failed"]), (&json!(1), &json!(1)), "{job}");

    // A new idempotency key is refused, a known one replays, and a request without one counts against the next quota.
    let path = format!("{URLS}/{}", first["id"]);
    let event = json!({"url_id": first["id"], "event_type": "x"});
    let keyed = full.post(EVENTS, &event).header("idempotency-key", "c").send().await;
    assert_eq!(keyed.problem(409)["code"], "too_many_idempotency_keys");
    let replayed = full.post(URLS, &new(2)).header("idempotency-key", "a").send().await;
    assert_eq!(replayed.status, 201, "{}", replayed.text());
    for _ in 0..2 {
        assert_eq!(full.post(EVENTS, &event).send().await.status, 201);
    }
    assert_eq!(full.patch(&path, &json!({"title": "t"})).send().await.status, 200);
    count_rows(&stack).await;
    assert_refused(&full.post(EVENTS, &event).send().await, "too_many_events");
    assert_refused(&full.patch(&path, &json!({"title": "u"})).send().await, "too_many_events");
    let bulk = json!({"ids": [first["id"]], "change": {"title": "u"}});
    assert_refused(
        &full.request(Method::PATCH, "/api/v1/urls/bulk").json(&bulk).send().await,
        "too_many_events",
    );

    // Others are not affected, and the user can still visit and delete.
    assert_eq!(other.post(URLS, &new(1)).header("idempotency-key", "c").send().await.status, 201);
    assert_eq!(admin.patch(&path, &json!({"title": "by admin"})).send().await.status, 200);
    assert_eq!(full.delete(&path).send().await.status, 204);
    // The command line may exceed the quotas.
    let file = stack.folder().join("more.csv");
    std::fs::write(&file, format!("original_url,user_id\nhttps://example.com/7,{id}\n")).unwrap();
    let (code, output, error) =
        stack.cli(&["admin", "import", "--urls", file.to_str().unwrap()]).await;
    assert_eq!(code, 0, "{output}{error}");
}
