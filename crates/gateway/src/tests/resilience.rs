//! Unreachable, slow and failing shorteners.

use std::sync::atomic::Ordering;

use http::Method;
use linnet_platform::listener::Address;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};

use super::support::{
    Gateway, KEY, Shortener, closed_address, eventually, no_redis, raw_until, settings,
};

/// The first bytes of a health probe.
const PROBE: &[u8] = b"GET /internal/v1/health";

/// A shortener that runs `handle` for each of its connections.
async fn fake_server<F: Future<Output = ()> + 'static>(handle: fn(TcpStream) -> F) -> Shortener {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    actix_web::rt::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            actix_web::rt::spawn(handle(stream));
        }
    });
    Shortener::at(address)
}

/// Responds to health probes, and closes the connection of every other call after reading it.
async fn closing_shortener() -> Shortener {
    fake_server(|mut stream| async move {
        let mut bytes = vec![0; 16_384];
        while let Ok(read @ 1..) = stream.read(&mut bytes).await {
            if !bytes[..read].starts_with(PROBE) {
                return;
            }
            let response = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
            stream.write_all(response).await.unwrap();
        }
    })
    .await
}

fn up(gateway: &Gateway, index: &str) -> Option<f64> {
    gateway.metrics.value("linnet_gateway_upstream_up", &[("upstream", index)])
}

async fn both_healthy(gateway: &Gateway) {
    eventually("both are healthy", || async {
        up(gateway, "0") == Some(1.0) && up(gateway, "1") == Some(1.0)
    })
    .await;
}

#[actix_web::test]
async fn failed_connect_is_retried_for_any_method() {
    let shortener = Shortener::start();
    let unreachable = Shortener::at(closed_address());
    let gateway = Gateway::start(settings(&no_redis(), &[&unreachable, &shortener])).await;
    for _ in 0..20 {
        assert_eq!(gateway.client.post_as(KEY, "/api/v1/urls", b"{}").await.status, 200);
    }
    assert_eq!((up(&gateway, "0"), up(&gateway, "1")), (Some(0.0), Some(1.0)));
    assert_eq!(shortener.calls(), 20);
}

#[actix_web::test]
async fn must_25_broken_call_is_never_repeated() {
    let shortener = Shortener::start();
    let closing = closing_shortener().await;
    let mut settings = settings(&no_redis(), &[&closing, &shortener]);
    settings.upstream.breaker_failures = 1_000;
    let gateway = Gateway::start(settings).await;
    both_healthy(&gateway).await;
    let key = ("x-api-key", KEY);
    for method in [Method::GET, Method::HEAD, Method::PUT, Method::PATCH, Method::DELETE] {
        // About half of these calls go to the closing shortener, and some lookups of their key: those are 503.
        let (before, mut broken) = (shortener.calls(), 0);
        for _ in 0..6 {
            let response = gateway.client.call(method.clone(), "/api/v1/urls/5", &[key], b"").await;
            broken += u64::from(matches!(response.status, 502 | 503));
        }
        assert!(broken >= 2, "{method}: {broken}");
        assert_eq!(shortener.calls() - before, 6 - broken, "{method}");
    }
    let headers = [key, ("idempotency-key", "a")];
    let mut broken = 0;
    for _ in 0..6 {
        let response = gateway.client.call(Method::POST, "/api/v1/urls", &headers, b"{}").await;
        match response.status {
            502 => assert_eq!(response.problem(), "bad_gateway"),
            503 => assert_eq!(response.problem(), "unavailable"),
            _ => continue,
        }
        broken += 1;
    }
    assert!(broken >= 2, "{broken}");
    assert_eq!(gateway.metric("linnet_gateway_retries_total"), Some(0.0));
}

#[actix_web::test]
async fn open_breaker_rejects_calls_with_503() {
    let closing = closing_shortener().await;
    let mut settings = settings(&no_redis(), &[&closing]);
    settings.gateway.anonymous = crate::config::Anonymous::Open;
    settings.upstream.breaker_open_ms = 60_000;
    let gateway = Gateway::start(settings).await;
    let state = || gateway.metrics.value("linnet_gateway_breaker_state", &[("upstream", "0")]);
    assert_eq!(state(), Some(0.0));
    eventually("the breaker opens", || async {
        gateway.client.post_as("", "/api/v1/urls", b"{}").await.status == 503
    })
    .await;
    assert_eq!(state(), Some(2.0));
    let response = gateway.client.get("/api/v1/urls").await;
    assert_eq!((response.status, response.problem().as_str()), (503, "unavailable"));
    assert_eq!(response.header("retry-after"), "1");
}

#[actix_web::test]
async fn unresponsive_shortener_is_504_and_unreachable_one_is_503() {
    let shortener = Shortener::start();
    let mut slow = settings(&no_redis(), &[&shortener]);
    slow.upstream.response_timeout_ms = 200;
    let gateway = Gateway::start(slow).await;
    let response = gateway.client.get_as(KEY, "/api/v1/urls/hang").await;
    assert_eq!((response.status, response.problem().as_str()), (504, "upstream_timeout"));
    assert_eq!(shortener.calls(), 1, "a timeout is not retried");

    let unreachable = Shortener::at(closed_address());
    let gateway = Gateway::start_unready(settings(&no_redis(), &[&unreachable]));
    let response = gateway.client.get_as(KEY, "/api/v1/urls").await;
    assert_eq!((response.status, response.problem().as_str()), (503, "unavailable"));
    assert_eq!(response.header("retry-after"), "1");
    assert_eq!(gateway.client.get("/health").await.status, 503);
    assert_eq!(gateway.admin.get("/readyz").await.status, 503);
    assert_eq!(gateway.admin.get("/livez").await.status, 200);
}

#[actix_web::test]
async fn key_that_cannot_be_verified_is_503_whatever_the_cause() {
    let closing = closing_shortener().await;
    let mut breaking = settings(&no_redis(), &[&closing]);
    breaking.upstream.breaker_failures = 1_000;
    let silent = Shortener::start();
    silent.state.hold_lookups.store(true, Ordering::SeqCst);
    let (breaking, silent) =
        (Gateway::start(breaking).await, Gateway::start(settings(&no_redis(), &[&silent])).await);
    for (gateway, cause) in [(breaking, "the connection broke"), (silent, "no response in time")] {
        let response = gateway.client.post_as(KEY, "/api/v1/urls", b"{}").await;
        assert_eq!((response.status, response.problem().as_str()), (503, "unavailable"), "{cause}");
        assert_eq!(response.header("retry-after"), "1", "{cause}");
    }
}

/// Rejects every upload after its head without reading the body, so the kernel resets the connection.
async fn resetting_shortener() -> Shortener {
    fake_server(|mut stream| async move {
        let mut head = [0; 1_024];
        let Ok(read @ 1..) = stream.read(&mut head).await else { return };
        let response: &[u8] = if head[..read].starts_with(PROBE) {
            b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
        } else {
            b"HTTP/1.1 403 Forbidden\r\ncontent-length: 5\r\nconnection: close\r\n\r\nearly"
        };
        stream.write_all(response).await.unwrap();
    })
    .await
}

#[actix_web::test]
async fn rejection_before_a_reset_reaches_the_client() {
    let shortener = resetting_shortener().await;
    let mut settings = settings(&no_redis(), &[&shortener]);
    settings.gateway.anonymous = crate::config::Anonymous::Open;
    let gateway = Gateway::start(settings).await;
    let mut bytes =
        b"POST /api/v1/test-stream HTTP/1.1\r\nhost: x\r\ncontent-length: 10485760\r\n\r\n"
            .to_vec();
    bytes.resize(bytes.len() + 4_000_000, b'x');
    for _ in 0..20 {
        let response = raw_until(&gateway.address, &bytes, Some("early")).await;
        assert!(response.starts_with("HTTP/1.1 403 "), "{response}");
    }
}

#[actix_web::test]
async fn unix_sockets_work_for_clients_and_upstreams() {
    let dir = tempfile::tempdir().unwrap();
    let upstream_address = Address::Unix(dir.path().join("shortener.sock"));
    let shortener = Shortener::start_on(&upstream_address);
    let mut settings = settings(&no_redis(), &[]);
    settings.upstream.shorteners = vec![upstream_address];
    settings.gateway.listen = Address::Unix(dir.path().join("gateway.sock"));
    let gateway = Gateway::start(settings).await;
    let headers = [("x-api-key", KEY), ("x-real-ip", "192.0.2.7")];
    let response = gateway.client.call(Method::GET, "/api/v1/urls", &headers, b"").await;
    assert_eq!(response.status, 200);
    assert_eq!(response.json()["headers"]["x-real-ip"], "192.0.2.7");
    assert_eq!(shortener.calls(), 1);
}

#[actix_web::test]
async fn draining_shortener_gets_no_new_calls() {
    let (one, two) = (Shortener::start(), Shortener::start());
    let gateway = Gateway::start(settings(&no_redis(), &[&one, &two])).await;
    both_healthy(&gateway).await;
    one.state.draining.store(true, Ordering::SeqCst);
    eventually("the probe sees the drain", || async { up(&gateway, "0") == Some(0.0) }).await;
    let before = one.calls();
    for _ in 0..10 {
        assert_eq!(gateway.client.get_as(KEY, "/api/v1/urls").await.status, 200);
    }
    assert_eq!((one.calls(), two.calls() >= 10), (before, true));
}

#[actix_web::test]
async fn problems_of_a_shortener_are_forwarded_unchanged() {
    let shortener = Shortener::start();
    let gateway = Gateway::start(settings(&no_redis(), &[&shortener])).await;
    let response = gateway.client.get_as(KEY, "/api/v1/urls/missing").await;
    assert_eq!(response.status, 404);
    assert_eq!(response.body, r#"{"status":404,"code":"not_found"}"#);
    assert_eq!(response.header("content-type"), "application/problem+json");
    assert!(response.headers.get("x-linnet-origin").is_none());
}

#[actix_web::test]
async fn draining_gateway_reports_unready_and_serves_until_it_stops() {
    let shortener = Shortener::start();
    let mut settings = settings(&no_redis(), &[&shortener]);
    settings.shutdown.drain_ms = 3_000;
    let gateway = Gateway::start(settings).await;
    assert_eq!(gateway.client.get_as(KEY, "/api/v1/urls").await.header("connection"), "");
    gateway.lifecycle.begin_drain();
    let response = gateway.client.get_as(KEY, "/api/v1/urls").await;
    assert_eq!((response.status, response.header("connection")), (200, "close"));
    assert_eq!(gateway.client.get("/health").await.status, 503);
    assert_eq!(gateway.admin.get("/readyz").await.status, 503);
    assert_eq!(gateway.admin.get("/livez").await.status, 200);
    eventually("the listener is closed", || async {
        tokio::net::TcpStream::connect(&gateway.address).await.is_err()
    })
    .await;
}
