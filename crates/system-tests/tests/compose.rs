//! Tests a running installation through its public port.
//!
//! * `make test-compose` runs these tests against the containers.
//! * `LINNET_TEST_PORT` is the port on 127.0.0.1, and `LINNET_TEST_KEY` is an administrator's API key.
//! * The tests share the installation, so each creates its own links and users.

use std::time::Duration;

use linnet_system_tests::{
    Client, EventStream, client::Method, eventually, services::local, within,
};
use serde_json::{Value, json};

/// Longest wait for asynchronous work.
const TIMEOUT: Duration = Duration::from_secs(30);
/// Time within which every process serves a change.
const BOUND: Duration = Duration::from_secs(1);

fn key() -> String {
    std::env::var("LINNET_TEST_KEY").expect("LINNET_TEST_KEY")
}

fn client() -> Client {
    let port = std::env::var("LINNET_TEST_PORT").expect("LINNET_TEST_PORT");
    Client::new(local(port.parse().expect("a port"))).with_key(&key())
}

/// A code or name that is unique over all tests and runs.
fn unique(prefix: &str) -> String {
    format!("{prefix}{:08x}", rand::random::<u32>())
}

/// Creates a link and returns its code and its path in the API.
async fn create_link(client: &Client, target: &str) -> (String, String) {
    let code = unique("c");
    let made = client.shorten(&json!({"original_url": target, "short_code": code})).await;
    (code, format!("/api/v1/urls/{}", made["id"]))
}

#[tokio::test]
#[ignore = "needs the containers of `make test-compose`"]
async fn every_shortener_serves_an_edit_and_a_deletion_within_a_second() {
    let client = client();
    let (code, path) = create_link(&client, "https://example.com/old").await;
    let old = Some("https://example.com/old".to_owned());
    // Enough visits that every shortener caches the link.
    for _ in 0..60 {
        assert_eq!(client.resolve(&code).await, (302, old.clone()));
    }
    let changed = client.patch(&path, &json!({"original_url": "https://example.com/new"}));
    assert_eq!(changed.send().await.status, 200);
    tokio::time::sleep(BOUND).await;
    for _ in 0..60 {
        let new = Some("https://example.com/new".to_owned());
        assert_eq!(client.resolve(&code).await, (302, new));
    }
    assert_eq!(client.delete(&path).send().await.status, 204);
    tokio::time::sleep(BOUND).await;
    // Few requests, because the tests share one budget of misses.
    for _ in 0..10 {
        assert_eq!(client.resolve(&code).await.0, 404);
    }
}

#[tokio::test]
#[ignore = "needs the containers of `make test-compose`"]
async fn max_clicks_is_exact_over_all_shorteners() {
    let client = client();
    let code = unique("m");
    let body =
        json!({"original_url": "https://example.com/", "short_code": code, "max_clicks": 20});
    client.shorten(&body).await;
    let visits = (0..30).map(|_| {
        let (client, code) = (client.clone(), code.clone());
        tokio::spawn(async move { client.resolve(&code).await.0 })
    });
    let mut redirected = 0;
    for status in futures::future::join_all(visits).await {
        match status.unwrap() {
            302 => redirected += 1,
            status => assert_eq!(status, 404),
        }
    }
    assert_eq!(redirected, 20);
}

#[tokio::test]
#[ignore = "needs the containers of `make test-compose`"]
async fn each_click_is_counted_once() {
    let client = client();
    let (code, path) = create_link(&client, "https://example.com/").await;
    for _ in 0..50 {
        assert_eq!(client.resolve(&code).await.0, 302);
    }
    let clicks = || async { client.get(&path).send().await.json()["clicks"].as_i64() };
    within(TIMEOUT, "fifty clicks", || async { clicks().await == Some(50) }).await;
    let stats = client.get(&format!("{path}/stats")).send().await;
    assert_eq!(stats.status, 200, "{}", stats.text());
    assert_eq!(clicks().await, Some(50));
}

#[tokio::test]
#[ignore = "needs the containers of `make test-compose`"]
async fn import_reports_progress_and_its_links_can_be_exported() {
    let client = client();
    let prefix = unique("i");
    let mut csv = "short_code,original_url\n".to_owned();
    for n in 0..2_000 {
        csv.push_str(&format!("{prefix}-{n},https://example.com/{prefix}/{n}\n"));
    }
    csv.push_str(&format!("{prefix}-bad,javascript:1\n"));
    let response = client.request(Method::POST, "/api/v1/urls/bulk").body("text/csv", csv);
    let response = response.send().await;
    assert_eq!(response.status, 202, "{}", response.text());
    let id = response.json()["job"]["id"].as_i64().unwrap();
    let path = format!("/api/v1/jobs/{id}");
    let mut events = EventStream::open(&client, &key(), &format!("{path}/events"), None).await;
    let mut event_names = Vec::new();
    loop {
        let event = events.event().await;
        event_names.push(event.name.clone());
        if event.name == "done" {
            assert_eq!(
                (&event.data["state"], &event.data["rows_written"], &event.data["rows_failed"]),
                (&json!("succeeded"), &json!(2_000), &json!(1)),
            );
            break;
        }
    }
    assert!(event_names.contains(&"row_error".to_owned()), "{event_names:?}");
    assert_eq!(client.resolve(&format!("{prefix}-1999")).await.0, 302);
    let export = client.get(&format!("/api/v1/urls/export?format=ndjson&search={prefix}-1999"));
    let export = export.send().await;
    assert_eq!((export.status, export.text().lines().count()), (200, 1));
}

#[tokio::test]
#[ignore = "needs the containers of `make test-compose`"]
async fn import_that_prefers_to_wait_responds_when_the_job_ends() {
    let client = client();
    let code = unique("w");
    let rows = json!([{"short_code": code, "original_url": "https://example.com/"}]);
    let waited = client.post("/api/v1/urls/bulk", &rows).header("prefer", "wait=30").send().await;
    assert_eq!((waited.status, &waited.json()["count"]), (200, &json!(1)), "{}", waited.text());
}

#[tokio::test]
#[ignore = "needs the containers of `make test-compose`"]
async fn key_reaches_only_its_users_links_and_is_revoked_within_a_second() {
    let admin = client();
    let name = unique("u");
    let user = admin
        .post("/api/v1/users", &json!({"username": name, "email": format!("{name}@example.test")}));
    let user = user.send().await.json();
    let body =
        json!({"name": "test", "scopes": ["urls:read", "urls:write"], "user_id": user["id"]});
    let made = admin.post("/api/v1/api-keys", &body).send().await.json();
    let own = admin.with_key(made["key"].as_str().unwrap());
    let (_, path) = create_link(&admin, "https://example.com/").await;
    own.get(&path).send().await.problem(404);
    own.get("/api/v1/users").send().await.problem(403);
    // Identity headers from outside are ignored.
    let spoofed = own.get(&path).header("x-linnet-user-id", "1").header("x-linnet-scopes", "admin");
    spoofed.send().await.problem(404);
    assert_eq!(own.get("/api/v1/urls").send().await.json(), json!([]));
    let id = made["id"].as_str().expect("a key's id");
    let revoked = admin.delete(&format!("/api/v1/api-keys/{id}"));
    assert_eq!(revoked.send().await.status, 204);
    tokio::time::sleep(BOUND).await;
    for _ in 0..10 {
        own.get("/api/v1/urls").send().await.problem(401);
    }
}

#[tokio::test]
#[ignore = "needs the containers of `make test-compose`"]
async fn internal_paths_are_unreachable_from_outside() {
    let client = client();
    for path in [
        "/metrics",
        "/livez",
        "/readyz",
        "/internal/v1/health",
        "/internal/v1/keys/lookup",
        "/stub_status",
        "/api/v1/../../internal/v1/health",
        "/%69nternal/v1/health",
    ] {
        let response = client.get(path).send().await;
        assert!(matches!(response.status, 400 | 404), "{path}: {}", response.status);
    }
    let trace = client.request(Method::TRACE, "/").send().await;
    assert_eq!(trace.status, 405);
}

#[tokio::test]
#[ignore = "needs the containers of `make test-compose`"]
async fn invalid_input_is_a_problem_that_names_the_field() {
    let client = client();
    for (body, field) in [
        (json!({"original_url": "javascript:alert(1)"}), "original_url"),
        (json!({"original_url": "https://example.com/", "short_code": "api"}), "short_code"),
        (json!({"original_url": "https://example.com/", "what": 1}), "what"),
    ] {
        let problem = client.post("/api/v1/urls", &body).send().await.problem(422);
        let fields: Vec<&Value> =
            problem["errors"].as_array().unwrap().iter().map(|error| &error["field"]).collect();
        assert_eq!(fields, [&json!(field)], "{problem}");
    }
    client.anonymous().get("/api/v1/urls").send().await.problem(401);
    client.get("/api/v1/nothing-here").send().await.problem(404);
}

#[tokio::test]
#[ignore = "needs the containers of `make test-compose`"]
async fn landing_page_documentation_and_openapi_document_are_served() {
    let client = client().anonymous();
    for (path, kind) in
        [("/", "text/html"), ("/docs/", "text/html"), ("/openapi.json", "application/json")]
    {
        let response =
            eventually(TIMEOUT, path, || async { client.get(path).try_send().await.ok() });
        let response = response.await;
        assert_eq!(response.status, 200, "{path}");
        assert!(response.header("content-type").is_some_and(|is| is.starts_with(kind)), "{path}");
    }
    // The page at /docs loads this script, which is embedded in the gateway.
    let bundle = client.get("/docs/swagger-ui-bundle.js").send().await;
    assert!(bundle.body.len() > 1_000_000, "{} bytes", bundle.body.len());
}
