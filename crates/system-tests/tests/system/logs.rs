//! Trace and request ids in the logs of every process, and what logs must not contain.

use std::time::Duration;

use linnet_system_tests::{Process, Stack, eventually};
use serde_json::{Value, json};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

/// Waits for the log line of the request with this id.
async fn request_line(process: &Process, request_id: &str) -> Value {
    let what = format!("{} logs request {request_id}", process.name());
    eventually(Duration::from_secs(5), &what, || async {
        process.log_lines().into_iter().find(|line| line["request_id"] == request_id)
    })
    .await
}

#[tokio::test]
async fn trace_id_of_a_request_is_in_every_log() {
    let stack = Stack::builder().env("LINNET__TELEMETRY__REDIRECT_LOG_SAMPLE", 1).start().await;
    let body = json!({"original_url": "https://example.com/", "short_code": "traced"});
    let request = stack.client().post("/api/v1/urls", &body);
    let request = request.header("traceparent", PARENT).header("x-request-id", "system-test-0001");
    let response = request.send().await;
    assert_eq!(response.status, 201);
    assert_eq!(response.header("x-request-id"), Some("system-test-0001"));
    for process in [&stack.gateways[0], &stack.shorteners[0]] {
        let line = request_line(process, "system-test-0001").await;
        assert_eq!(line["trace_id"], TRACE, "{line}");
        assert_eq!(line["method"], "POST", "{line}");
        assert_eq!(line["route"], "/api/v1/urls", "{line}");
        assert_eq!(line["status"], 201, "{line}");
        assert!(line["duration_ms"].as_f64().is_some_and(|ms| ms > 0.0), "{line}");
    }
    let shortener = request_line(&stack.shorteners[0], "system-test-0001").await;
    assert!(shortener["db.queries"].as_u64().is_some_and(|n| n >= 1), "{shortener}");
    assert!(shortener["db.time_ms"].as_f64().is_some(), "{shortener}");

    // A redirect, which bypasses the gateway.
    let visit = stack.client().anonymous().get("/traced").header("traceparent", PARENT);
    assert_eq!(visit.header("x-request-id", "system-test-0002").send().await.status, 302);
    let shortener = request_line(&stack.shorteners[0], "system-test-0002").await;
    assert_eq!(shortener["trace_id"], TRACE, "{shortener}");
    assert_eq!(shortener["route"], "/{code}", "the route, not the code: {shortener}");
}

#[tokio::test]
async fn missing_and_invalid_trace_and_request_ids_are_replaced() {
    let stack = Stack::start().await;
    for (trace, id) in [(None, None), (Some("00-zz-zz-01"), Some("x y")), (Some(""), Some("short"))]
    {
        let mut request = stack.client().get("/api/v1/urls");
        if let Some(trace) = trace {
            request = request.header("traceparent", trace);
        }
        if let Some(id) = id {
            request = request.header("x-request-id", id);
        }
        let response = request.send().await;
        let given = response.header("x-request-id").unwrap().to_owned();
        assert!((8..=64).contains(&given.len()) && Some(given.as_str()) != id, "{given}");
        let gateway = request_line(&stack.gateways[0], &given).await;
        let trace_id = gateway["trace_id"].as_str().unwrap();
        assert!(
            trace_id.len() == 32 && trace_id.bytes().all(|b| b.is_ascii_hexdigit()),
            "{gateway}"
        );
        assert_eq!(request_line(&stack.shorteners[0], &given).await["trace_id"], trace_id);
    }
    let problem = stack.client().get("/api/v1/urls/x").header("x-request-id", "system-test-0003");
    assert_eq!(problem.send().await.problem(422)["request_id"], "system-test-0003");
}

#[tokio::test]
async fn logs_contain_no_code_target_query_key_or_address() {
    let stack = Stack::builder().env("LINNET__TELEMETRY__REDIRECT_LOG_SAMPLE", 1).start().await;
    let client = stack.client();
    let body =
        json!({"original_url": "https://private.example/secret-path", "short_code": "hidden-code"});
    client.shorten(&body).await;
    client.get("/api/v1/urls?search=secret-search").send().await;
    client.resolve("hidden-code").await;
    client.get("/hidden-code?visitor=secret-query").send().await;
    for process in stack.shorteners.iter().chain(&stack.gateways) {
        let log = process.log();
        for secret in ["secret", "hidden-code", stack.admin_key.as_str(), "127.0.0.1:"] {
            assert!(!log.contains(secret), "{} logs {secret}:\n{log}", process.name());
        }
    }
}
