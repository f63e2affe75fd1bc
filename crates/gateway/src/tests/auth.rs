//! Authentication, and the identity headers that shorteners receive.

use std::sync::atomic::Ordering;

use http::Method;
use linnet_protocol::invalidation::Invalidation;

use super::support::{Gateway, KEY, REVOKED, Redis, Shortener, eventually, no_redis, settings};
use crate::config::Anonymous;

async fn gateway(shortener: &Shortener) -> Gateway {
    Gateway::start(settings(&no_redis(), &[shortener])).await
}

#[actix_web::test]
async fn must_14_the_shortener_receives_the_identity_headers_of_the_gateway_only() {
    let shortener = Shortener::start();
    let gateway = gateway(&shortener).await;
    let bearer = format!("Bearer {KEY}");
    let response = gateway
        .client
        .call(
            Method::POST,
            "/api/v1/urls?a=b%20c",
            &[
                ("authorization", &bearer),
                ("x-linnet-user-id", "1"),
                ("x-linnet-scopes", "admin"),
                ("x-linnet-service-token", "guess"),
                ("x-linnet-else", "1"),
                ("x-real-ip", "192.0.2.7"),
                ("x-forwarded-for", "6.6.6.6"),
                ("x-request-id", "abcdefgh-1"),
                ("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"),
                ("idempotency-key", "i-1"),
            ],
            b"{}",
        )
        .await;
    assert_eq!(response.status, 200);
    let received = response.json();
    let headers = &received["headers"];
    assert_eq!(received["method"], "POST");
    assert_eq!(received["path"], "/api/v1/urls?a=b%20c");
    assert_eq!(received["body"], "{}");
    assert_eq!(headers["x-linnet-user-id"], "7");
    assert_eq!(headers["x-linnet-key-id"], "Ab3xYz01");
    assert_eq!(headers["x-linnet-scopes"], "urls:read urls:write");
    assert_eq!(headers["x-linnet-service-token"], super::support::TOKEN);
    assert_eq!(headers["x-real-ip"], "192.0.2.7");
    assert_eq!(headers["x-request-id"], "abcdefgh-1");
    assert_eq!(headers["idempotency-key"], "i-1");
    assert!(headers["traceparent"].as_str().unwrap().contains("4bf92f3577b34da6a3ce929d0e0e4736"));
    for dropped in ["authorization", "x-linnet-else", "x-forwarded-for", "connection"] {
        assert!(headers[dropped].is_null(), "{dropped}");
    }
    assert_eq!(response.header("x-request-id"), "abcdefgh-1");
    assert!(response.headers.get("x-linnet-inside").is_none());
}

#[actix_web::test]
async fn tracestate_is_forwarded_only_with_the_trace_that_it_belongs_to() {
    let shortener = Shortener::start();
    let gateway = gateway(&shortener).await;
    let valid = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let other = "00-4bf92f3577b34da6a3ce929d0e0e4737-00f067aa0ba902b7-01";
    for (traceparents, is_forwarded) in [
        (&[valid][..], true),
        (&[], false),
        (&["00-nonsense-01"], false),
        (&["00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-"], false),
        (&["00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01"], false),
        (&["00-00000000000000000000000000000000-00f067aa0ba902b7-01"], false),
        (&["00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01"], false),
        (&[valid, other], false),
    ] {
        let mut headers = vec![("x-api-key", KEY), ("tracestate", "vendor=1")];
        headers.extend(traceparents.iter().map(|value| ("traceparent", *value)));
        let response = gateway.client.call(Method::GET, "/api/v1/urls", &headers, b"").await;
        let tracestate = &response.json()["headers"]["tracestate"];
        assert_eq!(tracestate == "vendor=1", is_forwarded, "{traceparents:?}: {tracestate}");
    }
}

#[actix_web::test]
async fn must_16_bad_credentials_are_rejected_mostly_without_a_lookup() {
    let shortener = Shortener::start();
    let gateway = gateway(&shortener).await;
    let client = &gateway.client;

    let none = client.get("/api/v1/urls").await;
    assert_eq!((none.status, none.problem().as_str()), (401, "unauthorized"));
    assert_eq!(none.header("www-authenticate"), "Bearer realm=\"linnet\"");
    let malformed = client.get_as("lnt_short", "/api/v1/urls").await;
    assert_eq!((malformed.status, malformed.problem().as_str()), (401, "unauthorized"));
    let in_url = client.get_as(KEY, &format!("/api/v1/urls?api_key={KEY}")).await;
    assert_eq!((in_url.status, in_url.problem().as_str()), (400, "key_in_url"));
    let both = [("x-api-key", KEY), ("authorization", &format!("Bearer {REVOKED}"))];
    let both = client.call(Method::GET, "/api/v1/urls", &both, b"").await;
    assert_eq!((both.status, both.problem().as_str()), (400, "conflicting_keys"));
    assert_eq!(shortener.lookups(), 0);

    for _ in 0..3 {
        let unknown = client.get_as(REVOKED, "/api/v1/urls").await;
        assert_eq!((unknown.status, unknown.problem().as_str()), (401, "unauthorized"));
    }
    let read_only = client.get_as(KEY, "/api/v1/users").await;
    assert_eq!((read_only.status, read_only.problem().as_str()), (403, "forbidden"));
    assert_eq!(shortener.calls(), 0);
}

#[actix_web::test]
async fn unknown_path_is_404_and_unknown_method_is_405() {
    let shortener = Shortener::start();
    let gateway = gateway(&shortener).await;
    for path in ["/api/v1/nothing", "/api/v2/urls", "/api/v1/urls/1/2", "/internal/v1/health", "/x"]
    {
        let response = gateway.client.get_as(KEY, path).await;
        assert_eq!((response.status, response.problem().as_str()), (404, "not_found"), "{path}");
    }
    let headers = [("x-api-key", KEY)];
    let response = gateway.client.call(Method::DELETE, "/api/v1/urls", &headers, b"").await;
    assert_eq!((response.status, response.problem().as_str()), (405, "method_not_allowed"));
    assert_eq!(response.header("allow"), "GET, HEAD, POST, OPTIONS");
    let response = gateway.client.call(Method::OPTIONS, "/api/v1/urls", &[], b"").await;
    assert_eq!((response.status, response.header("allow")), (204, "GET, HEAD, POST, OPTIONS"));
    for (method, status) in [(Method::OPTIONS, 204), (Method::HEAD, 405), (Method::POST, 405)] {
        let response = gateway.client.call(method, "/api/v1/jobs/1/events", &[], b"").await;
        assert_eq!((response.status, response.header("allow")), (status, "GET, OPTIONS"));
    }
    assert_eq!(shortener.calls(), 0);
}

#[actix_web::test]
async fn concurrent_requests_with_one_uncached_key_make_one_lookup() {
    let shortener = Shortener::start();
    let gateway = gateway(&shortener).await;
    shortener.state.hold_lookups.store(true, Ordering::SeqCst);
    let requests: Vec<_> = (0..50)
        .map(|_| {
            let client = gateway.client.clone();
            actix_web::rt::spawn(async move { client.get_as(KEY, "/api/v1/urls").await.status })
        })
        .collect();
    eventually("all requests wait", || async {
        gateway.metric("linnet_gateway_auth_cache_misses_total") == Some(50.0)
    })
    .await;
    shortener.state.hold_lookups.store(false, Ordering::SeqCst);
    shortener.state.lookup_permits.0.add_permits(50);
    for request in requests {
        assert_eq!(request.await.unwrap(), 200);
    }
    assert_eq!(shortener.lookups(), 1);
    assert_eq!(gateway.metric("linnet_gateway_auth_lookups_total"), Some(1.0));
}

#[actix_web::test]
async fn must_07_a_revocation_takes_effect_immediately() {
    let shortener = Shortener::start();
    let redis = Redis::start().await;
    let gateway = Gateway::start_with(&redis, settings(&redis.url, &[&shortener])).await;
    for _ in 0..5 {
        assert_eq!(gateway.client.get_as(KEY, "/api/v1/urls").await.status, 200);
    }
    assert_eq!(shortener.lookups(), 1, "the status is cached");

    shortener.state.revoked.store(true, Ordering::SeqCst);
    redis.publish(&Invalidation::Key { id: "Ab3xYz01".into() }).await;
    // The TTL is 30 s, so the entry does not expire within this test.
    eventually("the key is rejected", || async {
        gateway.client.get_as(KEY, "/api/v1/urls").await.status == 401
    })
    .await;
    assert_eq!(shortener.lookups(), 2);
}

#[actix_web::test]
async fn must_07_a_revocation_during_a_lookup_wins() {
    let shortener = Shortener::start();
    let redis = Redis::start().await;
    let gateway = Gateway::start_with(&redis, settings(&redis.url, &[&shortener])).await;
    shortener.state.hold_lookups.store(true, Ordering::SeqCst);
    let client = gateway.client.clone();
    let early =
        actix_web::rt::spawn(async move { client.get_as(KEY, "/api/v1/urls").await.status });
    eventually("the lookup is in flight", || async { shortener.lookups() == 1 }).await;

    shortener.state.revoked.store(true, Ordering::SeqCst);
    redis.publish(&Invalidation::Key { id: "Ab3xYz01".into() }).await;
    // Messages arrive in order: once the cache has dropped this second key, the first invalidation has arrived too.
    shortener.state.hold_lookups.store(false, Ordering::SeqCst);
    assert_eq!(gateway.client.get_as(REVOKED, "/api/v1/urls").await.status, 401);
    redis.publish(&Invalidation::Key { id: "Zz9xYz99".into() }).await;
    eventually("the second invalidation takes effect", || async {
        let before = shortener.lookups();
        gateway.client.get_as(REVOKED, "/api/v1/urls").await;
        shortener.lookups() > before
    })
    .await;

    shortener.state.lookup_permits.0.add_permits(1);
    assert_eq!(early.await.unwrap(), 200, "the lookup began before the revocation");
    assert_eq!(gateway.client.get_as(KEY, "/api/v1/urls").await.status, 401);
}

#[actix_web::test]
async fn anonymous_clients_have_the_scopes_of_the_mode() {
    let shortener = Shortener::start();
    let mut create = settings(&no_redis(), &[&shortener]);
    create.gateway.anonymous = Anonymous::Create;
    let gateway = Gateway::start(create).await;
    let created = gateway.client.call(Method::POST, "/api/v1/urls", &[], b"{}").await;
    assert_eq!(created.status, 200);
    assert_eq!(created.json()["headers"]["x-linnet-scopes"], "urls:write");
    assert!(created.json()["headers"]["x-linnet-user-id"].is_null());
    assert_eq!(gateway.client.get("/api/v1/urls").await.status, 401);
    let events = gateway.client.call(Method::POST, "/api/v1/events", &[], b"{}").await;
    assert_eq!(events.status, 401);
    assert_eq!(gateway.client.post_as(REVOKED, "/api/v1/urls", b"{}").await.status, 401);
    assert_eq!(gateway.client.post_as("nonsense", "/api/v1/urls", b"{}").await.status, 401);

    let mut open = settings(&no_redis(), &[&shortener]);
    open.gateway.anonymous = Anonymous::Open;
    let gateway = Gateway::start(open).await;
    let all = gateway.client.get("/api/v1/users").await;
    assert!(all.json()["headers"]["x-linnet-scopes"].as_str().unwrap().contains("admin"));
    assert_eq!(gateway.client.get_as(REVOKED, "/api/v1/urls").await.status, 401);
}
