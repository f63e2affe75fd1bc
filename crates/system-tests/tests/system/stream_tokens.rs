//! Stream tokens, which open an event stream without a header.

use std::time::{Duration, Instant};

use linnet_system_tests::{Client, EventStream, Stack, within};
use serde_json::{Value, json};

/// How long a gateway trusts a key without the invalidation bus and without verifying it.
const UNVERIFIED: Duration = Duration::from_secs(1);

async fn token_for(client: &Client, path: &str) -> Value {
    let response = client.post("/api/v1/stream-tokens", &json!({"path": path})).send().await;
    assert_eq!(response.status, 201, "{}", response.text());
    assert_eq!(response.header("cache-control"), Some("no-store"));
    response.json()
}

fn url_of(token: &Value) -> String {
    token["url"].as_str().expect("a URL").to_owned()
}

async fn live_path(client: &Client) -> String {
    let link = client.shorten(&json!({"original_url": "https://example.com/"})).await;
    format!("/api/v1/urls/{}/live", link["id"])
}

async fn job_path(client: &Client) -> String {
    let upload = client.request(http::Method::POST, "/api/v1/urls/bulk");
    let body = "original_url\r\nhttps://example.com/\r\n";
    let job = upload.body("text/csv", body).send().await;
    assert_eq!(job.status, 202, "{}", job.text());
    format!("/api/v1/jobs/{}/events", job.json()["job"]["id"])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_token_opens_the_stream_of_its_path() {
    let stack = Stack::builder().workers(1).start().await;
    let (_, client) =
        stack.create_user("watcher", &["urls:read", "urls:write", "jobs:write"]).await;
    let link = client.shorten(&json!({"original_url": "https://example.com/"})).await;
    let path = format!("/api/v1/urls/{}/live", link["id"]);
    let token = token_for(&client, &path).await;
    assert_eq!(token["path"], path);
    let expires_at: chrono::DateTime<chrono::Utc> =
        token["expires_at"].as_str().unwrap().parse().unwrap();
    let lifetime = expires_at - chrono::Utc::now();
    assert!(lifetime.num_seconds() <= 60 && lifetime.num_seconds() > 30, "{lifetime}");
    assert_eq!(url_of(&token), format!("{path}?stream_token={}", token["token"].as_str().unwrap()));

    // A browser connects again with the same URL.
    let mut events = EventStream::open(&client, "", &url_of(&token), None).await;
    let visit = format!("/{}", link["short_code"].as_str().unwrap());
    let click = tokio::select! {
        event = events.event() => event,
        () = async { loop {
            client.anonymous().get(&visit).send().await;
            tokio::time::sleep(Duration::from_millis(100)).await;
        } } => unreachable!(),
    };
    assert_eq!(click.name, "click");
    let last = events.id.clone();
    drop(events);
    EventStream::open(&client, "", &url_of(&token), Some(&last)).await;

    let path = job_path(&client).await;
    let token = token_for(&client, &path).await;
    let mut events = EventStream::open(&client, "", &url_of(&token), None).await;
    assert!(events.try_event().await.is_some());
    // The stream accepts the same parameters as with a key.
    EventStream::open(&client, "", &format!("{}&", url_of(&token)), None).await;
}

#[tokio::test]
async fn must_16_a_stream_token_opens_nothing_else() {
    let stack = Stack::start().await;
    let (_, client) = stack.create_user("owner", &["urls:read", "urls:write", "users:read"]).await;
    let (path, other) = (live_path(&client).await, live_path(&client).await);
    let token = token_for(&client, &path).await;
    let text = token["token"].as_str().unwrap();
    let link = path.trim_end_matches("/live");
    let anonymous = client.anonymous();
    for path in [
        link.to_owned(),
        other,
        format!("{link}/stats"),
        "/api/v1/urls".to_owned(),
        "/api/v1/urls/export".to_owned(),
        "/api/v1/users".to_owned(),
        "/api/v1/stats".to_owned(),
        format!("{link}/live/"),
        path.replace("urls", "jobs"),
    ] {
        let response = anonymous.get(&format!("{path}?stream_token={text}")).send().await;
        assert!([401, 404].contains(&response.status), "{path}: {}", response.status);
        assert!(response.status == 401 || path.ends_with('/') || path.contains("jobs"), "{path}");
    }
    for method in [http::Method::HEAD, http::Method::POST, http::Method::DELETE] {
        let response = anonymous.request(method.clone(), &url_of(&token)).send().await;
        assert!([401, 405].contains(&response.status), "{method}: {}", response.status);
    }
    // The token is rejected as an API key, together with a key, under another name, and when it is changed.
    assert_eq!(anonymous.with_key(text).get(&path).send().await.status, 401);
    assert_eq!(client.get(&url_of(&token)).send().await.problem(400)["code"], "conflicting_keys");
    let renamed = url_of(&token).replace("stream_token", "token");
    assert_eq!(anonymous.get(&renamed).send().await.problem(400)["code"], "key_in_url");
    for bad in [
        format!("{}0", url_of(&token)),
        url_of(&token).replace("_u", "_j"),
        format!("{path}?stream_token="),
    ] {
        assert_eq!(anonymous.get(&bad).send().await.status, 401, "{bad}");
    }
    let renewed = client.with_key(text).post("/api/v1/stream-tokens", &json!({"path": path}));
    assert_eq!(renewed.send().await.status, 401);

    // A token does not open a stream of another user's link.
    let (_, stranger) = stack.create_user("stranger", &["urls:read"]).await;
    let foreign = token_for(&stranger, &path).await;
    assert_eq!(anonymous.get(&url_of(&foreign)).send().await.status, 404);
    // A key without the scope gets no token, and neither does a client without a key.
    let (_, unscoped) = stack.create_user("unscoped", &["users:read"]).await;
    let body = json!({"path": path});
    assert_eq!(unscoped.post("/api/v1/stream-tokens", &body).send().await.status, 403);
    assert_eq!(anonymous.post("/api/v1/stream-tokens", &body).send().await.status, 401);
    for path in
        ["/api/v1/urls", "/api/v1/urls/0/live", "https://evil.example/api/v1/urls/1/live", ""]
    {
        let response = client.post("/api/v1/stream-tokens", &json!({"path": path})).send().await;
        response.problem(422);
        assert_eq!(response.problem_fields(), ["path"]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn must_27_a_stream_token_and_its_stream_end_with_the_key() {
    let stack = Stack::start().await;
    let (_, client) = stack.create_user("owner", &["urls:read", "urls:write", "users:write"]).await;
    for expires in [false, true] {
        let at = chrono::Utc::now() + Duration::from_secs(4);
        let expiry = expires.then(|| at.to_rfc3339_opts(chrono::SecondsFormat::Millis, true));
        let body =
            json!({"name": "browser", "scopes": ["urls:read", "urls:write"], "expires_at": expiry});
        let key = client.post("/api/v1/api-keys", &body).send().await.json();
        let browser = client.with_key(key["key"].as_str().unwrap());
        let path = live_path(&browser).await;
        let token = token_for(&browser, &path).await;
        let mut events = EventStream::open(&client, "", &url_of(&token), None).await;
        if !expires {
            let path = format!("/api/v1/api-keys/{}", key["id"].as_str().unwrap());
            assert_eq!(client.delete(&path).send().await.status, 204);
        }
        let ended = Instant::now();
        while events.line().await.is_some() {}
        println!("the stream ended after {:?}", ended.elapsed());
        assert_eq!(client.anonymous().get(&url_of(&token)).send().await.status, 401);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn must_27_without_redis_a_token_s_stream_continues_until_its_key_ends() {
    let mut stack = Stack::start().await;
    let (_, client) = stack.create_user("owner", &["urls:read", "urls:write", "users:write"]).await;
    let body = json!({"name": "browser", "scopes": ["urls:read", "urls:write"]});
    let key = client.post("/api/v1/api-keys", &body).send().await.json();
    let browser = client.with_key(key["key"].as_str().unwrap());
    let path = live_path(&browser).await;
    let token = token_for(&browser, &path).await;
    let mut events = EventStream::open(&client, "", &url_of(&token), None).await;
    stack.redis.kill().await;
    // Without the invalidation bus, the gateway must verify the token again and again.
    tokio::select! {
        () = async { while events.line().await.is_some() {} } => panic!("the stream has ended"),
        () = tokio::time::sleep(3 * UNVERIFIED) => {}
    }
    let path = format!("/api/v1/api-keys/{}", key["id"].as_str().unwrap());
    assert_eq!(client.delete(&path).send().await.status, 204);
    while events.line().await.is_some() {}
}

#[tokio::test]
async fn must_26_streams_of_tokens_count_against_the_share_of_the_user() {
    let stack = Stack::builder().env("LINNET__SHORTENER__LIVE_STREAMS_PER_USER", 2).start().await;
    let (_, client) = stack.create_user("owner", &["urls:read", "urls:write"]).await;
    let path = live_path(&client).await;
    let (first, second) = (token_for(&client, &path).await, token_for(&client, &path).await);
    let mut open = Vec::new();
    for token in [&first, &second] {
        open.push(EventStream::open(&client, "", &url_of(token), None).await);
    }
    let refused = client.anonymous().get(&url_of(&first)).send().await;
    assert_eq!(refused.problem(429)["code"], "too_many_concurrent");
    assert_eq!(client.get(&path).send().await.status, 429, "the key has the same share");
}

#[tokio::test]
async fn a_stream_token_is_never_logged() {
    let stack = Stack::builder().env("LINNET__TELEMETRY__LOG_LEVEL", "debug").start().await;
    let client = stack.client();
    let path = live_path(&client).await;
    let token = token_for(&client, &path).await;
    EventStream::open(&client, "", &url_of(&token), None).await;
    let text = token["token"].as_str().unwrap();
    for path in ["/api/v1/urls", "/nowhere"] {
        client.anonymous().get(&format!("{path}?stream_token={text}")).send().await;
    }
    let processes = [&stack.gateways[0], &stack.shorteners[0], &stack.nginx];
    within(Duration::from_secs(10), "the requests to be logged", || async {
        processes[..2].iter().all(|process| process.log().contains("/live"))
    })
    .await;
    let access_log = stack.folder().join("nginx/logs/access.log");
    for process in processes {
        assert!(!process.log().contains(text), "{}", process.name());
    }
    // nginx flushes its buffer within a second.
    within(Duration::from_secs(10), "nginx to log the stream", || async {
        std::fs::read_to_string(&access_log).is_ok_and(|log| log.contains("/live"))
    })
    .await;
    assert!(!std::fs::read_to_string(&access_log).unwrap().contains(text));
}
