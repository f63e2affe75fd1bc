//! Ids, query parameters, methods and paths.

use http::Method;
use linnet_system_tests::{Stack, raw};
use serde_json::{Value, json};

use super::api::{Api, assert_rejected};

const MALFORMED_IDS: [&str; 25] = [
    "x",
    "-1",
    "0",
    "1.5",
    "+1",
    "01",
    "1e3",
    "0x1",
    "99999999999999999999",
    "-99999999999999999999",
    "%00",
    "1%00",
    "%ff",
    "%20",
    "1%20",
    "%2e%2e",
    "null",
    "true",
    "[]",
    "{id}",
    "%E2%82%AC",
    "%D9%A1",
    "zzzzzzz!",
    "zzzzzzz",
    "zzzzzzzzz",
];

/// Values for query parameters, most of which are invalid.
const QUERY_VALUES: [&str; 16] = [
    "-1",
    "0",
    "1.5",
    "x",
    "%20",
    "%00",
    "a%00b",
    "99999999999999999999",
    "1e3",
    "true",
    "[]",
    "====",
    "YWZ0ZXI6",
    "YWZ0ZXI6LTE",
    "YWZ0ZXI6OTk5OTk5OTk5OTk5OTk5OTk5OTk",
    "%F0%9F%92%A9",
];

#[tokio::test]
async fn malformed_ids_are_named() {
    let stack = Stack::start().await;
    let api = Api::load(&stack).await;
    let long = "1".repeat(1_000);
    let ids = MALFORMED_IDS.into_iter().chain([long.as_str()]);
    for operation in api.operations().into_iter().filter(|operation| operation.path.contains('{')) {
        for id in ids.clone() {
            let path = operation.path.replace("{id}", id);
            let what = format!("{} {path}", operation.method);
            let mut request =
                format!("{} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n", operation.method);
            request +=
                &format!("X-Api-Key: {}\r\nX-Request-Id: invalid-input-0001\r\n", stack.admin_key);
            if operation.body.is_some() {
                let body = api.valid_body(&operation).to_string();
                request += "Content-Type: application/json\r\n";
                request += &format!("Content-Length: {}\r\n\r\n{body}", body.len());
            } else {
                request += "\r\n";
            }
            let address = stack.client().address();
            let response = raw::exchange(address, request.as_bytes()).await;
            let status = response.status.unwrap_or_else(|| panic!("{what}: no response"));
            assert!((400..500).contains(&status), "{what}: {}", response.text);
            // nginx itself rejects a NUL and `..` in a path.
            let is_by_nginx = status == 400 && !response.text.contains("/problems/");
            let is_problem = response.text.contains("application/problem+json");
            assert!(is_by_nginx || is_problem, "{what}: {}", response.text);
            assert!(
                is_by_nginx || response.text.contains("\"field\":\"id\""),
                "{what}: {}",
                response.text
            );
        }
        let huge = operation.path.replace("{id}", &i64::MAX.to_string());
        if !operation.path.contains("api-keys") {
            let body = operation.body.is_some().then(|| api.valid_body(&operation));
            let mut request = api.client.request(operation.method.clone(), &huge);
            if let Some(body) = body {
                request = request.json(&body);
            }
            request.send().await.problem(404);
        }
    }
}

/// Whether a value of [`QUERY_VALUES`] is valid for a query parameter.
fn is_valid(name: &str, schema: &Value, value: &str) -> bool {
    match schema["type"].as_str().unwrap() {
        "integer" => {
            let minimum = schema["minimum"].as_i64().unwrap();
            value.parse::<i64>().is_ok_and(|n| n >= minimum)
        }
        "boolean" => ["true", "1", "0"].contains(&value),
        // Searches and event types accept some of the values; cursors accept none.
        _ => match name {
            "search" => {
                let text = url::form_urlencoded::parse(format!("v={value}").as_bytes())
                    .next()
                    .map_or_else(String::new, |(_, text)| text.into_owned());
                (2..=200).contains(&text.chars().count()) && !text.chars().any(char::is_control)
            }
            "event_type" => {
                value.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.:-".contains(&b))
                    && (1..=64).contains(&value.len())
            }
            _ => false,
        },
    }
}

#[tokio::test]
async fn invalid_query_parameters_are_named() {
    let stack = Stack::start().await;
    let api = Api::load(&stack).await;
    let long = "x".repeat(5_000);
    let values = QUERY_VALUES.into_iter().chain([long.as_str()]);
    let mut tried = 0;
    for operation in api.operations() {
        let is_in_query = |parameter: &&Value| parameter["in"] == "query";
        for parameter in operation.parameters.iter().filter(is_in_query) {
            let name = parameter["name"].as_str().unwrap();
            let schema = api.resolved(&parameter["schema"]);
            for value in values.clone() {
                if is_valid(name, &schema, value) {
                    continue;
                }
                let path = format!("{}?{name}={value}", api.path(&operation));
                let response = api.client.request(operation.method.clone(), &path).send().await;
                let shown: String = path.chars().take(80).collect();
                assert_rejected(&response, &[name], &shown);
                tried += 1;
            }
            if operation.method == Method::GET && !operation.path.contains('{') {
                let path = format!("{}?{name}=", operation.path);
                let response = api.client.get(&path).send().await;
                assert_eq!(response.status, 200, "{path}: an empty parameter is absent");
            }
            let twice = format!("{}?{name}=1&{name}=1", api.path(&operation));
            let response = api.client.request(operation.method.clone(), &twice).send().await;
            assert_rejected(&response, &[name], &twice);
        }
        if operation.method == Method::GET && !operation.path.contains('{') {
            let path = format!("{}?no_such=1", operation.path);
            assert_rejected(&api.client.get(&path).send().await, &["no_such"], &path);
            let path = format!("{}?%ff=1", operation.path);
            assert_rejected(&api.client.get(&path).send().await, &["query"], &path);
        }
    }
    assert!(tried > 200, "only {tried} parameters were tried");
}

#[tokio::test]
async fn unknown_methods_and_paths_return_problems() {
    let stack = Stack::start().await;
    let api = Api::load(&stack).await;
    let operations = api.operations();
    let mut paths: Vec<_> = operations.iter().map(|operation| operation.path.clone()).collect();
    paths.dedup();
    for path in paths {
        let has = |method: &str| {
            operations.iter().any(|o| o.path == path && o.method == method)
                || (method == "HEAD"
                    && operations.iter().any(|o| o.path == path && o.method == "GET"))
        };
        let filled = api.path(operations.iter().find(|o| o.path == path).unwrap());
        for method in ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "PROPFIND", "BREW"] {
            let request = api.client.request(method.parse().unwrap(), &filled).json(&json!({}));
            if has(method) {
                continue;
            }
            let response = request.send().await;
            assert_eq!(response.status, 405, "{method} {path}: {}", response.text());
            let allow =
                response.header("allow").unwrap_or_else(|| panic!("{method} {path}: no Allow"));
            for known in ["GET", "POST", "PUT", "PATCH", "DELETE"] {
                let listed = allow.split(", ").any(|name| name == known);
                assert_eq!(listed, has(known), "{path}: Allow: {allow}");
            }
            if method != "HEAD" {
                assert_eq!(response.problem(405)["code"], "method_not_allowed");
            }
        }
        for other in
            [format!("{filled}/"), format!("{filled}/more"), filled.replace("/v1/", "/v2/")]
        {
            let response = api.client.get(&other).send().await;
            // A path below a collection is read as a resource with a missing or invalid id.
            let expected =
                if other.starts_with(&format!("{path}/")) { response.status } else { 404 };
            let status = response.problem(expected)["status"].clone();
            // A resource may be only deleted, as a ban is.
            let is_resource = other.starts_with(&format!("{path}/"));
            let expected = status == 404 || status == 422 || (is_resource && status == 405);
            assert!(expected, "{other}: {status}");
        }
    }
}
