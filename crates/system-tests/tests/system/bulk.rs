//! Changing and deleting many links with one request.

use std::time::Duration;

use http::Method;
use linnet_system_tests::{Client, Response, Stack, within};
use serde_json::{Value, json};

const SCOPES: &[&str] = &["urls:read", "urls:write"];
const PATH: &str = "/api/v1/urls/bulk";
/// Time within which every process serves a change.
const BOUND: Duration = Duration::from_secs(1);

async fn change(client: &Client, body: &Value) -> Response {
    client.patch(PATH, body).send().await
}

async fn delete(client: &Client, body: &Value) -> Response {
    client.request(Method::DELETE, PATH).json(body).send().await
}

/// Asserts the number of changed links and the status of each.
fn assert_results(response: &Response, count: usize, results: &[(&Value, u16)]) {
    assert_eq!(response.status, 200, "{}", response.text());
    let results: Vec<_> =
        results.iter().map(|(id, status)| json!({"id": id, "status": status})).collect();
    assert_eq!(response.json(), json!({"count": count, "results": results}));
}

#[tokio::test]
async fn must_16_bulk_changes_and_deletions_apply_only_to_the_callers_links() {
    let stack = Stack::start().await;
    let (_, mine) = stack.create_user("mine", SCOPES).await;
    let (_, other) = stack.create_user("other", SCOPES).await;
    let body = json!({"original_url": "https://example.com/old"});
    let (a, b) = (mine.shorten(&body).await, mine.shorten(&body).await);
    let theirs = other.shorten(&body).await;
    let path = |link: &Value| format!("/api/v1/urls/{}", link["id"]);
    let absent = json!(i64::MAX);

    let ids = json!([b["id"], theirs["id"], absent, a["id"]]);
    let patch =
        json!({"original_url": "HTTPS://Example.com/new", "title": "Both", "max_clicks": 7});
    let response = change(&mine, &json!({"ids": ids, "change": patch})).await;
    assert_results(
        &response,
        2,
        &[(&b["id"], 200), (&theirs["id"], 404), (&absent, 404), (&a["id"], 200)],
    );
    for link in [&a, &b] {
        let now = mine.get(&path(link)).send().await.json();
        assert_eq!(now["original_url"], "https://example.com/new", "normalized");
        assert_eq!((&now["title"], &now["max_clicks"]), (&json!("Both"), &json!(7)));
        let events = mine.get(&format!("/api/v1/events?url_id={}", link["id"])).send().await.json();
        let last = events.as_array().unwrap().last().unwrap();
        assert_eq!(last["event_type"], "updated");
        assert_eq!(last["details"]["title"], "Both");
    }
    assert_eq!(other.get(&path(&theirs)).send().await.json(), theirs);

    // An empty change modifies nothing, but returns a status for each id.
    let before = mine.get(&path(&a)).send().await.json();
    let response = change(&mine, &json!({"ids": ids, "change": {}})).await;
    assert_results(
        &response,
        2,
        &[(&b["id"], 200), (&theirs["id"], 404), (&absent, 404), (&a["id"], 200)],
    );
    assert_eq!(mine.get(&path(&a)).send().await.json(), before);

    let response = delete(&mine, &json!({"ids": [theirs["id"], a["id"]]})).await;
    assert_results(&response, 1, &[(&theirs["id"], 404), (&a["id"], 204)]);
    mine.get(&path(&a)).send().await.problem(404);
    assert_eq!(mine.get(&path(&b)).send().await.status, 200);
    assert_eq!(other.get(&path(&theirs)).send().await.json(), theirs);
    // An administrator can delete every user's links.
    let response = delete(&stack.client(), &json!({"ids": [theirs["id"], b["id"]]})).await;
    assert_results(&response, 2, &[(&theirs["id"], 204), (&b["id"], 204)]);
    let (_, reader) = stack.create_user("reader", &["urls:read"]).await;
    change(&reader, &json!({"ids": [1], "change": {}})).await.problem(403);
    delete(&reader, &json!({"ids": [1]})).await.problem(403);
}

#[tokio::test]
async fn must_07_bulk_changes_take_effect_in_every_process() {
    let stack = Stack::builder().shorteners(2).start().await;
    let client = stack.client();
    let mut codes = Vec::new();
    let mut ids = Vec::new();
    for _ in 0..50 {
        let link = client.shorten(&json!({"original_url": "https://example.com/old"})).await;
        codes.push(link["short_code"].as_str().unwrap().to_owned());
        ids.push(link["id"].clone());
    }
    let all_resolve_to = async |wanted: (u16, Option<&str>)| {
        for shortener in 0..2 {
            for code in &codes {
                let (status, location) = stack.resolve_at(shortener, code).await;
                if (status, location.as_deref()) != wanted {
                    return false;
                }
            }
        }
        true
    };
    // The second round comes from the caches.
    assert!(all_resolve_to((302, Some("https://example.com/old"))).await);
    assert!(all_resolve_to((302, Some("https://example.com/old"))).await);

    let patch = json!({"original_url": "https://example.com/new"});
    let response = change(&client, &json!({"ids": ids, "change": patch})).await;
    assert_eq!(response.json()["count"], 50, "{}", response.text());
    within(BOUND, "the new target everywhere", || {
        all_resolve_to((302, Some("https://example.com/new")))
    })
    .await;
    assert_eq!(delete(&client, &json!({"ids": ids})).await.json()["count"], 50);
    within(BOUND, "404 everywhere", || all_resolve_to((404, None))).await;
}

#[tokio::test]
async fn invalid_fields_of_bulk_requests_are_named() {
    let stack = Stack::start().await;
    let client = stack.client();
    let link = client.shorten(&json!({"original_url": "https://example.com/"})).await;
    let id = &link["id"];
    let many: Vec<i64> = (1..=1_001).collect();
    for (ids, what) in [
        (json!([id, id]), "twice"),
        (json!([]), "none"),
        (json!(many), "1,001"),
        (json!(id), "no array"),
        (json!([id, 0]), "zero"),
        (json!([id, "1"]), "text"),
    ] {
        let response = change(&client, &json!({"ids": ids, "change": {"title": "x"}})).await;
        response.problem(422);
        assert_eq!(response.problem_fields(), ["ids"], "{what}");
        let response = delete(&client, &json!({"ids": ids})).await;
        response.problem(422);
        assert_eq!(response.problem_fields(), ["ids"], "{what}");
    }
    let bad = json!({"title": 7, "short_code": "abc", "is_active": null});
    let response = change(&client, &json!({"change": bad, "no_such": 1})).await;
    response.problem(422);
    let mut fields = response.problem_fields();
    fields.sort_unstable();
    let wanted = ["change.is_active", "change.short_code", "change.title", "ids", "no_such"];
    assert_eq!(fields, wanted);
    let response = delete(&client, &json!({"ids": [id], "change": {}})).await;
    response.problem(422);
    assert_eq!(response.problem_fields(), ["change"]);
    let path = format!("/api/v1/urls/{id}");
    assert_eq!(client.get(&path).send().await.json(), link, "rejected requests change nothing");
    // The largest number of ids.
    let response = change(&client, &json!({"ids": many[..1_000], "change": {"title": "x"}})).await;
    assert_eq!(response.json()["results"].as_array().unwrap().len(), 1_000, "{}", response.text());
}
