//! Request and response bodies.

use std::{sync::atomic::Ordering, time::Duration};

use bytes::Bytes;
use futures::{SinkExt as _, channel::mpsc};
use http::Method;
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::Frame;
use linnet_domain::Scope;
use linnet_protocol::routes::{MAX_BULK_BODY_BYTES, ROUTES, RequestBody, Route};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::support::{
    Client, Gateway, KEY, REVOKED, Shortener, UploadEnd, eventually, in_time, no_redis, raw,
    raw_until, settings,
};

async fn gateway(shortener: &Shortener) -> Gateway {
    Gateway::start(settings(&no_redis(), &[shortener])).await
}

fn post(path: &str, headers: &str) -> String {
    format!("POST {path} HTTP/1.1\r\nhost: x\r\nx-api-key: {KEY}\r\n{headers}\r\n")
}

/// A request, and the sender of its body's chunks.
fn upload(
    client: &Client,
    path: &str,
) -> (mpsc::Sender<Result<Frame<Bytes>, std::io::Error>>, http::Request<super::support::Body>) {
    let (sender, receiver) = mpsc::channel(0);
    let body = StreamBody::new(receiver).boxed();
    let mut request = client.request(Method::POST, path, body);
    request.headers_mut().insert("x-api-key", KEY.parse().unwrap());
    (sender, request)
}

#[actix_web::test]
async fn body_with_too_large_content_length_is_rejected_and_the_connection_closed() {
    let shortener = Shortener::start();
    let gateway = gateway(&shortener).await;
    let head = post("/api/v1/urls", "content-length: 2097152\r\n");
    // `raw` returns when the connection closes.
    let response = raw(&gateway.address, head.as_bytes()).await;
    assert!(response.starts_with("HTTP/1.1 413 "), "{response}");
    assert!(response.contains("\"code\":\"too_large\""), "{response}");
    assert!(response.to_lowercase().contains("connection: close"), "{response}");
    assert_eq!(shortener.calls(), 0);
}

/// All routes with a JSON body, buffered and streamed.
#[actix_web::test]
async fn encoded_json_body_is_rejected() {
    let shortener = Shortener::start();
    let gateway = gateway(&shortener).await;
    let mut checked = 0;
    for route in ROUTES {
        for (method, scope) in route.methods {
            // The key has no other scopes.
            if ![Scope::UrlsRead, Scope::UrlsWrite].contains(scope) {
                continue;
            }
            let RequestBody::Json { .. } = route.body(method) else { continue };
            checked += 1;
            let segment = |name: &str| if name.starts_with('{') { "1" } else { name }.to_owned();
            let path = route.path.split('/').map(segment).collect::<Vec<_>>().join("/");
            for encoding in ["gzip", "br", "identity, gzip", "\"", "x"] {
                let head = format!(
                    "{method} {path} HTTP/1.1\r\nhost: x\r\nx-api-key: {KEY}\r\ncontent-length: 2\r\n\
                     connection: close\r\ncontent-encoding: {encoding}\r\n\r\n{{}}"
                );
                let response = raw(&gateway.address, head.as_bytes()).await;
                assert!(response.starts_with("HTTP/1.1 415 "), "{method} {path}: {response}");
                assert!(response.contains("unsupported_media_type"), "{response}");
            }
        }
    }
    assert!(checked > 3, "{checked} methods of routes");
    assert_eq!(shortener.calls(), 0);
}

#[actix_web::test]
async fn chunked_body_over_the_limit_is_rejected_and_the_connection_closed() {
    let shortener = Shortener::start();
    let mut settings = settings(&no_redis(), &[&shortener]);
    settings.limits.body_bytes = 4_096;
    let gateway = Gateway::start(settings).await;
    let mut bytes = post("/api/v1/urls", "transfer-encoding: chunked\r\n").into_bytes();
    for _ in 0..5 {
        bytes.extend_from_slice(format!("400\r\n{}\r\n", "x".repeat(1_024)).as_bytes());
    }
    // The last chunk is missing: the gateway must not wait for it.
    let response = raw(&gateway.address, &bytes).await;
    assert!(response.starts_with("HTTP/1.1 413 "), "{response}");
    assert!(response.to_lowercase().contains("connection: close"), "{response}");

    let fits = vec![b'x'; 4_096];
    assert_eq!(gateway.client.post_as(KEY, "/api/v1/urls", &fits).await.status, 200);
    assert_eq!(shortener.calls(), 1);
}

#[actix_web::test]
async fn incomplete_body_times_out() {
    let shortener = Shortener::start();
    let mut settings = settings(&no_redis(), &[&shortener]);
    settings.gateway.request_timeout_ms = 300;
    let gateway = Gateway::start(settings).await;
    let bytes = post("/api/v1/urls", "content-length: 10\r\n") + "12345";
    let response = raw(&gateway.address, bytes.as_bytes()).await;
    assert!(response.starts_with("HTTP/1.1 408 "), "{response}");
    assert!(response.contains("\"code\":\"body_timeout\""), "{response}");
    assert_eq!(shortener.calls(), 0);
}

#[actix_web::test]
async fn events_are_streamed_and_a_disconnect_cancels_the_call() {
    let shortener = Shortener::start();
    let gateway = gateway(&shortener).await;
    let mut request =
        gateway.client.request(Method::GET, "/api/v1/urls/events", super::support::full(b""));
    request.headers_mut().insert("x-api-key", KEY.parse().unwrap());
    let response = gateway.client.send(request).await.unwrap();
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    let mut body = response.into_body();
    let first = in_time("the first event", body.frame()).await.unwrap().unwrap();
    assert_eq!(first.into_data().unwrap(), "data: 1\n\n");
    assert!(!shortener.state.stream_dropped.load(Ordering::SeqCst));
    // The client disconnects.
    drop(body);
    eventually("the call is cancelled", || async {
        shortener.state.stream_dropped.load(Ordering::SeqCst)
    })
    .await;
}

#[actix_web::test]
async fn event_stream_outlives_the_request_timeout() {
    let shortener = Shortener::start();
    let mut settings = settings(&no_redis(), &[&shortener]);
    settings.gateway.request_timeout_ms = 200;
    let gateway = Gateway::start(settings).await;
    let mut request =
        gateway.client.request(Method::GET, "/api/v1/urls/events", super::support::full(b""));
    request.headers_mut().insert("x-api-key", KEY.parse().unwrap());
    let mut body = gateway.client.send(request).await.unwrap().into_body();
    in_time("the first event", body.frame()).await.unwrap().unwrap();
    let no_event = tokio::time::timeout(Duration::from_millis(600), body.frame()).await;
    assert!(no_event.is_err(), "the stream ended: {no_event:?}");
    shortener.state.next_event.notify_one();
    let second = in_time("the second event", body.frame()).await.unwrap().unwrap();
    assert_eq!(second.into_data().unwrap(), "data: 2\n\n");
}

#[actix_web::test]
async fn streaming_route_forwards_chunks_in_both_directions_as_they_arrive() {
    let shortener = Shortener::start();
    let gateway = gateway(&shortener).await;
    let (mut sender, request) = upload(&gateway.client, "/api/v1/test-stream");
    let client = gateway.client.clone();
    let response = actix_web::rt::spawn(async move { client.send(request).await.unwrap() });
    sender.send(Ok(Frame::data(Bytes::from("one")))).await.unwrap();
    let mut body = response.await.unwrap().into_body();
    for (chunk, next) in [("one", Some("two")), ("two", Some("three")), ("three", None)] {
        let echoed = in_time("an echo", body.frame()).await.unwrap().unwrap();
        assert_eq!(echoed.into_data().unwrap(), chunk);
        if let Some(next) = next {
            sender.send(Ok(Frame::data(Bytes::from(next)))).await.unwrap();
        }
    }
    drop(sender);
    assert!(in_time("the end", body.frame()).await.is_none());
    assert_eq!(*shortener.state.upload.lock().unwrap(), Some(UploadEnd::Complete));
}

#[actix_web::test]
async fn truncated_upload_never_looks_complete() {
    let shortener = Shortener::start();
    let gateway = gateway(&shortener).await;
    let mut stream = tokio::net::TcpStream::connect(&gateway.address).await.unwrap();
    let head = post("/api/v1/test-stream", "transfer-encoding: chunked\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.write_all(b"3\r\none\r\n").await.unwrap();
    let mut response = vec![0; 4_096];
    let read = in_time("the echo", stream.read(&mut response)).await.unwrap();
    assert!(String::from_utf8_lossy(&response[..read]).starts_with("HTTP/1.1 200"));
    drop(stream);
    eventually("the shortener sees the truncation", || async {
        *shortener.state.upload.lock().unwrap() == Some(UploadEnd::Truncated)
    })
    .await;
}

#[actix_web::test]
async fn early_rejection_reaches_a_client_that_is_still_sending() {
    let shortener = Shortener::start();
    let gateway = gateway(&shortener).await;
    for kind in ["transfer-encoding: chunked\r\n", "content-length: 10485760\r\n"] {
        for _ in 0..20 {
            let mut bytes = post("/api/v1/test-stream?reject", kind).into_bytes();
            if kind.starts_with('t') {
                bytes.extend_from_slice(b"800000\r\n");
            }
            // An incomplete body that exceeds all buffers between client and shortener.
            bytes.resize(bytes.len() + 8_000_000, b'x');
            let response = raw_until(&gateway.address, &bytes, Some("\"code\":\"early\"")).await;
            assert!(response.starts_with("HTTP/1.1 403 "), "{kind}: {response}");
            assert!(response.contains("\"code\":\"early\""), "{response}");
        }
    }
}

#[actix_web::test]
async fn response_to_head_has_no_body() {
    let shortener = Shortener::start();
    let gateway = gateway(&shortener).await;
    let headers = [("x-api-key", KEY)];
    let full = gateway.client.call(Method::GET, "/api/v1/urls/5", &headers, b"").await;
    let head = gateway.client.call(Method::HEAD, "/api/v1/urls/5", &headers, b"").await;
    assert_eq!((head.status, head.body.len()), (200, 0), "{head:?}");
    assert!(full.header("content-length").parse::<usize>().unwrap() > 0);
    assert_eq!(full.header("content-type"), "application/json");
}

/// The framing headers and the first bytes of bodies whose end never arrives. Each body exceeds the limit of a JSON
/// body, by its `Content-Length` or by its first chunk.
fn stalled_bodies() -> [(&'static str, String); 4] {
    let chunk = format!("11170\r\n{}\r\n", " ".repeat(70_000));
    [
        ("content-length: 1000000\r\n", " ".repeat(1_000)),
        ("content-length: 1000000\r\nexpect: 100-continue\r\n", String::new()),
        ("transfer-encoding: chunked\r\n", chunk.clone()),
        ("transfer-encoding: chunked\r\nexpect: 100-continue\r\n", chunk),
    ]
}

fn stalled(method: &Method, path: &str, key: &str, framing: &str, beginning: &str) -> String {
    format!(
        "{method} {path} HTTP/1.1\r\nhost: x\r\nx-api-key: {key}\r\ncontent-type: application/json\r\n\
         {framing}\r\n{beginning}"
    )
}

#[actix_web::test]
async fn must_25_only_routes_with_bodies_wait_for_one() {
    let shortener = Shortener::start();
    let gateway = gateway(&shortener).await;
    let methods = [
        Method::GET,
        Method::HEAD,
        Method::POST,
        Method::PUT,
        Method::PATCH,
        Method::DELETE,
        Method::OPTIONS,
        Method::TRACE,
    ];
    let paths = ROUTES.iter().map(|route| route.path).chain(["/api/v1/no-such", "/no-such"]);
    let mut tried = 0;
    for path in paths {
        let route = Route::of_path(path);
        for method in &methods {
            let known = actix_web::http::Method::from_bytes(method.as_str().as_bytes()).unwrap();
            let body =
                route.filter(|route| route.scope(&known).is_some()).map(|route| route.body(&known));
            let large = RequestBody::Json { max_bytes: MAX_BULK_BODY_BYTES };
            if body == Some(RequestBody::Upload) || body == Some(large) {
                continue;
            }
            let path = path.replace("{id}", "5");
            for key in [KEY, REVOKED] {
                let is_read = matches!(body, Some(RequestBody::Json { .. }));
                let expected: &[u16] = match (route, key) {
                    (None, _) => &[404],
                    (Some(_), _) if method == Method::OPTIONS => &[204],
                    (Some(_), _) if body.is_none() => &[405],
                    (Some(_), REVOKED) => &[401],
                    // The key has the scopes of links only.
                    (Some(_), _) if is_read => &[413, 403],
                    (Some(_), _) => &[200, 403],
                };
                for (framing, beginning) in stalled_bodies() {
                    let what = format!("{method} {path} {key} {framing:?}");
                    let bytes = stalled(method, &path, key, framing, &beginning).into_bytes();
                    // An interim response has no header. `raw_until` panics after a few seconds.
                    let response = raw_until(&gateway.address, &bytes, Some("date: ")).await;
                    let response = response.trim_start_matches("HTTP/1.1 100 Continue\r\n\r\n");
                    let status: u16 = response[9..12].parse().unwrap();
                    assert!(expected.contains(&status), "{what}: {response}");
                    assert!(
                        response.to_lowercase().contains("connection: close"),
                        "{what}: {response}"
                    );
                    tried += 1;
                }
            }
        }
    }
    assert!(tried > 1_000, "{tried}");
}

#[actix_web::test]
async fn must_26_bodies_in_progress_of_one_user_leave_room_for_others() {
    let shortener = Shortener::start();
    let mut settings = settings(&no_redis(), &[&shortener]);
    settings.gateway.anonymous = crate::config::Anonymous::Open;
    // One user can take an eighth: 100,000 bytes.
    settings.limits.body_bytes_in_progress = 800_000;
    let gateway = Gateway::start(settings).await;
    // A single body takes most of the share. Of several that arrive at once, some would be rejected.
    let head = format!(
        "POST /api/v1/urls HTTP/1.1\r\nhost: x\r\nx-api-key: {KEY}\r\ncontent-length: 65000\r\n\r\n{}",
        "x".repeat(60_000)
    );
    let held = std::cell::RefCell::new(None);
    let large = vec![b'x'; 50_000];
    // Each attempt sends the held body again: if both bodies arrive together, the gateway may have rejected the held
    // one.
    eventually("the body is in progress", || async {
        let mut stream = tokio::net::TcpStream::connect(&gateway.address).await.unwrap();
        stream.write_all(head.as_bytes()).await.unwrap();
        held.replace(Some(stream));
        gateway.client.post_as(KEY, "/api/v1/urls", &large).await.status == 503
    })
    .await;
    let rejected = gateway.client.post_as(KEY, "/api/v1/urls", &large).await;
    assert_eq!((rejected.status, rejected.header("retry-after")), (503, "1"));
    let other = gateway.client.call(Method::POST, "/api/v1/urls", &[], &large).await;
    assert_eq!(other.status, 200, "another client");
    assert_eq!(gateway.client.get_as(KEY, "/api/v1/urls").await.status, 200, "without a body");
    drop(held);
    eventually("the body is released", || async {
        gateway.client.post_as(KEY, "/api/v1/urls", &large).await.status == 200
    })
    .await;
}
