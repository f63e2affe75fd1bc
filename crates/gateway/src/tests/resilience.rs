//! Shorteners that are away, slow or broken.

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

/// How the question for a shortener's health begins.
const PROBE: &[u8] = b"GET /internal/v1/health";

/// A shortener that does this with each of its connections.
async fn odd<F: Future<Output = ()> + 'static>(handle: fn(TcpStream) -> F) -> Shortener {
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

/// Answers probes and look-ups from a real stand-in's shape, but hangs up on every API call after
/// it has read it.
async fn hangs_up() -> Shortener {
    odd(|mut stream| async move {
        let mut bytes = vec![0; 16_384];
        while let Ok(read @ 1..) = stream.read(&mut bytes).await {
            if !bytes[..read].starts_with(PROBE) {
                return;
            }
            let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
            stream.write_all(answer).await.unwrap();
        }
    })
    .await
}

fn up(gateway: &Gateway, index: &str) -> Option<f64> {
    gateway.metrics.value("linnet_gateway_upstream_up", &[("upstream", index)])
}

async fn both_up(gateway: &Gateway) {
    eventually("both are up", || async {
        up(gateway, "0") == Some(1.0) && up(gateway, "1") == Some(1.0)
    })
    .await;
}

#[actix_web::test]
async fn a_failed_connect_is_tried_elsewhere_for_any_method() {
    let shortener = Shortener::start();
    let dead = Shortener::at(closed_address());
    let gateway = Gateway::start(settings(&no_redis(), &[&dead, &shortener])).await;
    for _ in 0..20 {
        assert_eq!(gateway.client.post_as(KEY, "/api/v1/urls", b"{}").await.status, 200);
    }
    assert_eq!((up(&gateway, "0"), up(&gateway, "1")), (Some(0.0), Some(1.0)));
    assert_eq!(shortener.calls(), 20);
}

#[actix_web::test]
async fn a_broken_call_is_repeated_only_if_that_is_harmless() {
    let shortener = Shortener::start();
    let breaking = hangs_up().await;
    let mut settings = settings(&no_redis(), &[&breaking, &shortener]);
    settings.upstream.breaker_failures = 1_000;
    let gateway = Gateway::start(settings).await;
    both_up(&gateway).await;
    for _ in 0..6 {
        assert_eq!(gateway.client.get_as(KEY, "/api/v1/urls").await.status, 200);
    }
    let retries = gateway.metric("linnet_gateway_retries_total").unwrap();
    assert!(retries >= 3.0, "{retries}");

    // Half of these meet the broken one.
    let before = shortener.calls();
    let mut broken = 0;
    for _ in 0..6 {
        let answer = gateway.client.post_as(KEY, "/api/v1/urls", b"{}").await;
        if answer.status == 502 {
            assert_eq!(answer.problem(), "bad_gateway");
            broken += 1;
        }
    }
    assert!(broken >= 2, "{broken}");
    assert_eq!(shortener.calls() - before, 6 - broken);

    let headers = [("x-api-key", KEY), ("idempotency-key", "a")];
    for _ in 0..6 {
        let answer = gateway.client.call(Method::POST, "/api/v1/urls", &headers, b"{}").await;
        assert_eq!(answer.status, 200);
    }
}

#[actix_web::test]
async fn a_retry_budget_that_is_used_up_stops_the_retries() {
    let breaking = hangs_up().await;
    let mut settings = settings(&no_redis(), &[&breaking]);
    settings.upstream.breaker_failures = 1_000;
    settings.upstream.retry_budget_percent = 10;
    settings.gateway.anonymous = crate::config::Anonymous::Open;
    let gateway = Gateway::start(settings).await;
    for _ in 0..100 {
        assert_eq!(gateway.client.get("/api/v1/urls").await.status, 502);
    }
    // Twenty saved up and a tenth of a hundred calls; one more or less by when the bucket was full.
    let retries = gateway.metric("linnet_gateway_retries_total").unwrap();
    assert!((29.0..=31.0).contains(&retries), "{retries}");
}

#[actix_web::test]
async fn a_breaker_opens_and_a_probe_closes_it() {
    let breaking = hangs_up().await;
    let mut settings = settings(&no_redis(), &[&breaking]);
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
    let answer = gateway.client.get("/api/v1/urls").await;
    assert_eq!((answer.status, answer.problem().as_str()), (503, "unavailable"));
    assert_eq!(answer.header("retry-after"), "1");
}

#[actix_web::test]
async fn silence_is_a_504_and_absence_a_503() {
    let shortener = Shortener::start();
    let mut slow = settings(&no_redis(), &[&shortener]);
    slow.upstream.response_timeout_ms = 200;
    let gateway = Gateway::start(slow).await;
    let answer = gateway.client.get_as(KEY, "/api/v1/urls/hang").await;
    assert_eq!((answer.status, answer.problem().as_str()), (504, "upstream_timeout"));
    assert_eq!(shortener.calls(), 1, "who may be busy with it is not asked again");

    let dead = Shortener::at(closed_address());
    let gateway = Gateway::start_unready(settings(&no_redis(), &[&dead]));
    let answer = gateway.client.get_as(KEY, "/api/v1/urls").await;
    assert_eq!((answer.status, answer.problem().as_str()), (503, "unavailable"));
    assert_eq!(answer.header("retry-after"), "1");
    assert_eq!(gateway.client.get("/health").await.status, 503);
    assert_eq!(gateway.admin.get("/readyz").await.status, 503);
    assert_eq!(gateway.admin.get("/livez").await.status, 200);
}

/// Refuses every upload after its head, with what follows unread: the kernel resets the connection.
async fn slams_the_door() -> Shortener {
    odd(|mut stream| async move {
        let mut head = [0; 1_024];
        let Ok(read @ 1..) = stream.read(&mut head).await else { return };
        let answer: &[u8] = if head[..read].starts_with(PROBE) {
            b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
        } else {
            b"HTTP/1.1 403 Forbidden\r\ncontent-length: 5\r\nconnection: close\r\n\r\nearly"
        };
        stream.write_all(answer).await.unwrap();
    })
    .await
}

#[actix_web::test]
async fn a_refusal_before_a_reset_still_reaches_the_client() {
    let shortener = slams_the_door().await;
    let mut settings = settings(&no_redis(), &[&shortener]);
    settings.gateway.anonymous = crate::config::Anonymous::Open;
    let gateway = Gateway::start(settings).await;
    let mut bytes =
        b"POST /api/v1/test-stream HTTP/1.1\r\nhost: x\r\ncontent-length: 10485760\r\n\r\n"
            .to_vec();
    bytes.resize(bytes.len() + 4_000_000, b'x');
    for _ in 0..20 {
        let answer = raw_until(&gateway.address, &bytes, Some("early")).await;
        assert!(answer.starts_with("HTTP/1.1 403 "), "{answer}");
    }
}

#[actix_web::test]
async fn unix_sockets_work_on_both_sides() {
    let dir = tempfile::tempdir().unwrap();
    let behind = Address::Unix(dir.path().join("shortener.sock"));
    let shortener = Shortener::start_on(&behind);
    let mut settings = settings(&no_redis(), &[]);
    settings.upstream.shorteners = vec![behind];
    settings.gateway.listen = Address::Unix(dir.path().join("gateway.sock"));
    let gateway = Gateway::start(settings).await;
    let headers = [("x-api-key", KEY), ("x-real-ip", "192.0.2.7")];
    let answer = gateway.client.call(Method::GET, "/api/v1/urls", &headers, b"").await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.json()["headers"]["x-real-ip"], "192.0.2.7");
    assert_eq!(shortener.calls(), 1);
}

#[actix_web::test]
async fn a_draining_shortener_gets_no_new_calls() {
    let (one, two) = (Shortener::start(), Shortener::start());
    let gateway = Gateway::start(settings(&no_redis(), &[&one, &two])).await;
    both_up(&gateway).await;
    one.state.draining.store(true, Ordering::SeqCst);
    eventually("one is seen draining", || async { up(&gateway, "0") == Some(0.0) }).await;
    let before = one.calls();
    for _ in 0..10 {
        assert_eq!(gateway.client.get_as(KEY, "/api/v1/urls").await.status, 200);
    }
    assert_eq!((one.calls(), two.calls() >= 10), (before, true));
}

#[actix_web::test]
async fn the_shorteners_own_problems_pass_unchanged() {
    let shortener = Shortener::start();
    let gateway = Gateway::start(settings(&no_redis(), &[&shortener])).await;
    let answer = gateway.client.get_as(KEY, "/api/v1/urls/missing").await;
    assert_eq!(answer.status, 404);
    assert_eq!(answer.body, r#"{"status":404,"code":"not_found"}"#);
    assert_eq!(answer.header("content-type"), "application/problem+json");
    assert!(answer.headers.get("x-linnet-origin").is_none());
}

#[actix_web::test]
async fn a_gateway_that_stops_says_so_and_finishes_what_it_has() {
    let shortener = Shortener::start();
    let mut settings = settings(&no_redis(), &[&shortener]);
    settings.shutdown.drain_ms = 3_000;
    let gateway = Gateway::start(settings).await;
    assert_eq!(gateway.client.get_as(KEY, "/api/v1/urls").await.header("connection"), "");
    gateway.lifecycle.begin_drain();
    let answer = gateway.client.get_as(KEY, "/api/v1/urls").await;
    assert_eq!((answer.status, answer.header("connection")), (200, "close"));
    assert_eq!(gateway.client.get("/health").await.status, 503);
    assert_eq!(gateway.admin.get("/readyz").await.status, 503);
    assert_eq!(gateway.admin.get("/livez").await.status, 200);
    eventually("nobody listens any more", || async {
        tokio::net::TcpStream::connect(&gateway.address).await.is_err()
    })
    .await;
}
