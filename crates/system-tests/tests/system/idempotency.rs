//! `Idempotency-Key`: replayed responses, mismatches and concurrent requests.

use futures::future::join_all;
use linnet_system_tests::Stack;
use serde_json::json;

#[tokio::test]
async fn repeated_key_replays_the_first_response() {
    let stack = Stack::start().await;
    let client = stack.client();
    let body = json!({"original_url": "https://example.com/"});
    let post = |key: &str| client.post("/api/v1/urls", &body).header("idempotency-key", key);
    let first = post("k-1").send().await;
    assert_eq!(first.status, 201);
    assert_eq!(first.header("idempotency-replayed"), None);
    let again = post("k-1").send().await;
    assert_eq!(again.status, 201);
    assert_eq!(again.body, first.body);
    assert_eq!(again.header("location"), first.header("location"));
    assert_eq!(again.header("idempotency-replayed"), Some("true"));
    assert_ne!(post("k-2").send().await.json()["id"], first.json()["id"]);

    let other_body = json!({"original_url": "https://example.com/other"});
    let mismatch =
        client.post("/api/v1/urls", &other_body).header("idempotency-key", "k-1").send().await;
    mismatch.problem(422);
    assert_eq!(mismatch.problem_fields(), ["Idempotency-Key"]);

    // A quoted key is the same key, and the query is a part of the request.
    let quoted = post("\"k-1\"").send().await;
    assert_eq!((quoted.status, &quoted.body), (201, &first.body));
    let elsewhere = client.post("/api/v1/urls?a=b", &body).header("idempotency-key", "k-1");
    elsewhere.send().await.problem(422);

    // Each user has their own keys.
    let (_, other) = stack.create_user("other", &["urls:write"]).await;
    let theirs = other.post("/api/v1/urls", &body).header("idempotency-key", "k-1").send().await;
    assert_eq!(theirs.status, 201);
    assert_ne!(theirs.json()["id"], first.json()["id"]);

    // A rejected request does not use up the key.
    let bad = json!({"original_url": "nowhere"});
    let rejected = client.post("/api/v1/urls", &bad).header("idempotency-key", "k-3").send().await;
    assert_eq!(rejected.status, 422);
    assert_eq!(post("k-3").send().await.status, 201);
    let long = "x".repeat(256);
    let too_long = post(&long).send().await;
    too_long.problem(422);
    assert_eq!(too_long.problem_fields(), ["Idempotency-Key"]);
}

#[tokio::test]
async fn twenty_concurrent_requests_with_one_key_create_one_link() {
    let stack = Stack::builder().shorteners(2).start().await;
    let client = stack.client();
    let body = json!({"original_url": "https://example.com/"});
    let post = || client.post("/api/v1/urls", &body).header("idempotency-key", "the-same").send();
    let responses = join_all((0..20).map(|_| post())).await;
    for response in &responses {
        assert_eq!(response.status, 201, "{}", response.text());
        assert_eq!(response.body, responses[0].body);
    }
    let links = client.get("/api/v1/urls").send().await.json();
    assert_eq!(links.as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn repeated_upload_waits_for_the_job_of_the_first() {
    let stack = Stack::builder().workers(1).start().await;
    let client = stack.client();
    let rows = json!([{"original_url": "https://example.com/1"}, {"original_url": "nowhere"}]);
    let post = |key: &str| client.post("/api/v1/urls/bulk", &rows).header("idempotency-key", key);
    // The first request waits or does not, and so does each repetition.
    for (key, first_waits) in [("waits", true), ("returns", false)] {
        let wait = |waits: bool| {
            let request = post(key);
            if waits { request.header("prefer", "wait=30") } else { request }
        };
        let first = wait(first_waits).send().await;
        assert_eq!(first.status, if first_waits { 200 } else { 202 }, "{}", first.text());
        let repeated = wait(true).send().await;
        assert_eq!(repeated.status, 200, "{key}: {}", repeated.text());
        assert_eq!(repeated.header("preference-applied"), Some("wait=30"));
        assert_eq!(repeated.header("idempotency-replayed"), Some("true"));
        assert_eq!(repeated.header("location"), first.header("location"));
        let job = repeated.json();
        assert_eq!((&job["count"], &job["job"]["id"]), (&json!(1), &first.json()["job"]["id"]));
        assert_eq!(job["job"]["state"], "succeeded");
        let stored = wait(false).send().await;
        assert_eq!((stored.status, stored.header("preference-applied")), (202, None), "{key}");
        assert_eq!(stored.header("idempotency-replayed"), Some("true"));
    }
    let jobs = client.get("/api/v1/jobs").send().await.json();
    assert_eq!(jobs.as_array().unwrap().len(), 2);
    // A deleted job has no present state.
    let job = jobs[0]["id"].as_i64().unwrap();
    assert_eq!(client.delete(&format!("/api/v1/jobs/{job}")).send().await.status, 204);
    let key = if jobs[0]["id"].as_i64() < jobs[1]["id"].as_i64() { "waits" } else { "returns" };
    assert_eq!(post(key).header("prefer", "wait=30").send().await.status, 202);
}

#[tokio::test]
async fn users_and_events_accept_idempotency_keys() {
    let stack = Stack::start().await;
    let client = stack.client();
    let link = client.shorten(&json!({"original_url": "https://example.com/"})).await;
    for (path, body) in [
        ("/api/v1/users", json!({"username": "a", "email": "a@example.test"})),
        ("/api/v1/events", json!({"url_id": link["id"], "event_type": "x"})),
    ] {
        let post = || client.post(path, &body).header("idempotency-key", path).send();
        let (first, again) = (post().await, post().await);
        assert_eq!((first.status, again.status), (201, 201), "{path}");
        assert_eq!(first.body, again.body);
    }
}
