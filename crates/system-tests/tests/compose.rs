//! What a running installation promises, seen through its public port alone: `make test-compose` runs it
//! against the containers, with `LINNET_TEST_PORT` (on 127.0.0.1) and `LINNET_TEST_KEY` (an
//! administrator's). Each test makes what it looks at, so that they share the installation.

use std::time::Duration;

use linnet_system_tests::{
    Client, EventStream, client::Method, eventually, services::local, within,
};
use serde_json::{Value, json};

const SOON: Duration = Duration::from_secs(30);
/// After which every process has seen a change.
const BOUND: Duration = Duration::from_secs(1);

fn key() -> String {
    std::env::var("LINNET_TEST_KEY").expect("LINNET_TEST_KEY")
}

fn client() -> Client {
    let port = std::env::var("LINNET_TEST_PORT").expect("LINNET_TEST_PORT");
    Client::new(local(port.parse().expect("a port"))).with_key(&key())
}

/// A code or name that no other test, and no earlier run, has.
fn unique(prefix: &str) -> String {
    format!("{prefix}{:08x}", rand::random::<u32>())
}

async fn link(client: &Client, target: &str) -> (String, String) {
    let code = unique("c");
    let made = client.shorten(&json!({"original_url": target, "short_code": code})).await;
    (code, format!("/api/v1/urls/{}", made["id"]))
}

#[tokio::test]
#[ignore = "needs the containers of `make test-compose`"]
async fn a_link_is_made_changed_and_deleted_and_every_shortener_follows_within_a_second() {
    let client = client();
    let (code, path) = link(&client, "https://example.com/old").await;
    let old = Some("https://example.com/old".to_owned());
    // Of several shorteners each has it in its memory by now.
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
    // Codes that are not there are a budget of each client, which the tests share.
    for _ in 0..10 {
        assert_eq!(client.resolve(&code).await.0, 404);
    }
}

#[tokio::test]
#[ignore = "needs the containers of `make test-compose`"]
async fn the_last_click_is_the_last_over_all_shorteners() {
    let client = client();
    let code = unique("m");
    let body =
        json!({"original_url": "https://example.com/", "short_code": code, "max_clicks": 20});
    client.shorten(&body).await;
    let asked = (0..30).map(|_| {
        let (client, code) = (client.clone(), code.clone());
        tokio::spawn(async move { client.resolve(&code).await.0 })
    });
    let mut redirected = 0;
    for status in futures::future::join_all(asked).await {
        match status.unwrap() {
            302 => redirected += 1,
            status => assert_eq!(status, 404),
        }
    }
    assert_eq!(redirected, 20);
}

#[tokio::test]
#[ignore = "needs the containers of `make test-compose`"]
async fn clicks_are_counted_each_once() {
    let client = client();
    let (code, path) = link(&client, "https://example.com/").await;
    for _ in 0..50 {
        assert_eq!(client.resolve(&code).await.0, 302);
    }
    let clicks = || async { client.get(&path).send().await.json()["clicks"].as_i64() };
    within(SOON, "fifty clicks", || async { clicks().await == Some(50) }).await;
    let stats = client.get(&format!("{path}/stats")).send().await;
    assert_eq!(stats.status, 200, "{}", stats.text());
    assert_eq!(clicks().await, Some(50));
}

#[tokio::test]
#[ignore = "needs the containers of `make test-compose`"]
async fn an_import_runs_is_watched_and_comes_out_again() {
    let client = client();
    let prefix = unique("i");
    let mut csv = "short_code,original_url\n".to_owned();
    for n in 0..2_000 {
        csv.push_str(&format!("{prefix}-{n},https://example.com/{prefix}/{n}\n"));
    }
    csv.push_str(&format!("{prefix}-bad,javascript:1\n"));
    let answer = client.request(Method::POST, "/api/v1/urls/bulk").body("text/csv", csv);
    let answer = answer.send().await;
    assert_eq!(answer.status, 202, "{}", answer.text());
    let id = answer.json()["job"]["id"].as_i64().unwrap();
    let path = format!("/api/v1/jobs/{id}");
    let mut events = EventStream::open(&client, &key(), &format!("{path}/events"), None).await;
    let mut seen = Vec::new();
    loop {
        let event = events.event().await;
        seen.push(event.name.clone());
        if event.name == "done" {
            assert_eq!(
                (&event.data["state"], &event.data["rows_written"], &event.data["rows_failed"]),
                (&json!("succeeded"), &json!(2_000), &json!(1)),
            );
            break;
        }
    }
    assert!(seen.contains(&"row_error".to_owned()), "{seen:?}");
    assert_eq!(client.resolve(&format!("{prefix}-1999")).await.0, 302);
    let export = client.get(&format!("/api/v1/urls/export?format=ndjson&search={prefix}-1999"));
    let export = export.send().await;
    assert_eq!((export.status, export.text().lines().count()), (200, 1));
}

#[tokio::test]
#[ignore = "needs the containers of `make test-compose`"]
async fn a_waiting_import_is_answered_at_its_end() {
    let client = client();
    let code = unique("w");
    let rows = json!([{"short_code": code, "original_url": "https://example.com/"}]);
    let waited = client.post("/api/v1/urls/bulk", &rows).header("prefer", "wait=30").send().await;
    assert_eq!((waited.status, &waited.json()["count"]), (200, &json!(1)), "{}", waited.text());
}

#[tokio::test]
#[ignore = "needs the containers of `make test-compose`"]
async fn a_key_of_one_user_sees_nothing_of_anothers_and_dies_within_a_second() {
    let admin = client();
    let name = unique("u");
    let user = admin
        .post("/api/v1/users", &json!({"username": name, "email": format!("{name}@example.test")}));
    let user = user.send().await.json();
    let body =
        json!({"name": "test", "scopes": ["urls:read", "urls:write"], "user_id": user["id"]});
    let made = admin.post("/api/v1/api-keys", &body).send().await.json();
    let own = admin.with_key(made["key"].as_str().unwrap());
    let (_, path) = link(&admin, "https://example.com/").await;
    own.get(&path).send().await.problem(404);
    own.get("/api/v1/users").send().await.problem(403);
    // A caller who says who they are is not believed.
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
async fn what_is_inside_stays_inside() {
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
        let answer = client.get(path).send().await;
        assert!(matches!(answer.status, 400 | 404), "{path}: {}", answer.status);
    }
    let trace = client.request(Method::TRACE, "/").send().await;
    assert_eq!(trace.status, 405);
}

#[tokio::test]
#[ignore = "needs the containers of `make test-compose`"]
async fn bad_input_is_a_problem_that_names_the_field() {
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
async fn pages_and_descriptions_are_there() {
    let client = client().anonymous();
    for (path, kind) in
        [("/", "text/html"), ("/docs/", "text/html"), ("/openapi.json", "application/json")]
    {
        let answer = eventually(SOON, path, || async { client.get(path).try_send().await.ok() });
        let answer = answer.await;
        assert_eq!(answer.status, 200, "{path}");
        assert!(answer.header("content-type").is_some_and(|is| is.starts_with(kind)), "{path}");
    }
    // What the page at /docs loads is in the program.
    let bundle = client.get("/docs/swagger-ui-bundle.js").send().await;
    assert!(bundle.body.len() > 1_000_000, "{} bytes", bundle.body.len());
}
