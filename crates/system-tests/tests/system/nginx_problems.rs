//! Errors that nginx returns itself: the same problems as those of the gateway.

use std::{collections::BTreeMap, fs, net::SocketAddr};

use linnet_protocol::problem_code::ProblemCode;
use linnet_system_tests::{Stack, https, raw, services::workspace, stack::BASE_URL};
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

/// Headers of every problem of the gateway.
const SHARED_HEADERS: [&str; 6] = [
    "cache-control",
    "content-security-policy",
    "content-type",
    "permissions-policy",
    "referrer-policy",
    "x-content-type-options",
];

/// A response's headers, with names in lower case, and its body.
fn parts(response: &str) -> (BTreeMap<String, String>, &str) {
    let (head, body) = response.split_once("\r\n\r\n").expect(response);
    let lines = head.lines().skip(1).filter_map(|line| line.split_once(": "));
    (lines.map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned())).collect(), body)
}

fn code_of(code: &str) -> ProblemCode {
    *ProblemCode::ALL.iter().find(|known| known.as_str() == code).expect(code)
}

/// Checks a problem of nginx against the table of codes and the headers of one of the gateway.
fn assert_is_problem(response: &str, code: &str, gateway: &BTreeMap<String, String>) {
    let (headers, body) = parts(response);
    let code = code_of(code);
    let problem: Value = serde_json::from_str(body).expect(response);
    assert!(response.starts_with(&format!("HTTP/1.1 {} ", code.status().as_u16())), "{response}");
    assert_eq!(problem["type"], format!("{BASE_URL}/problems/{}", code.as_str()), "{response}");
    assert_eq!(problem["status"], code.status().as_u16(), "{response}");
    assert_eq!(
        (&problem["code"], &problem["title"]),
        (&code.as_str().into(), &code.title().into())
    );
    assert!(problem["detail"].as_str().is_some_and(|detail| detail.ends_with('.')), "{response}");
    assert_eq!(headers.get("x-request-id").map(String::as_str), problem["request_id"].as_str());
    for name in SHARED_HEADERS {
        assert!(headers.contains_key(name), "{name}: {response}");
        assert_eq!(headers.get(name), gateway.get(name), "{name}: {response}");
    }
    let promises_retry = matches!(code.status().as_u16(), 429 | 502 | 503 | 504);
    assert_eq!(headers.contains_key("retry-after"), promises_retry, "{response}");
    assert_eq!(headers.contains_key("allow"), code.status() == 405, "{response}");
}

/// Requests below `/api/` that nginx answers itself, each with the code of its problem.
fn refused_requests() -> Vec<(Vec<u8>, &'static str)> {
    let request = |line: &str, headers: &str| {
        format!("{line} HTTP/1.1\r\nHost: lnt.test\r\nConnection: close\r\n{headers}\r\n")
            .into_bytes()
    };
    vec![
        (request("TRACE /api/v1/urls", ""), "method_not_allowed"),
        (request("GET /api/v1/urls", "Content-Length: x\r\n"), "bad_request"),
        (
            request("GET /api/v1/urls", &format!("X-Long: {}\r\n", "x".repeat(9_000))),
            "headers_too_large",
        ),
        (request("POST /api/v1/urls", "Transfer-Encoding: gzip, chunked\r\n"), "not_implemented"),
    ]
}

/// Requests that reach a location of the gateway.
fn refused_api_requests() -> Vec<(Vec<u8>, &'static str)> {
    let request = |line: &str, headers: &str| {
        format!("{line} HTTP/1.1\r\nHost: lnt.test\r\nConnection: close\r\n{headers}\r\n")
            .into_bytes()
    };
    vec![
        (request("GET /api/v1/urls?a=\"", ""), "bad_request"),
        (request("GET /api/../internal/v1/keys", ""), "not_found"),
        (request("POST /api/v1/urls", "Content-Length: 3000000\r\n"), "too_large"),
    ]
}

async fn headers_of_a_gateway_problem(address: SocketAddr) -> BTreeMap<String, String> {
    let response = raw::get(address, b"/api/v1/nothing", &[]).await;
    assert_eq!(response.status, Some(404), "{}", response.text);
    let (headers, _) = parts(&response.text);
    headers
}

#[tokio::test]
async fn every_problem_of_nginx_has_the_type_title_and_headers_of_the_gateways() {
    let mut stack = Stack::builder()
        .nginx_env("LINNET_NGINX_UNLIMITED", "")
        .nginx_env("LINNET_NGINX_API_RATE", "1r/m")
        .nginx_env("LINNET_NGINX_API_BURST", 60)
        .start()
        .await;
    let address = stack.client().address();
    let gateway = headers_of_a_gateway_problem(address).await;
    for (request, code) in refused_requests().into_iter().chain(refused_api_requests()) {
        let response = raw::exchange(address, &request).await;
        assert_is_problem(&response.text, code, &gateway);
    }
    stack.gateways[0].stop().await;
    let get = b"GET /api/v1/urls HTTP/1.1\r\nHost: lnt.test\r\nConnection: close\r\n\r\n";
    let response = raw::exchange(address, get).await;
    assert!(response.text.starts_with("HTTP/1.1 502 "), "{}", response.text);
    // The code belongs to 503 elsewhere: the service cannot be reached.
    let (headers, body) = parts(&response.text);
    let problem: Value = serde_json::from_str(body).unwrap();
    assert_eq!(problem["type"], format!("{BASE_URL}/problems/unavailable"));
    assert_eq!((&problem["status"], &problem["code"]), (&502.into(), &"unavailable".into()));
    assert_eq!(headers.get("retry-after").map(String::as_str), Some("5"));
    for name in SHARED_HEADERS {
        assert_eq!(headers.get(name), gateway.get(name), "{name}: {}", response.text);
    }
    for _ in 0..61 {
        let response = raw::exchange(address, get).await;
        if response.status == Some(429) {
            assert_is_problem(&response.text, "rate_limited", &gateway);
            return;
        }
    }
    panic!("no request of 61 exceeds the limit");
}

#[tokio::test]
async fn problems_are_the_same_with_tls_and_on_the_server_that_redirects_http() {
    let stack = Stack::start().await;
    let gateway = headers_of_a_gateway_problem(stack.client().address()).await;
    let server = stack.start_https(&[]).await;
    for (request, code) in refused_requests().into_iter().chain(refused_api_requests()) {
        let connection = https::connect(server.address, "localhost", &[]).await.unwrap();
        let mut stream = connection.into_stream();
        stream.write_all(&request).await.unwrap();
        let mut response = Vec::new();
        // nginx may close without the alert that ends TLS.
        let _ = stream.read_to_end(&mut response).await;
        assert_is_problem(&String::from_utf8_lossy(&response), code, &gateway);
    }
    for (request, code) in refused_requests() {
        let response = raw::exchange(server.plain, &request).await;
        assert_is_problem(&response.text, code, &gateway);
    }
    // Without TLS to the port of HTTPS.
    let response = raw::get(server.address, b"/api/v1/urls", &[]).await;
    assert_is_problem(&response.text, "bad_request", &gateway);
    for (address, path) in
        [(server.address, &b"/abc"[..]), (server.plain, b"/.well-known/acme-challenge/none")]
    {
        let response = raw::get(address, path, &[]).await;
        let (headers, body) = parts(&response.text);
        assert!(body.starts_with("<!doctype html>\n<html lang=\"en\">"), "{}", response.text);
        for name in SHARED_HEADERS {
            assert!(headers.contains_key(name), "{name}: {}", response.text);
        }
    }
}

/// The values of a map by status in the template; `None` is the default, and `~^5` a status without a row of its own.
fn map_of(template: &str, name: &str) -> BTreeMap<String, String> {
    let begin = template.find(&format!("map $status ${name} {{")).expect(name);
    let lines = template[begin..].lines().skip(1).take_while(|line| !line.starts_with('}'));
    let rows: BTreeMap<_, _> = lines
        .filter_map(|line| line.trim().trim_end_matches(';').split_once(' '))
        .map(|(status, value)| (status.to_owned(), value.trim().trim_matches('"').to_owned()))
        .collect();
    assert!(rows.len() > 3, "{name}: {rows:?}");
    rows
}

#[test]
fn each_error_status_of_nginx_has_a_code_of_the_table_with_its_title() {
    let template = fs::read_to_string(workspace().join("nginx/linnet.conf.template")).unwrap();
    let (codes, titles) =
        (map_of(&template, "linnet_error_code"), map_of(&template, "linnet_error_title"));
    let details = map_of(&template, "linnet_error_detail");
    let retry = map_of(&template, "linnet_retry_after");
    assert!(codes.keys().eq(titles.keys()), "{codes:?} {titles:?}");
    for (status, code) in &codes {
        let code = code_of(code);
        assert_eq!(titles.get(status).map(String::as_str), Some(code.title()), "{status}");
        assert!(details.contains_key(status), "{status}");
        // The gateway's 502 is another code: it reached the shortener.
        let expected = match status.as_str() {
            "default" => 400,
            "~^5" => 500,
            "502" => 503,
            status => status.parse().unwrap(),
        };
        assert_eq!(code.status().as_u16(), expected, "{status}");
    }
    for status in ["429", "502", "503", "504"] {
        assert!(retry.get(status).is_some_and(|seconds| !seconds.is_empty()), "{status}");
    }
    // Each status of `error_page` has a row, or is one that only files have.
    let pages = template.lines().filter_map(|line| line.trim().strip_prefix("error_page "));
    let mut statuses = 0;
    for line in pages {
        assert!(line.ends_with(" /_linnet/$linnet_error_kind;"), "{line}");
        let listed: Vec<&str> = line.split(' ').take_while(|word| !word.starts_with('/')).collect();
        let sent = listed.iter().find_map(|word| word.strip_prefix('='));
        for status in sent.into_iter().chain(listed.iter().copied().filter(|_| sent.is_none())) {
            statuses += 1;
            let is_special = matches!(status, "400" | "412" | "416" | "500");
            assert!(is_special || codes.contains_key(status), "{status} has no code");
        }
    }
    assert!(statuses > 12, "{statuses}");
}
