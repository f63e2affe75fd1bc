//! Rate limits.

use super::support::{Gateway, KEY, REVOKED, Redis, Shortener, eventually, no_redis, settings};
use crate::config::Settings;
use linnet_protocol::issued_keys::IssuedKeys;

/// Bursts of five requests per key and three per address. They refill too slowly to affect a test.
fn tight(redis_url: &str, shortener: &Shortener) -> Settings {
    let mut settings = settings(redis_url, &[shortener]);
    settings.gateway.server_threads = 1;
    settings.limits.key_per_minute = 1;
    settings.limits.key_burst = 5;
    settings.limits.address_per_minute = 1;
    settings.limits.address_burst = 3;
    settings
}

async fn statuses(gateway: &Gateway, key: &str, count: usize) -> Vec<u16> {
    let mut statuses = Vec::new();
    for _ in 0..count {
        statuses.push(gateway.client.get_as(key, "/api/v1/urls").await.status);
    }
    statuses
}

#[actix_web::test]
async fn two_gateways_with_redis_allow_exactly_one_burst() {
    let shortener = Shortener::start();
    let redis = Redis::start().await;
    let one = Gateway::start(tight(&redis.url, &shortener)).await;
    let two = Gateway::start(tight(&redis.url, &shortener)).await;
    for gateway in [&one, &two] {
        gateway.uses_redis().await;
    }
    let counted_locally = one.metric("linnet_gateway_local_limits_total");
    assert_eq!(statuses(&one, KEY, 3).await, [200; 3]);
    let last = two.client.get_as(KEY, "/api/v1/urls").await;
    assert_eq!(last.status, 200);
    assert_eq!(last.header("ratelimit-policy"), "\"key\";q=5;w=300, \"user\";q=10000;w=10");
    assert!(last.header("ratelimit").starts_with("\"key\";r=1;t="), "{last:?}");
    assert!(last.header("ratelimit").contains(", \"user\";r=999"), "{last:?}");
    assert_eq!(two.client.get_as(KEY, "/api/v1/urls").await.status, 200);

    let rejected = one.client.get_as(KEY, "/api/v1/urls").await;
    assert_eq!((rejected.status, rejected.problem().as_str()), (429, "rate_limited"));
    assert!(rejected.header("ratelimit").starts_with("\"key\";r=0;t="), "{rejected:?}");
    let problem = rejected.json();
    assert_eq!(problem["violated-policies"], serde_json::json!(["key"]));
    let quota_exceeded = "https://iana.org/assignments/http-problem-types#quota-exceeded";
    assert_eq!(problem["type"], quota_exceeded);
    assert!(problem["detail"].as_str().unwrap().contains("`key`"), "{problem}");
    let wait: u64 = rejected.header("retry-after").parse().unwrap();
    assert!((1..=60).contains(&wait), "{wait}");
    assert_eq!(one.metrics.value("linnet_gateway_limited_total", &[("reason", "key")]), Some(1.0));
    assert_eq!(one.metric("linnet_gateway_local_limits_total"), counted_locally);

    let keys = redis.keys().await;
    assert!(keys.iter().any(|(name, _)| name == "linnet:rate:k:{7}:Ab3xYz01"), "{keys:?}");
    assert!(keys.iter().all(|(_, ttl)| *ttl > 0 && *ttl <= 300_000), "{keys:?}");
}

#[actix_web::test]
async fn must_16_invalid_keys_count_against_the_address() {
    let shortener = Shortener::start();
    let redis = Redis::start().await;
    let gateway = Gateway::start_with(&redis, tight(&redis.url, &shortener)).await;
    assert_eq!(statuses(&gateway, REVOKED, 4).await, [401, 401, 401, 429]);
    let lookups = shortener.lookups();
    let fresh = REVOKED.replace("Zz9", "Yy8");
    assert_eq!(statuses(&gateway, &fresh, 3).await, [429; 3]);
    assert_eq!(shortener.lookups(), lookups, "no further lookups for this address");

    // Another address has its own quota.
    let headers = [("x-api-key", fresh.as_str()), ("x-real-ip", "192.0.2.99")];
    let other = gateway.client.call(http::Method::GET, "/api/v1/urls", &headers, b"").await;
    assert_eq!(other.status, 401);
    assert!(other.header("ratelimit").starts_with("\"address\";r=2;t="), "{other:?}");
}

#[actix_web::test]
async fn without_redis_the_gateway_counts_locally() {
    let shortener = Shortener::start();
    let gateway = Gateway::start(tight(&no_redis(), &shortener)).await;
    assert_eq!(statuses(&gateway, KEY, 6).await, [200, 200, 200, 200, 200, 429]);
    assert_eq!(gateway.metric("linnet_gateway_limit_fallback"), Some(1.0));
}

#[actix_web::test]
async fn gateway_counts_locally_while_redis_is_unavailable() {
    let shortener = Shortener::start();
    let mut redis = Redis::start().await;
    let mut settings = settings(&redis.url, &[&shortener]);
    settings.gateway.server_threads = 1;
    let gateway = Gateway::start_with(&redis, settings).await;
    assert_eq!(gateway.client.get_as(KEY, "/api/v1/urls").await.status, 200);
    assert_eq!(gateway.metric("linnet_gateway_limit_fallback"), Some(0.0));

    redis.stop();
    eventually("the gateway counts locally", || async {
        let status = gateway.client.get_as(KEY, "/api/v1/urls").await.status;
        assert_eq!(status, 200, "no request may fail");
        gateway.metric("linnet_gateway_limit_fallback") == Some(1.0)
    })
    .await;
    eventually("the invalidation bus is stale", || async {
        gateway.metric("linnet_gateway_invalidation_bus_live") == Some(0.0)
    })
    .await;

    redis.restart().await;
    eventually("Redis counts again", || async {
        assert_eq!(gateway.client.get_as(KEY, "/api/v1/urls").await.status, 200);
        gateway.metric("linnet_gateway_limit_fallback") == Some(0.0)
    })
    .await;
    gateway.uses_redis().await;
}

/// A valid key of the same user as [`KEY`].
fn sibling_key(number: u8) -> String {
    KEY.replace("Yz01", &format!("Yz{number:02}"))
}

#[actix_web::test]
async fn must_26_all_keys_of_a_user_share_one_allowance() {
    let shortener = Shortener::start();
    let redis = Redis::start().await;
    for url in [&redis.url, &no_redis()] {
        let mut settings = tight(url, &shortener);
        settings.limits.user_per_minute = 1;
        settings.limits.user_burst = 8;
        settings.limits.address_burst = 1_000;
        let gateway = Gateway::start_with(&redis, settings).await;
        let mut allowed = 0;
        let mut rejected = None;
        for round in 0..2 {
            for number in 0..12 {
                let response = gateway.client.get_as(&sibling_key(number), "/api/v1/urls").await;
                match response.status {
                    200 => allowed += 1,
                    _ => rejected = Some((round, response)),
                }
            }
        }
        assert_eq!(allowed, 8, "12 keys have one allowance");
        let (_, rejected) = rejected.unwrap();
        assert_eq!((rejected.status, rejected.problem().as_str()), (429, "rate_limited"));
        assert_eq!(rejected.json()["violated-policies"], serde_json::json!(["user"]));
        let counted = gateway.metrics.value("linnet_gateway_limited_total", &[("reason", "user")]);
        assert_eq!(counted, Some(16.0));
    }
}

#[actix_web::test]
async fn must_26_concurrent_unknown_keys_cause_no_more_lookups_than_their_address_may_make() {
    let shortener = Shortener::start();
    let redis = Redis::start().await;
    for url in [&redis.url, &no_redis()] {
        let before = shortener.lookups();
        let mut settings = tight(url, &shortener);
        settings.limits.address_burst = 60;
        let gateway = Gateway::start_with(&redis, settings).await;
        let local = || gateway.metric("linnet_gateway_local_limits_total").unwrap_or(0.0);
        let local_before = local();
        let calls = (0..400_u32).map(|n| {
            let client = gateway.client.clone();
            let key = REVOKED.replace("0123456789", &format!("{n:010}"));
            async move { client.get_as(&key, "/api/v1/urls").await.status }
        });
        let statuses = futures::future::join_all(calls).await;
        let limited: u64 = statuses.iter().map(|status| u64::from(*status == 429)).sum();
        let lookups = shortener.lookups() - before;
        assert_eq!(limited + lookups, 400, "{statuses:?}");
        #[expect(clippy::cast_precision_loss, reason = "small numbers")]
        let (limited, lookups) = (limited as f64, lookups as f64);
        // Redis may respond too late on a loaded machine. Then the gateway decides alone, with a quota of its own.
        let alone = if *url == redis.url { local() - local_before } else { 0.0 };
        assert!(lookups <= 60.0 + alone.min(60.0), "{lookups} lookups, {alone} local decisions");
        let counted =
            gateway.metrics.value("linnet_gateway_limited_total", &[("reason", "lookup")]);
        assert_eq!(counted, Some(limited), "each 429 is counted");
    }
}

#[actix_web::test]
async fn must_26_valid_key_is_served_while_others_at_its_address_send_invalid_ones() {
    let shortener = Shortener::start();
    let redis = Redis::start().await;
    let mut settings = tight(&redis.url, &shortener);
    settings.auth.cache_ttl_ms = 1;
    let gateway = Gateway::start_with(&redis, settings).await;
    assert_eq!(statuses(&gateway, KEY, 1).await, [200]);
    assert_eq!(statuses(&gateway, REVOKED, 4).await, [401, 401, 401, 429]);
    assert_eq!(statuses(&gateway, KEY, 3).await, [200; 3], "the key is known to be good");
    let unknown = sibling_key(2);
    assert_eq!(statuses(&gateway, &unknown, 1).await, [429], "this key is not");
}

#[actix_web::test]
async fn must_26_new_gateway_serves_a_valid_key_while_others_at_its_address_send_invalid_ones() {
    let (shortener, redis) = (Shortener::start(), Redis::start().await);
    let settings = tight(&redis.url, &shortener);
    let issued = IssuedKeys::new(&settings.service);
    let gateway = Gateway::start_with(&redis, settings).await;
    assert_eq!(statuses(&gateway, REVOKED, 4).await.last(), Some(&429));
    let key = issued.generate().unwrap().reveal();
    let mut forged = key.clone();
    forged.replace_range(20..21, if key.as_bytes()[20] == b'a' { "b" } else { "a" });
    shortener.state.issued.lock().unwrap().extend([key.clone(), forged.clone()]);
    let lookups = shortener.lookups();
    assert_eq!(statuses(&gateway, &key, 2).await, [200; 2]);
    assert_eq!(shortener.lookups(), lookups + 1);
    assert_eq!(statuses(&gateway, &forged, 1).await, [429], "only the installation can mark keys");
    let ended = issued.generate().unwrap().reveal();
    assert_eq!(statuses(&gateway, &ended, 2).await, [429; 2]);
    assert_eq!(shortener.lookups(), lookups + 2);
}

#[actix_web::test]
async fn lookup_of_a_valid_key_is_given_back_to_its_address() {
    let shortener = Shortener::start();
    let redis = Redis::start().await;
    for url in [&redis.url, &no_redis()] {
        let gateway = Gateway::start_with(&redis, tight(url, &shortener)).await;
        let key = sibling_key(99);
        let at_once = futures::future::join_all((0..5).map(|_| statuses(&gateway, &key, 1)));
        assert_eq!(at_once.await.concat(), [200; 5], "one lookup");
        for number in 0..10 {
            assert_eq!(statuses(&gateway, &sibling_key(number), 1).await, [200]);
        }
        assert_eq!(statuses(&gateway, REVOKED, 4).await, [401, 401, 401, 429]);
    }
}

#[actix_web::test]
async fn must_26_request_over_the_rate_of_its_user_is_not_charged_to_its_key() {
    let shortener = Shortener::start();
    let redis = Redis::start().await;
    for url in [&redis.url, &no_redis()] {
        let mut settings = tight(url, &shortener);
        settings.limits.user_per_minute = 1;
        settings.limits.user_burst = 2;
        let gateway = Gateway::start_with(&redis, settings).await;
        assert_eq!(statuses(&gateway, KEY, 2).await, [200; 2]);
        for _ in 0..6 {
            let rejected = gateway.client.get_as(KEY, "/api/v1/urls").await;
            assert_eq!(rejected.json()["violated-policies"], serde_json::json!(["user"]));
            assert!(rejected.header("ratelimit").starts_with("\"key\";r=3;"), "{rejected:?}");
        }
    }
}
