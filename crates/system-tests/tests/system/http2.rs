//! Requests over HTTP/2, which can have a body without announcing it.

use std::time::Duration;

use linnet_system_tests::{HttpsServer, Stack, http2::Http2Connection};
use serde_json::json;

/// Runs curl over HTTP/2. Returns the status and version, or curl's error.
async fn curl(server: &HttpsServer, path: &str, arguments: &[&str]) -> String {
    let output = tokio::process::Command::new("curl")
        .args([
            "-sSk",
            "--http2",
            "-m",
            "10",
            "-o",
            "/dev/null",
            "-w",
            "%{http_code} %{http_version}",
        ])
        .args(arguments)
        .arg(format!("https://{}{path}", server.address))
        .output()
        .await
        .expect("curl runs");
    String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).trim().to_owned()
}

#[tokio::test]
async fn must_25_no_body_over_http2_is_stored_by_nginx() {
    let stack = Stack::start().await;
    let link = stack.client().shorten(&json!({"original_url": "https://example.com/"})).await;
    let code = format!("/{}", link["short_code"].as_str().expect("a code"));
    let server = stack.start_https(&[]).await;
    let paths = [
        &code,
        "/absent1",
        "/",
        "/health",
        "/docs",
        "/docs/",
        "/openapi.json",
        "/problems/",
        "/api",
        "/api/v1/urls",
        "/api/v1/urls/bulk",
    ];
    let mut held = Vec::new();
    for path in paths {
        for method in ["GET", "POST", "DELETE"] {
            let mut connection = Http2Connection::open(server.address).await.expect("a connection");
            let body = vec![b' '; 60_000];
            connection.request(method, path, &[], Some(&body)).await.expect("a request");
            held.push(connection);
        }
    }
    // nginx has read the bodies before it answers a later request.
    for _ in 0..3 {
        assert_eq!(curl(&server, "/health", &[]).await, "200 2");
        tokio::time::sleep(Duration::from_millis(100)).await;
        let stored = server.stored_body_bytes();
        assert!(stored <= held.len() as u64, "{stored} bytes of bodies are in files");
    }
}

#[tokio::test]
async fn requests_with_bodies_over_http2_get_their_responses() {
    let stack = Stack::start().await;
    let server = stack.start_https(&[]).await;
    let key = format!("Authorization: Bearer {}", stack.admin_key);
    let link = stack
        .client()
        .shorten(&json!({"original_url": "https://example.com/", "redirect_status": 307}))
        .await;
    let code = format!("/{}", link["short_code"].as_str().expect("a code"));
    assert_eq!(curl(&server, &code, &[]).await, "307 2");
    assert_eq!(curl(&server, &code, &["-d", "a=b"]).await, "307 2", "a form");
    let json = ["-H", &key, "-H", "Content-Type: application/json"];
    let create = [&json[..], &["-d", r#"{"original_url":"https://example.com/2"}"#]].concat();
    assert_eq!(curl(&server, "/api/v1/urls", &create).await, "201 2");
    // The gateway refuses these before the end of the body.
    let large = format!("\"{}\"", "a".repeat(300_000));
    let too_large = [&json[..], &["-d", &large]].concat();
    assert_eq!(curl(&server, "/api/v1/urls", &too_large).await, "413 2");
    assert_eq!(curl(&server, "/api/v1/urls", &["-d", &large[..60_000]]).await, "401 2");
    for page in ["/", "/health", "/docs/", "/openapi.json", "/problems/", "/api"] {
        assert_eq!(curl(&server, page, &["-d", "a=b"]).await, "413 2", "{page}");
    }
}
