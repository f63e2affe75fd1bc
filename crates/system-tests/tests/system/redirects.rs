//! Spellings of a short link's path, methods other than `GET`, and the time of a 404.

use std::time::{Duration, Instant};

use linnet_system_tests::{Stack, client::Method, raw};
use serde_json::json;

const TARGET: &str = "https://example.com/form";

#[tokio::test]
async fn equivalent_spellings_of_a_path_resolve() {
    let stack = Stack::start().await;
    let client = stack.client();
    client.shorten(&json!({"original_url": TARGET, "short_code": "my_code-1"})).await;
    for path in [
        "my_code-1",
        "my_code-1/",
        "my%5Fcode-1",
        "my%5fcode%2D1/",
        "%6dy_code-%31",
        "my_code-1?x=%2F",
        "my%5Fcode-1/?x",
    ] {
        assert_eq!(client.resolve(path).await, (302, Some(TARGET.to_owned())), "{path}");
    }
    for path in ["my_code-1//", "/my_code-1", "my%255Fcode-1", "my_code-1%2F", "My%5Fcode-1"] {
        assert_eq!(client.resolve(path).await, (404, None), "{path}");
    }
}

#[tokio::test]
async fn methods_with_a_body_get_the_redirects_that_keep_the_method() {
    let stack = Stack::start().await;
    let (client, visitor) = (stack.client(), stack.client().anonymous());
    for max_clicks in [None, Some(100)] {
        for status in [301, 302, 307, 308] {
            let body = json!({
                "original_url": TARGET, "redirect_status": status, "max_clicks": max_clicks,
            });
            let link = client.shorten(&body).await;
            let path = format!("/{}", link["short_code"].as_str().unwrap());
            for method in ["POST", "PUT", "PATCH", "DELETE", "OPTIONS", "PROPFIND"] {
                let method: Method = method.parse().unwrap();
                for size in [0, 10, 20_000, 3_000_000] {
                    let request = visitor.request(method.clone(), &path);
                    let response = request.body("text/plain", vec![b'x'; size]).send().await;
                    let redirects = status > 302
                        && [Method::POST, Method::PUT, Method::PATCH].contains(&method);
                    let expected = match method {
                        _ if redirects => status,
                        Method::OPTIONS => 204,
                        _ => 405,
                    };
                    assert_eq!(response.status, expected, "{method} {size} {status}");
                    let location = redirects.then_some(TARGET);
                    assert_eq!(response.header("location"), location, "{method} {size}");
                }
            }
        }
    }
    let unknown = visitor.request(Method::POST, "/unknown").body("", "x").send().await;
    assert_eq!(unknown.status, 404);
}

#[tokio::test]
async fn body_of_a_visit_is_not_read() {
    let stack = Stack::start().await;
    let body = json!({"original_url": TARGET, "redirect_status": 307, "short_code": "form"});
    stack.client().shorten(&body).await;
    // No byte of the body is ever sent.
    for head in ["Content-Length: 1000000000", "Transfer-Encoding: chunked"] {
        let began = Instant::now();
        let response = raw::send(stack.client().address(), "POST", b"/form", &[head]).await;
        assert_eq!(response.status, Some(307), "{head}");
        assert!(began.elapsed() < Duration::from_secs(5), "{head}");
    }
}

/// The median time of 41 visits, in milliseconds.
async fn median_ms(stack: &Stack, code: &str) -> f64 {
    let mut times = Vec::new();
    for _ in 0..41 {
        let began = Instant::now();
        assert_eq!(stack.resolve_at(0, code).await.0, 404);
        times.push(began.elapsed().as_secs_f64() * 1e3);
    }
    times.sort_by(f64::total_cmp);
    times[20]
}

#[tokio::test]
async fn must_12_links_that_ended_take_the_path_of_unknown_codes() {
    let stack = Stack::builder().env("LINNET__RESOLVE__MISSES_BURST", 10_000).start().await;
    let client = stack.client();
    let soon = chrono::Utc::now() + chrono::TimeDelta::seconds(2);
    for (code, body) in [
        ("expired", json!({"original_url": TARGET, "expires_at": soon})),
        ("inactive", json!({"original_url": TARGET, "is_active": false})),
        ("used-up", json!({"original_url": TARGET, "max_clicks": 1})),
    ] {
        let mut body = body;
        body["short_code"] = code.into();
        client.shorten(&body).await;
    }
    assert_eq!(client.resolve("used-up").await.0, 302);
    tokio::time::sleep(Duration::from_secs(2)).await;
    let codes = ["unknown", "expired", "inactive", "used-up"];
    for code in codes {
        assert_eq!(stack.resolve_at(0, code).await.0, 404);
    }
    // None of the later visits reads PostgreSQL or Redis.
    let queries = async || {
        let metrics = stack.shortener_metrics(0).await;
        metrics.sum("linnet_cache_lookups", &[("tier", "database")])
            + metrics.sum("linnet_cache_lookups", &[("tier", "shared")])
            + metrics.sum(
                "db_client_operation_duration_seconds_count",
                &[("db_operation_name", "consume_click")],
            )
    };
    let before = queries().await;
    for code in codes {
        println!("{code}: {:.3} ms", median_ms(&stack, code).await);
    }
    assert_eq!(queries().await - before, 0.0);
    // An edit activates a link again: no cached negative entry hides it.
    let list = client.get("/api/v1/urls?search=used-up").send().await.json();
    let path = format!("/api/v1/urls/{}", list[0]["id"]);
    let more = client.patch(&path, &json!({"max_clicks": 2})).send().await;
    assert_eq!(more.status, 200);
    assert_eq!(client.resolve("used-up").await.0, 302);
    assert_eq!(client.resolve("used-up").await.0, 404);
}
