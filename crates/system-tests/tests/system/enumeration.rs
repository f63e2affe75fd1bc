//! The budget of misses per client, and forged client addresses.

use std::time::Duration;

use linnet_system_tests::{Builder, Client, Stack, expected::metric, raw, within};
use serde_json::json;

/// A stack with a budget of misses that refills by one a second.
fn with_budget(misses: u32) -> Builder {
    Stack::builder()
        .env("LINNET__RESOLVE__MISSES_PER_MINUTE", 60)
        .env("LINNET__RESOLVE__MISSES_BURST", misses)
}

#[tokio::test]
async fn must_12_client_that_guesses_codes_gets_429() {
    let stack = with_budget(20).start().await;
    let client = stack.client().anonymous();
    let link = stack.client().shorten(&json!({"original_url": "https://example.com/"})).await;
    let path = format!("/{}", link["short_code"].as_str().unwrap());
    let mut misses = 0;
    let rejected = loop {
        let response = client.get(&format!("/guess{misses}")).send().await;
        if response.status == 429 {
            break response;
        }
        assert_eq!(response.status, 404);
        misses += 1;
        assert!(misses < 60, "the budget is never exhausted");
    };
    assert!(misses >= 20, "{misses} misses before 429");
    let wait: u64 = rejected.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=60).contains(&wait), "{wait}");
    assert_eq!(client.get(&path).send().await.status, 429, "a 302 would reveal the code");
    within(Duration::from_secs(10), "the budget refills", || async {
        client.get(&path).send().await.status == 302
    })
    .await;
}

#[tokio::test]
async fn must_12_visits_to_existing_links_are_not_limited() {
    let stack = with_budget(20).start().await;
    let link = stack.client().shorten(&json!({"original_url": "https://example.com/"})).await;
    let code = link["short_code"].as_str().unwrap();
    for _ in 0..500 {
        assert_eq!(stack.client().resolve(code).await.0, 302);
    }
}

/// Codes of a deleted link and of one that was taken down before, and a banned code.
async fn codes_without_links(client: &Client) -> Vec<String> {
    let mut codes = vec!["bannedcode".to_owned()];
    let ban = json!({"short_code": codes[0]});
    assert_eq!(client.post("/api/v1/banned-codes", &ban).send().await.status, 201);
    for is_taken_down in [false, true] {
        let link = client.shorten(&json!({"original_url": "https://example.com/"})).await;
        let path = format!("/api/v1/urls/{}", link["id"]);
        if is_taken_down {
            let takedown = json!({"reason": "scam"});
            assert_eq!(client.put(&format!("{path}/takedown"), &takedown).send().await.status, 200);
        }
        assert_eq!(client.delete(&path).send().await.status, 204);
        codes.push(link["short_code"].as_str().unwrap().to_owned());
    }
    codes
}

#[tokio::test]
async fn must_12_only_guesses_use_up_the_budget() {
    // Short, so that deleted links are looked up in PostgreSQL.
    let stack = with_budget(5)
        .env("LINNET__CACHE__L1_NEGATIVE_TTL_MS", 100)
        .env("LINNET__CACHE__L2_NEGATIVE_TTL_S", 1)
        .start()
        .await;
    let (client, visitor) = (stack.client(), stack.client().anonymous());
    let target = "https://example.com/";
    let code = |link: serde_json::Value| link["short_code"].as_str().unwrap().to_owned();
    let soon = chrono::Utc::now() + chrono::TimeDelta::seconds(2);
    let valid = code(client.shorten(&json!({"original_url": target})).await);
    let expired = code(client.shorten(&json!({"original_url": target, "expires_at": soon})).await);
    let inactive = client.shorten(&json!({"original_url": target, "is_active": false})).await;
    let used_up = code(client.shorten(&json!({"original_url": target, "max_clicks": 1})).await);
    assert_eq!(client.resolve(&used_up).await.0, 302);
    let ended = codes_without_links(&client).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let mut paths = [vec![expired, code(inactive), used_up], ended].concat();
    for odd in [
        "ab",
        "a.b",
        "abc/def",
        "login",
        "WP-Admin",
        "apple-app-site-association",
        "robots.txt",
        "favicon.ico",
        "apple-touch-icon.png",
        "apple-touch-icon-precomposed.png",
        "apple-touch-icon-152x152.png",
        "wp-login.php",
        ".env",
        ".well-known/security.txt",
        "sitemap.xml",
        "%00abc",
        "a%20b",
    ] {
        paths.push(odd.to_owned());
    }
    for path in &paths {
        for _ in 0..20 {
            let status = visitor.get(&format!("/{path}")).send().await.status;
            assert!([200, 204, 400, 404].contains(&status), "/{path}: {status}");
        }
        assert_eq!(visitor.resolve(&valid).await.0, 302, "after /{path}");
    }
    for file in ["favicon.ico", "robots.txt", "apple-touch-icon.png"] {
        let response = visitor.get(&format!("/{file}")).send().await;
        assert!([200, 204].contains(&response.status), "{file}");
        assert_eq!(response.header("cache-control"), Some("public, max-age=86400"), "{file}");
    }
}

#[tokio::test]
async fn must_14_forged_addresses_give_a_visitor_no_new_budget() {
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
        let response = raw::get(address, format!("/guess{n}").as_bytes(), &headers).await;
        statuses.push(response.status.unwrap());
    }
    assert!(statuses.contains(&429), "each forged address got its own budget: {statuses:?}");
}

#[tokio::test]
async fn must_14_forged_addresses_give_an_api_client_no_new_limit() {
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
    // A server thread without a connection to Redis counts locally.
    let local = stack.gateways[0].metrics().await.sum(metric::GATEWAY_LOCAL_LIMITS, &[]);
    let allowed = statuses.iter().take_while(|status| **status == 401).count();
    assert!(
        allowed >= 10 && (allowed as f64) <= 10.0 + local,
        "{allowed} allowed, {local} counted locally"
    );
    assert!(statuses[allowed..].iter().all(|status| *status == 429), "{statuses:?}");
}

#[tokio::test]
async fn must_14_address_from_a_trusted_proxy_counts() {
    let stack =
        with_budget(10).nginx_env("LINNET_NGINX_TRUSTED_PROXIES", "127.0.0.1").start().await;
    let address = stack.client().address();
    for n in 0..40 {
        let header = format!("X-Forwarded-For: 198.51.100.{n}");
        let response = raw::get(address, format!("/guess{n}").as_bytes(), &[&header]).await;
        assert_eq!(response.status, Some(404), "each visitor has its own budget");
    }
    let header = "X-Forwarded-For: 203.0.113.9, 198.51.100.250";
    let mut statuses = Vec::new();
    for n in 0..20 {
        let response = raw::get(address, format!("/guess{n}").as_bytes(), &[header]).await;
        statuses.push(response.status.unwrap());
    }
    assert!(
        statuses.contains(&429),
        "the last address before the proxy does not count: {statuses:?}"
    );
}

#[tokio::test]
async fn refusals_of_nginx_are_counted_by_reason() {
    let refusals = format!("127.0.0.1:{}", linnet_system_tests::services::free_port());
    let stack = Stack::builder()
        .env("LINNET__GATEWAY__REFUSALS_LISTEN", &refusals)
        .nginx_env("LINNET_NGINX_REFUSALS", &refusals)
        // The machine itself is exempt from the limits by default.
        .nginx_env("LINNET_NGINX_TRUSTED_PROXIES", "127.0.0.1")
        .nginx_env("LINNET_NGINX_API_RATE", "1r/s")
        .nginx_env("LINNET_NGINX_API_BURST", "5")
        .nginx_env("LINNET_NGINX_RESOLVE_RATE", "1r/s")
        .nginx_env("LINNET_NGINX_RESOLVE_BURST", "5")
        .start()
        .await;
    let address = stack.client().address();
    let header = "X-Forwarded-For: 203.0.113.9";
    let mut refused = 0.0;
    for path in ["/api/v1/urls", "/unknown1"] {
        for _ in 0..20 {
            let response = raw::get(address, path.as_bytes(), &[header]).await;
            if response.status == Some(429) {
                refused += 1.0;
            }
        }
    }
    assert!(refused >= 20.0, "nginx refused {refused} of 40 requests");
    let counted = || async {
        let labels = [("reason", "nginx_rate")];
        stack.gateways[0].metrics().await.sum("linnet_gateway_limited_total", &labels)
    };
    within(Duration::from_secs(10), "every refusal to be counted", || async {
        counted().await >= refused
    })
    .await;
    assert!((counted().await - refused).abs() < 0.5, "a request that was not refused is counted");
}
