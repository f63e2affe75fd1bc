//! What the gateway adds: limits, modes, pages, headers, and what it says when no shortener is there.

use std::time::Duration;

use http::Method;
use linnet_system_tests::{Stack, within};
use serde_json::json;

#[tokio::test]
async fn rates_are_told_and_kept() {
    let stack = Stack::builder()
        .env("LINNET__LIMITS__KEY_PER_MINUTE", 6)
        .env("LINNET__LIMITS__KEY_BURST", 5)
        .gateways(2)
        .start()
        .await;
    let link = json!({"username": "x", "email": "x@example.test"});
    // One call was made when the stack started.
    let mut last = None;
    for _ in 0..8 {
        let answer = stack.client().get("/api/v1/urls").send().await;
        assert!(answer.header("ratelimit-policy").is_some_and(|policy| policy.contains("q=5")));
        assert!(answer.header("ratelimit").is_some_and(|rate| rate.contains("r=")));
        last = Some(answer);
    }
    let refused = last.unwrap();
    assert_eq!(refused.problem(429)["code"], "rate_limited");
    let wait: u64 = refused.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=10).contains(&wait), "{wait}");
    assert!(refused.header("ratelimit").unwrap().contains("r=0"));
    stack.client().post("/api/v1/users", &link).send().await.problem(429);
    // Another key's rate is its own: a wrong key is judged by its address.
    let other = stack.client().with_key("lnt_zzzzzzzz_zzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzz");
    assert_eq!(other.get("/api/v1/urls").send().await.status, 401);
    // Redirects have no rate of this kind.
    assert_eq!(stack.client().get("/unknown1").send().await.status, 404);
}

#[tokio::test]
async fn rates_are_kept_without_redis() {
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
    assert_eq!(metrics.sum("linnet_gateway_limit_fallback", &[]), 1.0);
}

#[tokio::test]
async fn anonymous_callers_may_what_the_mode_says() {
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
            // Nobody's link for somebody else is refused.
            let named = json!({"original_url": "https://example.com/", "user_id": stack.admin_id});
            client.post("/api/v1/urls", &named).send().await.problem(403);
        }
        let warned = stack.gateways[0].log().contains("\"WARN\"");
        assert!(mode != "open" || warned, "open is warned about");
    }
}

#[tokio::test]
async fn the_pages_are_there_with_their_headers() {
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
    let refused = client.get("/api/v1/urls").send().await;
    let missing = stack.client().get("/api/v1/nothing").send().await;
    assert_eq!(missing.problem(404)["code"], "not_found");
    for answer in [&landing, &docs, &openapi, &health, &api, &refused, &missing] {
        assert_eq!(answer.header("x-content-type-options"), Some("nosniff"));
        assert_eq!(answer.header("referrer-policy"), Some("no-referrer"));
        assert!(answer.header("content-security-policy").is_some());
        assert_eq!(answer.header("server"), Some("nginx"));
        assert_eq!(answer.header("x-powered-by"), None);
    }
    assert_eq!(api.header("cache-control"), Some("no-store"));
    assert!(refused.header("cache-control").unwrap().contains("no-store"));
}

#[tokio::test]
async fn other_origins_are_let_in_only_when_configured() {
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
    let answer = preflight(&stack, origin).await;
    assert!(answer.status < 300, "{}", answer.status);
    assert_eq!(answer.header("access-control-allow-origin"), Some(origin));
    assert_eq!(
        preflight(&stack, "https://evil.example").await.header("access-control-allow-origin"),
        None
    );
    let answer = stack.client().get("/api/v1/urls").header("origin", origin).send().await;
    assert_eq!(answer.header("access-control-allow-origin"), Some(origin));
    assert_ne!(answer.header("access-control-allow-credentials"), Some("true"));
}

#[tokio::test]
async fn without_a_shortener_it_says_so_and_recovers() {
    let mut stack = Stack::start().await;
    assert_eq!(stack.client().get("/api/v1/urls").send().await.status, 200);
    stack.shorteners[0].kill().await;
    for _ in 0..20 {
        let answer = stack.client().get("/api/v1/urls").send().await;
        assert_eq!(answer.problem(503)["code"], "unavailable");
        assert!(answer.header("retry-after").is_some());
    }
    within(Duration::from_secs(5), "/health says so", || async {
        stack.client().get("/health").send().await.status == 503
    })
    .await;
    // nginx itself answers for the public listener.
    let visit = stack.client().get("/some-code").send().await;
    assert!([502, 503].contains(&visit.status), "{}", visit.status);
    assert!(!visit.text().contains("nginx"));
    stack.shorteners[0].start();
    within(Duration::from_secs(10), "it recovers by itself", || async {
        stack.client().get("/api/v1/urls").send().await.status == 200
    })
    .await;
}

#[tokio::test]
async fn a_shortener_that_hangs_is_gone_around() {
    let mut stack = Stack::builder()
        .shorteners(2)
        .env("LINNET__UPSTREAM__RESPONSE_TIMEOUT_MS", 500)
        .start()
        .await;
    stack.shorteners[0].signal(linnet_system_tests::Signal::STOP);
    within(Duration::from_secs(10), "the gateway leaves it out", || async {
        stack.gateways[0].metrics().await.sum("linnet_gateway_upstream_up", &[("upstream", "0")])
            == 0.0
    })
    .await;
    for _ in 0..20 {
        assert_eq!(stack.client().get("/api/v1/urls").send().await.status, 200);
    }
    stack.shorteners[0].signal(linnet_system_tests::Signal::CONT);
    within(Duration::from_secs(10), "it is back", || async {
        stack.gateways[0].metrics().await.sum("linnet_gateway_upstream_up", &[("upstream", "0")])
            == 1.0
    })
    .await;
}
