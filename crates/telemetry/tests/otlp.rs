//! Tests span export to a collector, in a process of its own because [`Telemetry::init`] is global.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{SocketAddr, TcpListener},
    sync::mpsc::{Receiver, channel},
    time::Duration,
};

use actix_web::{
    App, HttpResponse,
    test::{TestRequest, call_service, init_service, read_body},
    web,
};
use linnet_telemetry::{
    RequestTelemetry, ServiceInfo, Telemetry, TelemetrySettings, context, trace_headers,
};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const PARENT: &str = "00f067aa0ba902b7";

/// Responds to each export with 200, and sends its request line and body.
fn collector() -> (SocketAddr, Receiver<(String, Vec<u8>)>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (exports, received) = channel();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = BufReader::new(stream.unwrap());
            let mut request_line = String::new();
            stream.read_line(&mut request_line).unwrap();
            let mut length = 0;
            loop {
                let mut line = String::new();
                stream.read_line(&mut line).unwrap();
                if line == "\r\n" {
                    break;
                }
                if let Some(value) = line.to_lowercase().strip_prefix("content-length:") {
                    length = value.trim().parse().unwrap();
                }
            }
            let mut body = vec![0; length];
            stream.read_exact(&mut body).unwrap();
            let response = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
            stream.get_mut().write_all(response).unwrap();
            exports.send((request_line, body)).unwrap();
        }
    });
    (address, received)
}

fn contains_hex(body: &[u8], hex: &str) -> bool {
    let bytes: Vec<u8> = (0..hex.len() / 2)
        .map(|index| u8::from_str_radix(&hex[2 * index..2 * index + 2], 16).unwrap())
        .collect();
    body.windows(bytes.len()).any(|window| window == bytes)
}

#[actix_web::test]
async fn the_clients_trace_reaches_the_collector_and_the_next_service() {
    let (address, exports) = collector();
    let settings = TelemetrySettings {
        otlp_endpoint: Some(format!("http://{address}/")),
        // Span export does not depend on the log level.
        log_level: "error".to_owned(),
        ..TelemetrySettings::default()
    };
    let service = ServiceInfo { name: "exporting", version: "1.2.3", release: "r" };
    let telemetry = Telemetry::init(&settings, service).unwrap();
    let requests = RequestTelemetry::new(&telemetry.meter(), &settings);
    let handler = || async {
        context::observe_query("find_link", async {
            let trace_id = context::trace_id().unwrap();
            HttpResponse::Ok().body(format!("{trace_id} {}", context::traceparent().unwrap()))
        })
        .await
    };
    let app = init_service(App::new().wrap(requests).route("/x/{y}", web::get().to(handler))).await;
    let request = TestRequest::get()
        .uri("/x/1")
        .insert_header(("traceparent", format!("00-{TRACE}-{PARENT}-ff")))
        .to_request();
    let body = read_body(call_service(&app, request).await).await;
    let body = String::from_utf8(body.to_vec()).unwrap();
    let (trace_id, outgoing) = body.split_once(' ').unwrap();
    let outgoing = trace_headers::parse_traceparent(outgoing).unwrap();
    assert_eq!((trace_id, outgoing.trace_id, outgoing.flags), (TRACE, TRACE, 1));
    let quoting = TestRequest::get().uri("/x/lnt_MarkedKey").to_request();
    assert_eq!(call_service(&app, quoting).await.status(), 200);

    telemetry.shutdown();
    let (path, spans) = exports.recv_timeout(Duration::from_secs(10)).unwrap();
    assert!(path.starts_with("POST /v1/traces "), "{path}");
    assert!(contains_hex(&spans, TRACE), "the client's trace");
    assert!(contains_hex(&spans, PARENT), "the client's span is the parent");
    assert!(contains_hex(&spans, outgoing.parent_id), "the next service's parent is exported");
    let has = |text: &str| spans.windows(text.len()).any(|window| window == text.as_bytes());
    for text in ["exporting", "GET /x/{y}", "find_link", "/x/1"] {
        assert!(has(text), "{text}");
    }
    assert!(!has("MarkedKey"), "a path that the client chooses");
}
