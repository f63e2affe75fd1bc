//! Long responses end with the key that authorized them.

use std::{
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use bytes::Bytes;
use chrono::Utc;
use futures::SinkExt as _;
use http::{Method, Response};
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::{Frame, Incoming};
use linnet_protocol::invalidation::Invalidation;
use tokio::task::JoinHandle;

use super::support::{
    Gateway, KEY, Redis, Shortener, eventually, full, in_time, no_redis, settings,
};

/// The guaranteed time from the end of a key to the end of its responses.
const WITHIN: Duration = Duration::from_secs(1);

/// Opens an event stream and reads its first event.
async fn open(gateway: &Gateway) -> Incoming {
    let mut request = gateway.client.request(Method::GET, "/api/v1/urls/5/live", full(b""));
    request.headers_mut().insert("x-api-key", KEY.parse().unwrap());
    let response = gateway.client.send(request).await.unwrap();
    assert_eq!(response.status(), 200);
    let mut body = response.into_body();
    let first = in_time("the first event", body.frame()).await.unwrap().unwrap();
    assert_eq!(first.into_data().unwrap(), "data: 1\n\n");
    body
}

type BodySender = futures::channel::mpsc::Sender<std::io::Result<Frame<Bytes>>>;

/// Sends the first chunk of an upload. The body ends when the sender is dropped.
async fn begin_upload(
    gateway: &Gateway,
    method: Method,
    path: &str,
) -> (BodySender, JoinHandle<Response<Incoming>>) {
    let (mut sender, receiver) = futures::channel::mpsc::channel(0);
    let body = StreamBody::new(receiver).boxed();
    let mut request = gateway.client.request(method, path, body);
    request.headers_mut().insert("x-api-key", KEY.parse().unwrap());
    let client = gateway.client.clone();
    let response = actix_web::rt::spawn(async move { client.send(request).await.unwrap() });
    sender.send(Ok(Frame::data(Bytes::from("one")))).await.unwrap();
    (sender, response)
}

async fn ends_cleanly(body: &mut Incoming) {
    assert!(in_time("the end of the stream", body.frame()).await.is_none());
}

#[actix_web::test]
async fn must_27_event_stream_ends_when_its_key_is_revoked() {
    let shortener = Shortener::start();
    let redis = Redis::start().await;
    let gateway = Gateway::start_with(&redis, settings(&redis.url, &[&shortener])).await;
    let mut streams = vec![open(&gateway).await, open(&gateway).await];
    let lookups = shortener.lookups();
    tokio::time::sleep(Duration::from_millis(1_200)).await;
    assert_eq!(shortener.lookups(), lookups, "a live bus needs no lookups");

    shortener.state.revoked.store(true, Ordering::SeqCst);
    let revoked_at = Instant::now();
    redis.publish(&Invalidation::Key { id: "Zz9xYz99".into() }).await;
    redis.publish(&Invalidation::Key { id: "Ab3xYz01".into() }).await;
    for stream in &mut streams {
        ends_cleanly(stream).await;
    }
    assert!(revoked_at.elapsed() < WITHIN, "{:?}", revoked_at.elapsed());
    eventually("the calls are cancelled", || async {
        shortener.state.stream_dropped.load(Ordering::SeqCst)
    })
    .await;
    assert_eq!(gateway.client.get_as(KEY, "/api/v1/urls").await.status, 401);
}

#[actix_web::test]
async fn must_27_event_stream_ends_without_redis_when_its_key_is_revoked() {
    let shortener = Shortener::start();
    let gateway = Gateway::start(settings(&no_redis(), &[&shortener])).await;
    let mut stream = open(&gateway).await;
    let remains = tokio::time::timeout(Duration::from_millis(2_500), stream.frame()).await;
    assert!(remains.is_err(), "a valid key keeps its stream: {remains:?}");
    shortener.state.revoked.store(true, Ordering::SeqCst);
    let revoked_at = Instant::now();
    ends_cleanly(&mut stream).await;
    assert!(revoked_at.elapsed() < WITHIN, "{:?}", revoked_at.elapsed());
}

#[actix_web::test]
async fn must_27_event_stream_ends_at_the_expiry_of_its_key() {
    let shortener = Shortener::start();
    let redis = Redis::start().await;
    let gateway = Gateway::start_with(&redis, settings(&redis.url, &[&shortener])).await;
    let expires_at = Utc::now() + Duration::from_millis(1_500);
    *shortener.state.expires_at.lock().unwrap() = Some(expires_at);
    let mut stream = open(&gateway).await;
    ends_cleanly(&mut stream).await;
    let late = Utc::now() - expires_at;
    assert!(late >= chrono::Duration::milliseconds(-50), "{late}");
    assert!(late.to_std().unwrap_or_default() < WITHIN, "{late}");
}

#[actix_web::test]
async fn must_27_upload_and_other_bodies_are_cut_off_when_their_key_is_revoked() {
    let shortener = Shortener::start();
    let redis = Redis::start().await;
    let gateway = Gateway::start_with(&redis, settings(&redis.url, &[&shortener])).await;
    let (_sender, response) = begin_upload(&gateway, Method::POST, "/api/v1/test-stream").await;
    let mut body = response.await.unwrap().into_body();
    in_time("an echo", body.frame()).await.unwrap().unwrap();

    shortener.state.revoked.store(true, Ordering::SeqCst);
    redis.publish(&Invalidation::Key { id: "Ab3xYz01".into() }).await;
    let revoked_at = Instant::now();
    let end = in_time("the end of the body", body.frame()).await;
    assert!(matches!(end, Some(Err(_))), "an incomplete body must not look complete: {end:?}");
    assert!(revoked_at.elapsed() < WITHIN, "{:?}", revoked_at.elapsed());
}

#[actix_web::test]
async fn must_27_upload_without_a_response_gets_401_when_its_key_is_revoked() {
    let shortener = Shortener::start();
    let redis = Redis::start().await;
    let gateway = Gateway::start_with(&redis, settings(&redis.url, &[&shortener])).await;
    // A route that responds after the end of its body.
    let (sender, response) = begin_upload(&gateway, Method::PATCH, "/api/v1/urls/bulk").await;
    let calls = || shortener.state.calls.load(Ordering::SeqCst);
    eventually("the shortener receives the upload", || async { calls() == 1 }).await;

    shortener.state.revoked.store(true, Ordering::SeqCst);
    redis.publish(&Invalidation::Key { id: "Ab3xYz01".into() }).await;
    let revoked_at = Instant::now();
    let response = in_time("a response", response).await.unwrap();
    assert_eq!(response.status(), 401);
    assert!(revoked_at.elapsed() < WITHIN, "{:?}", revoked_at.elapsed());
    drop(sender);
}

#[actix_web::test]
async fn upload_whose_key_cannot_be_verified_gets_503() {
    let shortener = Shortener::start();
    let gateway = Gateway::start(settings(&no_redis(), &[&shortener])).await;
    let (sender, response) = begin_upload(&gateway, Method::PATCH, "/api/v1/urls/bulk").await;
    let calls = || shortener.state.calls.load(Ordering::SeqCst);
    eventually("the shortener receives the upload", || async { calls() == 1 }).await;

    // Without Redis, the gateway must verify the key again and again.
    shortener.state.hold_lookups.store(true, Ordering::SeqCst);
    let response = in_time("a response", response).await.unwrap();
    assert_eq!(response.status(), 503);
    assert_eq!(response.headers()["retry-after"], "1");
    assert!(!response.headers().contains_key("www-authenticate"));
    drop(sender);
}

#[actix_web::test]
async fn bodies_and_uploads_continue_when_redis_becomes_unavailable() {
    let shortener = Shortener::start();
    let mut redis = Redis::start().await;
    let gateway = Gateway::start_with(&redis, settings(&redis.url, &[&shortener])).await;
    let (mut sender, response) = begin_upload(&gateway, Method::POST, "/api/v1/test-stream").await;
    let mut body = response.await.unwrap().into_body();
    in_time("an echo", body.frame()).await.unwrap().unwrap();
    // Longer than a verification is valid without the bus.
    tokio::time::sleep(Duration::from_millis(1_200)).await;
    redis.stop();
    // Each chunk polls the lease, also between the end of the bus and the next verification.
    let until = Instant::now() + Duration::from_millis(2_500);
    while Instant::now() < until {
        sender.send(Ok(Frame::data(Bytes::from("more")))).await.unwrap();
        let echo = in_time("an echo", body.frame()).await.expect("the body has not ended");
        assert_eq!(echo.expect("the key is valid").into_data().unwrap(), "more");
    }
}
