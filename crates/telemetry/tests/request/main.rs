//! Tests of the request middleware, in an actix application and behind a real socket.

use std::{
    convert::Infallible,
    time::{Duration, Instant},
};

use actix_web::{
    App, Error, HttpResponse, HttpServer,
    body::{BodySize, MessageBody},
    dev::{Service, ServiceResponse},
    http::{Method, StatusCode},
    middleware,
    test::{TestRequest, call_service, init_service, read_body, try_call_service},
    web,
};
use bytes::Bytes;
use futures::{StreamExt as _, channel::mpsc};
use linnet_telemetry::{
    RequestTelemetry, TelemetrySettings, context,
    testing::{self, LogReader, MetricsReader},
};
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const TRACEPARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
const COUNT: &str = "http_server_request_duration_seconds_count";
const ACTIVE: &str = "http_server_active_requests";

fn middleware() -> (RequestTelemetry, MetricsReader) {
    let (telemetry, reader) = testing::telemetry();
    let settings = TelemetrySettings { query_warn_count: 2, ..TelemetrySettings::default() };
    (RequestTelemetry::new(&telemetry.meter(), &settings), reader)
}

async fn queries(count: web::Path<u32>) -> HttpResponse {
    for _ in 0..count.into_inner() {
        context::observe_query("select", async {}).await;
    }
    HttpResponse::Ok().body(context::traceparent().unwrap_or_default())
}

async fn hang() -> HttpResponse {
    futures::future::pending().await
}

async fn endless() -> HttpResponse {
    let chunk = Bytes::from(vec![b'x'; 64 * 1024]);
    HttpResponse::Ok()
        .streaming(futures::stream::repeat_with(move || Ok::<_, Infallible>(chunk.clone())))
}

async fn fail() -> Result<HttpResponse, Error> {
    Err(actix_web::error::ErrorInternalServerError("broken"))
}

fn routes(cfg: &mut web::ServiceConfig) {
    cfg.route("/queries/{count}", web::get().to(queries))
        .route("/hang", web::get().to(hang))
        .route("/endless", web::get().to(endless))
        .route("/empty", web::get().to(|| async { HttpResponse::NoContent().finish() }))
        .route("/fail", web::get().to(fail));
}

/// The application under test. A macro, because its type cannot be named.
macro_rules! app {
    ($telemetry:expr) => {
        init_service(App::new().wrap($telemetry).configure(routes)).await
    };
}

// Below the macro, which it uses.
mod conventions;

/// The application behind a real socket: its address, and a function that stops it. A macro, because the lints allow
/// `unwrap` in tests but not in functions.
macro_rules! real_server {
    ($telemetry:expr) => {{
        let telemetry = $telemetry;
        let server = HttpServer::new(move || App::new().wrap(telemetry.clone()).configure(routes))
            .workers(1)
            .disable_signals()
            .bind(("127.0.0.1", 0))
            .unwrap();
        let address = server.addrs()[0];
        let server = server.run();
        let handle = server.handle();
        let running = tokio::spawn(server);
        let stop = async move || {
            handle.stop(false).await;
            running.await.unwrap().unwrap();
        };
        (address, stop)
    }};
}

fn get(path: &str) -> TestRequest {
    TestRequest::get().uri(path)
}

fn requests(logs: &LogReader) -> Vec<Value> {
    logs.lines().into_iter().filter(|line| line["message"] == "request").collect()
}

fn only_request(logs: &LogReader) -> Value {
    let mut lines = requests(logs);
    assert_eq!(lines.len(), 1, "{lines:#?}");
    lines.remove(0)
}

/// Waits for a condition that another thread fulfills.
async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !holds() {
        assert!(Instant::now() < deadline, "not within 20 s: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[actix_web::test]
async fn the_clients_trace_and_request_id_are_logged_and_forwarded() {
    let logs = testing::capture_logs();
    let (telemetry, _) = middleware();
    let app = app!(telemetry);
    let request = get("/queries/2")
        .insert_header(("traceparent", TRACEPARENT))
        .insert_header(("x-request-id", "caller-1234"))
        .to_request();
    let response = call_service(&app, request).await;
    assert_eq!(response.headers().get("x-request-id").unwrap(), "caller-1234");
    let outgoing = read_body(response).await;

    let line = only_request(&logs);
    assert_eq!(line["trace_id"], TRACE);
    assert_eq!(line["request_id"], "caller-1234");
    assert_eq!(line["method"], "GET");
    assert_eq!(line["route"], "/queries/{count}");
    assert_eq!(line["status"], 200);
    assert_eq!(line["level"], "INFO");
    assert!(line["duration_ms"].is_f64(), "{line}");
    assert_eq!(line["db.queries"], 2);
    assert!(line["db.time_ms"].is_f64(), "{line}");
    let outgoing = std::str::from_utf8(&outgoing).unwrap();
    assert!(outgoing.starts_with(&format!("00-{TRACE}-")) && outgoing.ends_with("-01"));
    assert!(
        !outgoing.contains("00f067aa0ba902b7"),
        "the header has a span of this request: {outgoing}"
    );
}

#[actix_web::test]
async fn a_malformed_traceparent_or_request_id_is_replaced() {
    let logs = testing::capture_logs();
    let (telemetry, _) = middleware();
    let app = app!(telemetry);
    for broken in ["00-nonsense-01", "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01"] {
        let request = get("/empty")
            .insert_header(("traceparent", broken))
            .insert_header(("x-request-id", "bad id;"))
            .to_request();
        let response = call_service(&app, request).await;
        let id = response.headers().get("x-request-id").unwrap().to_str().unwrap();
        assert!(id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit()), "{id}");
        read_body(response).await;
    }
    // Two headers count as none.
    let request = get("/empty")
        .append_header(("traceparent", TRACEPARENT))
        .append_header(("traceparent", TRACEPARENT))
        .to_request();
    read_body(call_service(&app, request).await).await;

    let mut ids: Vec<_> =
        requests(&logs).iter().map(|line| line["trace_id"].as_str().unwrap().to_owned()).collect();
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), 3, "{ids:?}");
    assert!(ids.iter().all(|id| id.len() == 32 && id != TRACE), "{ids:?}");
}

#[actix_web::test]
async fn only_a_request_with_a_valid_traceparent_continues_a_trace() {
    let (telemetry, _) = middleware();
    let handler = || async { HttpResponse::Ok().body(context::continues_trace().to_string()) };
    let app = init_service(App::new().wrap(telemetry).route("/x", web::get().to(handler))).await;
    for (header, continues) in [(TRACEPARENT, "true"), ("00-nonsense-01", "false")] {
        let request = get("/x").insert_header(("traceparent", header)).to_request();
        assert_eq!(read_body(call_service(&app, request).await).await, continues, "{header}");
    }
    assert!(!context::continues_trace());
}

#[actix_web::test]
async fn a_request_above_the_query_limit_logs_one_warning() {
    let logs = testing::capture_logs();
    let (telemetry, _) = middleware();
    let app = app!(telemetry);
    for count in [2, 3] {
        let request = get(&format!("/queries/{count}")).to_request();
        read_body(call_service(&app, request).await).await;
    }
    let lines = logs.lines();
    let warned: Vec<_> = lines.iter().filter(|line| line["level"] == "WARN").collect();
    assert_eq!(warned.len(), 1, "{warned:#?}");
    assert_eq!((&warned[0]["db.queries"], &warned[0]["limit"]), (&3.into(), &2.into()));
    assert_eq!(warned[0]["request_id"], requests(&logs)[1]["request_id"]);
}

#[actix_web::test]
async fn labels_have_no_values_that_clients_choose() {
    let (telemetry, reader) = middleware();
    let app = app!(telemetry);
    for number in 0..50 {
        let request = TestRequest::with_uri(&format!("/nothing/{number}"))
            .method(Method::from_bytes(format!("VERB{number}").as_bytes()).unwrap())
            .to_request();
        read_body(call_service(&app, request).await).await;
    }
    let labels = [("http_request_method", "_OTHER"), ("http_response_status_code", "404")];
    assert_eq!(reader.value(COUNT, &labels), Some(50.0));
    let text = reader.text();
    assert_eq!(text.lines().filter(|line| line.starts_with(COUNT)).count(), 1, "{text}");
    assert!(!text.contains("http_route"), "no route matches: {text}");
    assert!(!text.contains("nothing") && !text.contains("VERB"), "{text}");
}

#[actix_web::test]
async fn a_failure_is_logged_as_an_error_and_counted_by_status() {
    let logs = testing::capture_logs();
    let (telemetry, reader) = middleware();
    let app = app!(telemetry);
    let response = call_service(&app, get("/fail").to_request()).await;
    read_body(response).await;
    let line = only_request(&logs);
    assert_eq!((&line["status"], &line["level"]), (&500.into(), &"ERROR".into()));
    assert_eq!(reader.value(COUNT, &[("http_response_status_code", "500")]), Some(1.0));
}

#[actix_web::test]
async fn an_error_of_an_inner_middleware_has_the_request_id() {
    let logs = testing::capture_logs();
    let (telemetry, reader) = middleware();
    let refuse = middleware::from_fn(|_request, _next: middleware::Next<_>| async {
        Err::<ServiceResponse, _>(actix_web::error::ErrorForbidden("no"))
    });
    let app = init_service(App::new().wrap(refuse).wrap(telemetry).configure(routes)).await;
    let request = get("/empty").insert_header(("x-request-id", "caller-1234")).to_request();
    let Err(error) = try_call_service(&app, request).await else {
        panic!("the middleware rejects")
    };
    let response = error.error_response();
    assert_eq!(response.status(), StatusCode::FORBIDDEN);
    assert_eq!(response.headers().get("x-request-id").unwrap(), "caller-1234");
    assert_eq!(only_request(&logs)["status"], 403);
    assert_eq!(reader.value(ACTIVE, &[]), Some(0.0));
}

#[actix_web::test]
async fn a_response_without_a_body_ends_with_its_head() {
    let logs = testing::capture_logs();
    let (telemetry, reader) = middleware();
    let app = app!(telemetry);
    // Dropped without being polled, like the server does with an empty body.
    drop(call_service(&app, get("/empty").to_request()).await);
    assert_eq!(only_request(&logs)["status"], 204);
    assert_eq!(reader.value(ACTIVE, &[]), Some(0.0));
}

#[actix_web::test]
async fn a_streamed_body_is_timed_to_its_end() {
    let logs = testing::capture_logs();
    let (telemetry, reader) = middleware();
    let (chunks, stream) = mpsc::unbounded::<&'static str>();
    let stream = std::sync::Arc::new(std::sync::Mutex::new(Some(stream)));
    let handler = move || {
        let stream = stream.lock().unwrap().take().unwrap();
        let body = stream.then(|text| async move {
            context::observe_query("row", async {}).await;
            Ok::<_, Infallible>(Bytes::from_static(text.as_bytes()))
        });
        futures::future::ready(HttpResponse::Ok().streaming(Box::pin(body)))
    };
    let route = web::get().to(handler);
    let app = init_service(App::new().wrap(telemetry).route("/stream", route)).await;

    let response = call_service(&app, get("/stream").to_request()).await;
    assert_eq!(response.response().body().size(), BodySize::Stream);
    let mut body = Box::pin(response.into_body());
    chunks.unbounded_send("one").unwrap();
    let first = std::future::poll_fn(|task| body.as_mut().poll_next(task)).await;
    assert_eq!(first.unwrap().unwrap(), "one");
    assert_eq!(reader.value(COUNT, &[]), None, "the response has not ended");
    assert_eq!(reader.value(ACTIVE, &[("http_request_method", "GET")]), Some(1.0));
    assert!(requests(&logs).is_empty());

    drop(chunks);
    let end = std::future::poll_fn(|task| body.as_mut().poll_next(task)).await;
    assert!(end.is_none());
    drop(body);
    assert_eq!(reader.value(COUNT, &[("http_route", "/stream")]), Some(1.0));
    assert_eq!(reader.value(ACTIVE, &[]), Some(0.0));
    let line = only_request(&logs);
    assert_eq!((&line["status"], &line["db.queries"]), (&200.into(), &1.into()));
}

#[actix_web::test]
async fn a_dropped_request_is_logged_with_status_499() {
    let logs = testing::capture_logs();
    let (telemetry, reader) = middleware();
    let app = app!(telemetry);
    let mut hanging = Box::pin(app.call(get("/hang").to_request()));
    assert!(futures::poll!(&mut hanging).is_pending());
    assert_eq!(reader.value(ACTIVE, &[]), Some(1.0));
    drop(hanging);
    let line = only_request(&logs);
    assert_eq!((&line["status"], &line["route"]), (&499.into(), &"/hang".into()));
    assert_eq!(reader.value(ACTIVE, &[]), Some(0.0));
}

#[actix_web::test]
async fn clients_that_reset_their_connection_do_not_leak_the_gauge() {
    let (telemetry, reader) = middleware();
    let (address, stop) = real_server!(telemetry);

    for path in ["/hang", "/endless"] {
        for _ in 0..5 {
            let mut client = TcpStream::connect(address).await.unwrap();
            let head = format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n");
            client.write_all(head.as_bytes()).await.unwrap();
            if path == "/endless" {
                client.read_exact(&mut [0; 1024]).await.unwrap();
            } else {
                let active = || reader.value(ACTIVE, &[]) == Some(1.0);
                eventually("the request is being handled", active).await;
            }
            // A reset, like that of a killed client.
            client.set_zero_linger().unwrap();
            drop(client);
            eventually("the gauge is 0", || reader.value(ACTIVE, &[]) == Some(0.0)).await;
        }
        let labels = [("http_route", path), ("http_response_status_code", "499")];
        assert_eq!(reader.value(COUNT, &labels), Some(5.0), "{}", reader.text());
    }
    stop().await;
}

#[actix_web::test]
async fn responses_over_a_real_socket_are_counted_with_their_status() {
    let (telemetry, reader) = middleware();
    let (address, stop) = real_server!(telemetry);

    for (method, path) in [("GET", "/queries/1"), ("GET", "/empty"), ("HEAD", "/none")] {
        let mut client = TcpStream::connect(address).await.unwrap();
        let head = format!("{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        client.write_all(head.as_bytes()).await.unwrap();
        client.read_to_end(&mut Vec::new()).await.unwrap();
    }
    eventually("all three have ended", || reader.value(COUNT, &[]) == Some(3.0)).await;
    for status in ["200", "204", "404"] {
        let labels = [("http_response_status_code", status)];
        assert_eq!(reader.value(COUNT, &labels), Some(1.0), "{status}: {}", reader.text());
    }
    assert_eq!(reader.value(ACTIVE, &[]), Some(0.0));
    stop().await;
}
