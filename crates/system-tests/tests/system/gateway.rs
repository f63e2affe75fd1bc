//! The gateway: rate limits, anonymous access, pages, headers, CORS and unavailable shorteners.

use std::time::Duration;

use http::Method;
use linnet_system_tests::{Stack, expected::metric, within};
use serde_json::json;

#[tokio::test]
async fn rate_limits_are_enforced_and_sent_in_headers() {
    let stack = Stack::builder()
        .env("LINNET__LIMITS__KEY_PER_MINUTE", 6)
        .env("LINNET__LIMITS__KEY_BURST", 5)
        .gateways(2)
        .start()
        .await;
    let user = json!({"username": "x", "email": "x@example.test"});
    // The start of the stack has used one request of the burst.
    let mut last = None;
    for _ in 0..8 {
        let response = stack.client().get("/api/v1/urls").send().await;
        assert!(response.header("ratelimit-policy").is_some_and(|policy| policy.contains("q=5")));
        assert!(response.header("ratelimit").is_some_and(|rate| rate.contains("r=")));
        last = Some(response);
    }
    let rejected = last.unwrap();
    assert_eq!(rejected.problem(429)["code"], "rate_limited");
    let wait: u64 = rejected.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=10).contains(&wait), "{wait}");
    assert!(rejected.header("ratelimit").unwrap().contains("r=0"));
    stack.client().post("/api/v1/users", &user).send().await.problem(429);
    // Another key has its own limit. An invalid key counts against the address.
    let other = stack.client().with_key("lnt_zzzzzzzz_zzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzz");
    assert_eq!(other.get("/api/v1/urls").send().await.status, 401);
    // This limit does not apply to redirects.
    assert_eq!(stack.client().get("/unknown1").send().await.status, 404);
}

#[tokio::test]
async fn rate_limits_are_enforced_without_redis() {
    let mut stack = Stack::builder()
        .env("LINNET__LIMITS__KEY_PER_MINUTE", 6)
        .env("LINNET__LIMITS__KEY_BURST", 20)
        .start()
        .await;
    stack.redis.kill().await;
    let mut statuses = Vec::new();
    for _ in 0..60 {
        statuses.push(stack.client().get("/api/v1/urls").send().await.status);
    }
    assert_eq!(statuses[0], 200, "{statuses:?}");
    assert_eq!(statuses.last(), Some(&429), "{statuses:?}");
    assert!(statuses.iter().all(|status| [200, 429].contains(status)), "{statuses:?}");
    let metrics = stack.gateways[0].metrics().await;
    assert_eq!(metrics.sum(metric::GATEWAY_LIMIT_FALLBACK, &[]), 1.0);
}

#[tokio::test]
async fn anonymous_access_follows_the_configured_mode() {
    for (mode, create, list) in [("off", 401, 401), ("create", 201, 401), ("open", 201, 200)] {
        let stack = Stack::builder().env("LINNET__GATEWAY__ANONYMOUS", mode).start().await;
        let client = stack.client().anonymous();
        let body = json!({"original_url": "https://example.com/"});
        let made = client.post("/api/v1/urls", &body).send().await;
        assert_eq!(made.status, create, "{mode}");
        assert_eq!(client.get("/api/v1/urls").send().await.status, list, "{mode}");
        if create == 201 {
            let link = made.json();
            assert!(link["user_id"].is_null());
            assert_eq!(client.resolve(link["short_code"].as_str().unwrap()).await.0, 302);
            let path = format!("/api/v1/urls/{}", link["id"]);
            let patched = client.patch(&path, &json!({"title": "x"})).send().await;
            assert_eq!(patched.status, if mode == "open" { 200 } else { 401 }, "{mode}");
        }
        if mode == "create" {
            // An anonymous client cannot create a link for a user.
            let named = json!({"original_url": "https://example.com/", "user_id": stack.admin_id});
            client.post("/api/v1/urls", &named).send().await.problem(403);
        }
        let warned = stack.gateways[0].log().contains("\"WARN\"");
        assert!(mode != "open" || warned, "mode `open` logs a warning");
    }
}

#[tokio::test]
async fn pages_are_served_with_their_headers() {
    let stack = Stack::start().await;
    let client = stack.client().anonymous();
    let landing = client.get("/").send().await;
    assert_eq!(landing.status, 200);
    assert!(landing.text().contains("/docs"));
    let docs = client.get("/docs").send().await;
    let docs = match docs.header("location") {
        Some(location) => client.get(location).send().await,
        None => docs,
    };
    assert_eq!(docs.status, 200);
    assert!(docs.header("content-type").unwrap().starts_with("text/html"));
    assert!(
        docs.header("content-security-policy")
            .is_some_and(|policy| policy.contains("default-src 'none'"))
    );
    let openapi = client.get("/openapi.json").send().await;
    assert_eq!(openapi.status, 200);
    assert!(openapi.json()["openapi"].as_str().unwrap().starts_with("3."));
    assert!(openapi.json()["paths"]["/api/v1/urls"]["post"].is_object());
    let tag = openapi.header("etag").unwrap().to_owned();
    let again = client.get("/openapi.json").header("if-none-match", &tag).send().await;
    assert_eq!((again.status, again.body.len()), (304, 0));
    let health = client.get("/health").send().await;
    assert_eq!(health.json()["status"], "ok");

    let api = stack.client().get("/api/v1/urls").send().await;
    let rejected = client.get("/api/v1/urls").send().await;
    let missing = stack.client().get("/api/v1/nothing").send().await;
    assert_eq!(missing.problem(404)["code"], "not_found");
    for response in [&landing, &docs, &openapi, &health, &api, &rejected, &missing] {
        assert_eq!(response.header("x-content-type-options"), Some("nosniff"));
        assert_eq!(response.header("referrer-policy"), Some("no-referrer"));
        assert!(response.header("content-security-policy").is_some());
        assert_eq!(response.header("server"), Some("nginx"));
        assert_eq!(response.header("x-powered-by"), None);
    }
    assert_eq!(api.header("cache-control"), Some("no-store"));
    assert!(rejected.header("cache-control").unwrap().contains("no-store"));
}

#[tokio::test]
async fn cross_origin_requests_are_allowed_only_when_configured() {
    let origin = "https://app.example";
    let stack = Stack::start().await;
    let get = || stack.client().get("/api/v1/urls").header("origin", origin);
    assert_eq!(get().send().await.header("access-control-allow-origin"), None);
    let preflight = |stack: &Stack, origin: &str| {
        stack
            .client()
            .anonymous()
            .request(Method::OPTIONS, "/api/v1/urls")
            .header("origin", origin)
            .header("access-control-request-method", "POST")
            .header("access-control-request-headers", "authorization,content-type")
            .send()
    };
    assert_eq!(preflight(&stack, origin).await.header("access-control-allow-origin"), None);
    drop(stack);

    let stack = Stack::builder().env("LINNET__CORS__ALLOWED_ORIGINS", origin).start().await;
    let response = preflight(&stack, origin).await;
    assert!(response.status < 300, "{}", response.status);
    assert_eq!(response.header("access-control-allow-origin"), Some(origin));
    assert_eq!(
        preflight(&stack, "https://evil.example").await.header("access-control-allow-origin"),
        None
    );
    let response = stack.client().get("/api/v1/urls").header("origin", origin).send().await;
    assert_eq!(response.header("access-control-allow-origin"), Some(origin));
    assert_ne!(response.header("access-control-allow-credentials"), Some("true"));
}

#[tokio::test]
async fn requests_get_503_without_a_shortener_until_it_restarts() {
    let mut stack = Stack::start().await;
    assert_eq!(stack.client().get("/api/v1/urls").send().await.status, 200);
    stack.shorteners[0].kill().await;
    for _ in 0..20 {
        let response = stack.client().get("/api/v1/urls").send().await;
        assert_eq!(response.problem(503)["code"], "unavailable");
        assert!(response.header("retry-after").is_some());
    }
    within(Duration::from_secs(5), "503 from /health", || async {
        stack.client().get("/health").send().await.status == 503
    })
    .await;
    // nginx itself returns the error for the resolve listener.
    let visit = stack.client().get("/some-code").send().await;
    assert!([502, 503].contains(&visit.status), "{}", visit.status);
    assert!(!visit.text().contains("nginx"));
    stack.shorteners[0].start();
    within(Duration::from_secs(10), "200 after the restart", || async {
        stack.client().get("/api/v1/urls").send().await.status == 200
    })
    .await;
}

#[tokio::test]
async fn requests_bypass_a_hung_shortener() {
    let mut stack = Stack::builder()
        .shorteners(2)
        .env("LINNET__UPSTREAM__RESPONSE_TIMEOUT_MS", 500)
        .start()
        .await;
    stack.shorteners[0].signal(linnet_system_tests::Signal::STOP);
    within(Duration::from_secs(10), "the gateway marks the shortener as down", || async {
        stack.gateways[0].metrics().await.sum(metric::GATEWAY_UPSTREAM_UP, &[("upstream", "0")])
            == 0.0
    })
    .await;
    for _ in 0..20 {
        assert_eq!(stack.client().get("/api/v1/urls").send().await.status, 200);
    }
    stack.shorteners[0].signal(linnet_system_tests::Signal::CONT);
    within(Duration::from_secs(10), "the gateway marks the shortener as up", || async {
        stack.gateways[0].metrics().await.sum(metric::GATEWAY_UPSTREAM_UP, &[("upstream", "0")])
            == 1.0
    })
    .await;
}
