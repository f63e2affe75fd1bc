//! Every response that depends on a request header names it in `Vary`, through nginx.

use std::collections::BTreeMap;

use http::Method;
use linnet_system_tests::{Client, Response, Stack};
use serde_json::{Value, json};

/// Request headers by which a response may be selected, each with values that a client may send.
const HEADERS: &[(&str, &[&str])] = &[
    ("accept", &["application/json", "text/csv", "text/html", "image/png;q=0.1, text/csv;q=0.9"]),
    ("accept-encoding", &["identity", "gzip", "br, gzip;q=0.5"]),
    ("accept-language", &["en", "de"]),
    ("origin", &["https://app.example", "https://evil.example"]),
    ("prefer", &["respond-async", "wait=5", "return=minimal"]),
    ("access-control-request-method", &["PATCH"]),
    (
        "user-agent",
        &["Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0", "curl/8"],
    ),
];

/// Headers that differ between equal responses.
const INCIDENTAL: &[&str] =
    &["date", "x-request-id", "ratelimit", "retry-after", "vary", "traceparent", "connection"];

const ORIGIN: &str = "https://app.example";

fn methods() -> [Method; 7] {
    ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"].map(|name| name.parse().unwrap())
}

/// The parts of a response that a cache stores.
fn content(response: &Response) -> (u16, BTreeMap<String, Vec<u8>>, Vec<u8>) {
    let headers = response
        .headers
        .iter()
        .filter(|(name, _)| !INCIDENTAL.contains(&name.as_str()))
        .map(|(name, value)| (name.to_string(), value.as_bytes().to_vec()))
        .collect();
    let mut body = response.body.to_vec();
    if let Ok(Value::Object(mut problem)) = serde_json::from_slice(&body) {
        problem.remove("request_id");
        problem.remove("violated-policies");
        body = serde_json::to_vec(&problem).unwrap();
    }
    (response.status, headers, body)
}

fn varies_by(response: &Response, header: &str) -> bool {
    let values = response.headers.get_all("vary").iter();
    values.flat_map(|value| value.to_str().unwrap().split(',')).any(|name| name.trim() == header)
}

/// Paths of the API with an id that exists for reading and one that does not, of the pages, of links, and unknown ones.
async fn paths(client: &Client) -> Vec<(Method, String)> {
    let link = client.shorten(&json!({"original_url": "https://example.com/"})).await;
    let limited = json!({"original_url": "https://example.com/", "max_clicks": 1_000_000});
    let limited = client.shorten(&limited).await;
    let event = json!({"url_id": link["id"], "event_type": "x"});
    let event = client.post("/api/v1/events", &event).send().await.json();
    let mut found = Vec::new();
    let document = client.get("/openapi.json").send().await.json();
    for path in document["paths"].as_object().unwrap().keys() {
        for method in methods() {
            // Nothing changes: the resource does not exist, or the body is missing.
            found.push((method.clone(), path.replace("{id}", "987654321")));
            let id = match path.as_str() {
                "/api/v1/events/{id}" => &event["id"],
                "/api/v1/urls/{id}" | "/api/v1/urls/{id}/stats" => &link["id"],
                _ => continue,
            };
            if [Method::GET, Method::HEAD].contains(&method) {
                found.push((method, path.replace("{id}", &id.to_string())));
            }
        }
    }
    let code = |link: &Value| format!("/{}", link["short_code"].as_str().unwrap());
    let pages = ["/", "/docs", "/docs/no-such", "/health", "/openapi.json", "/problems/not_found"];
    let unknown =
        ["/api", "/api/v1/no-such", "/api/v2/urls", "/no-such-code", "/favicon.ico", "/a.b"];
    let codes = [code(&link), code(&limited), code(&link) + "/"];
    for path in pages.iter().chain(&unknown).map(|path| (*path).to_owned()).chain(codes) {
        found.extend(methods().map(|method| (method, path.clone())));
    }
    found
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_response_names_the_headers_that_select_it() {
    let stack = Stack::builder().env("LINNET__CORS__ALLOWED_ORIGINS", ORIGIN).start().await;
    let client = stack.client();
    let mut wrong = Vec::new();
    let mut selected = std::collections::BTreeSet::new();
    let paths = paths(&client).await;
    for (method, path) in &paths {
        let plain = client.request(method.clone(), path).send().await;
        let with_origin = client.request(method.clone(), path).header("origin", ORIGIN);
        let with_origin = with_origin.send().await;
        for (header, values) in HEADERS {
            for value in *values {
                let mut request = client.request(method.clone(), path).header(header, value);
                let mut first = &plain;
                if *header == "access-control-request-method" {
                    request = request.header("origin", ORIGIN);
                    first = &with_origin;
                }
                let other = request.send().await;
                if content(first) == content(&other) {
                    continue;
                }
                selected.insert(*header);
                for response in [first, &other] {
                    if !varies_by(response, header) {
                        wrong.push(format!(
                            "{method} {path} with {header}: {value}: {:?}",
                            response.headers
                        ));
                    }
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{} without `Vary`:\n{}", wrong.len(), wrong.join("\n"));
    assert!(paths.len() > 200, "{}", paths.len());
    for header in ["accept", "accept-encoding", "origin"] {
        assert!(selected.contains(header), "no response depends on {header}");
    }
}

#[tokio::test]
async fn upload_and_preflight_responses_name_the_headers_that_select_them() {
    let origin = "https://app.example";
    let stack = Stack::builder().env("LINNET__CORS__ALLOWED_ORIGINS", origin).start().await;
    let client = stack.client();
    for path in ["/api/v1/urls/bulk", "/api/v1/users/bulk"] {
        let rows =
            if path.contains("urls") { "original_url\nhttps://example.com/\n" } else { "x\n" };
        for prefer in [None, Some("wait=10"), Some("respond-async")] {
            let mut upload = client.request(Method::POST, path).body("text/csv", rows);
            if let Some(prefer) = prefer {
                upload = upload.header("prefer", prefer);
            }
            let response = upload.send().await;
            assert!([200, 202, 422].contains(&response.status), "{}", response.text());
            assert!(varies_by(&response, "prefer"), "{path} {prefer:?}: {:?}", response.headers);
            assert!(varies_by(&response, "origin"), "{path} {prefer:?}: {:?}", response.headers);
        }
    }
    for path in ["/api/v1/urls", "/api/v1/no-such", "/health"] {
        let options = || client.request(Method::OPTIONS, path).header("origin", origin);
        for response in [
            options().send().await,
            options().header("access-control-request-method", "PUT").send().await,
        ] {
            for header in ["origin", "access-control-request-method"] {
                assert!(varies_by(&response, header), "{path} {header}: {:?}", response.headers);
            }
        }
    }
}
