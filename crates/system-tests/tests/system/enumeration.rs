//! Guessing codes, and pretending to be somebody else while at it.

use std::time::Duration;

use linnet_system_tests::{Builder, Stack, raw, within};
use serde_json::json;

fn with_budget(misses: u32) -> Builder {
    Stack::builder()
        .env("LINNET__RESOLVE__MISSES_PER_MINUTE", 60)
        .env("LINNET__RESOLVE__MISSES_BURST", misses)
}

#[tokio::test]
async fn must_12_who_guesses_codes_is_sent_away() {
    let stack = with_budget(20).start().await;
    let client = stack.client().anonymous();
    let link = stack.client().shorten(&json!({"original_url": "https://example.com/"})).await;
    let path = format!("/{}", link["short_code"].as_str().unwrap());
    let mut misses = 0;
    let refused = loop {
        let answer = client.get(&format!("/guess{misses}")).send().await;
        if answer.status == 429 {
            break answer;
        }
        assert_eq!(answer.status, 404);
        misses += 1;
        assert!(misses < 60, "guesses have no end");
    };
    assert!(misses >= 20, "{misses} misses are allowed");
    let wait: u64 = refused.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=60).contains(&wait), "{wait}");
    assert_eq!(client.get(&path).send().await.status, 429, "a hit would stand out");
    within(Duration::from_secs(10), "the budget refills", || async {
        client.get(&path).send().await.status == 302
    })
    .await;
}

#[tokio::test]
async fn must_12_visitors_of_links_that_exist_meet_no_limit() {
    let stack = with_budget(20).start().await;
    let link = stack.client().shorten(&json!({"original_url": "https://example.com/"})).await;
    let code = link["short_code"].as_str().unwrap();
    for _ in 0..500 {
        assert_eq!(stack.client().resolve(code).await.0, 302);
    }
}

#[tokio::test]
async fn must_14_a_visitor_cannot_choose_an_address() {
    let stack = with_budget(10).start().await;
    let address = stack.client().address();
    let mut statuses = Vec::new();
    for n in 0..40 {
        let headers = [
            format!("X-Forwarded-For: 198.51.100.{n}"),
            format!("X-Real-IP: 198.51.100.{n}"),
            format!("Forwarded: for=198.51.100.{n}"),
            format!("X-Client-IP: 198.51.100.{n}"),
            format!("CF-Connecting-IP: 198.51.100.{n}"),
        ];
        let headers: Vec<_> = headers.iter().map(String::as_str).collect();
        let answer = raw::get(address, format!("/guess{n}").as_bytes(), &headers).await;
        statuses.push(answer.status.unwrap());
    }
    assert!(statuses.contains(&429), "each new address got a new budget: {statuses:?}");
}

#[tokio::test]
async fn must_14_a_caller_of_the_api_cannot_choose_an_address() {
    let stack = Stack::builder()
        .env("LINNET__LIMITS__ADDRESS_PER_MINUTE", 1)
        .env("LINNET__LIMITS__ADDRESS_BURST", 10)
        .start()
        .await;
    let client = stack.client().anonymous();
    let mut statuses = Vec::new();
    for n in 0..30 {
        let mut request = client.get("/api/v1/urls");
        for name in ["x-forwarded-for", "x-real-ip", "x-linnet-client-address", "forwarded"] {
            request = request.header(name, &format!("198.51.100.{n}"));
        }
        statuses.push(request.send().await.status);
    }
    // A worker that has no connection to Redis yet judges by itself.
    let alone = stack.gateways[0].metrics().await.sum("linnet_gateway_local_limits", &[]);
    let allowed = statuses.iter().take_while(|status| **status == 401).count();
    assert!(allowed >= 10 && (allowed as f64) <= 10.0 + alone, "{allowed}, {alone} without Redis");
    assert!(statuses[allowed..].iter().all(|status| *status == 429), "{statuses:?}");
}

#[tokio::test]
async fn must_14_a_named_proxy_in_front_tells_the_address() {
    let stack =
        with_budget(10).nginx_env("LINNET_NGINX_TRUSTED_PROXIES", "127.0.0.1").start().await;
    let address = stack.client().address();
    for n in 0..40 {
        let header = format!("X-Forwarded-For: 198.51.100.{n}");
        let answer = raw::get(address, format!("/guess{n}").as_bytes(), &[&header]).await;
        assert_eq!(answer.status, Some(404), "each visitor has an own budget");
    }
    let header = "X-Forwarded-For: 203.0.113.9, 198.51.100.250";
    let mut statuses = Vec::new();
    for n in 0..20 {
        let answer = raw::get(address, format!("/guess{n}").as_bytes(), &[header]).await;
        statuses.push(answer.status.unwrap());
    }
    assert!(statuses.contains(&429), "the last address before the proxy counts: {statuses:?}");
}
