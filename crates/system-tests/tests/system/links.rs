//! Creating and resolving links, caching by browsers, expiry.

use std::time::Duration;

use chrono::{SecondsFormat, Utc};
use linnet_system_tests::{Stack, stack::BASE_URL, within};
use serde_json::json;

#[tokio::test]
async fn created_link_redirects_to_its_target() {
    let stack = Stack::start().await;
    let client = stack.client();
    let made = client.post("/api/v1/urls", &json!({"original_url": "https://example.com/a?b=c#d"}));
    let made = made.send().await;
    assert_eq!(made.status, 201, "{}", made.text());
    let link = made.json();
    let (id, code) = (link["id"].as_i64().unwrap(), link["short_code"].as_str().unwrap());
    assert_eq!(made.header("location"), Some(format!("/api/v1/urls/{id}").as_str()));
    assert_eq!(link["short_url"], format!("{BASE_URL}/{code}"));
    assert_eq!(link["user_id"], stack.admin_id);
    assert_eq!(link["is_active"], true);
    assert_eq!(link["clicks"], 0);
    assert_eq!(code.len(), 7);

    for method in [http::Method::GET, http::Method::HEAD] {
        let response = client.anonymous().request(method, &format!("/{code}")).send().await;
        assert_eq!(response.status, 302);
        assert_eq!(response.header("location"), Some("https://example.com/a?b=c#d"));
        assert_eq!(response.header("cache-control"), Some("private, max-age=0"));
        assert_eq!(response.header("server"), Some("nginx"), "one header without a version");
    }
    // A visitor's query does not change the target.
    let response = client.anonymous().get(&format!("/{code}?utm=1&x=//evil")).send().await;
    assert_eq!(response.header("location"), Some("https://example.com/a?b=c#d"));
}

#[tokio::test]
async fn same_target_gets_two_codes_unless_reuse_is_requested() {
    let stack = Stack::start().await;
    let client = stack.client();
    let target = json!({"original_url": "https://example.com/same"});
    let (first, second) = (client.shorten(&target).await, client.shorten(&target).await);
    assert_ne!(first["short_code"], second["short_code"]);

    let reuse = json!({"original_url": "https://EXAMPLE.com/same", "reuse": true});
    let again = client.post("/api/v1/urls", &reuse).send().await;
    assert_eq!(again.status, 200, "{}", again.text());
    assert_eq!(again.json()["id"], first["id"], "the oldest link is reused");
    assert!(again.header("location").is_some());

    let permanent = json!({"original_url": "https://example.com/same", "reuse": true,
        "redirect_status": 308});
    let made = client.post("/api/v1/urls", &permanent).send().await;
    assert_eq!((made.status, made.json()["redirect_status"].clone()), (201, json!(308)));
    let again = client.post("/api/v1/urls", &permanent).send().await;
    assert_eq!((again.status, again.json()["id"].clone()), (200, made.json()["id"].clone()));

    let (_, other) = stack.create_user("other", &["urls:read", "urls:write"]).await;
    let theirs = other.post("/api/v1/urls", &reuse).send().await;
    assert_eq!(theirs.status, 201, "another user's link is not reused");
}

#[tokio::test]
async fn twenty_concurrent_requests_with_reuse_get_one_link() {
    let stack = Stack::builder().shorteners(2).start().await;
    let body = json!({"original_url": "https://example.com/at-once", "reuse": true});
    let requests = (0..20).map(|_| stack.client().post("/api/v1/urls", &body).send());
    let responses = futures::future::join_all(requests).await;
    let made = responses.iter().filter(|response| response.status == 201).count();
    let reused = responses.iter().filter(|response| response.status == 200).count();
    assert_eq!((made, reused), (1, 19));
    let first = responses[0].json()["id"].clone();
    assert!(responses.iter().all(|response| response.json()["id"] == first));
}

#[tokio::test]
async fn must_08_browsers_cache_only_permanent_redirects_until_the_expiry() {
    let stack = Stack::start().await;
    let client = stack.client();
    for status in [301_u16, 302, 307, 308] {
        let body = json!({"original_url": "https://example.com/", "redirect_status": status});
        let code = client.shorten(&body).await["short_code"].as_str().unwrap().to_owned();
        let response = client.get(&format!("/{code}")).send().await;
        assert_eq!(response.status, status);
        let cached = response.header("cache-control").unwrap();
        if matches!(status, 301 | 308) {
            assert_eq!(cached, "private, max-age=86400", "{status}");
        } else {
            assert_eq!(cached, "private, max-age=0", "{status}");
        }
    }

    let soon =
        (Utc::now() + chrono::Duration::seconds(600)).to_rfc3339_opts(SecondsFormat::Secs, true);
    let body =
        json!({"original_url": "https://example.com/", "redirect_status": 301, "expires_at": soon});
    let code = client.shorten(&body).await["short_code"].as_str().unwrap().to_owned();
    let response = client.get(&format!("/{code}")).send().await;
    let cached = response.header("cache-control").unwrap();
    let age: u64 = cached.strip_prefix("private, max-age=").unwrap().parse().unwrap();
    assert!(age < 600, "longer than until the expiry: {cached}");

    let body =
        json!({"original_url": "https://example.com/", "redirect_status": 301, "max_clicks": 3});
    let code = client.shorten(&body).await["short_code"].as_str().unwrap().to_owned();
    let response = client.get(&format!("/{code}")).send().await;
    assert_eq!(response.status, 301);
    assert_eq!(response.header("cache-control"), Some("no-store"), "a limited link is not cached");
}

#[tokio::test]
async fn must_12_unresolvable_codes_get_identical_responses() {
    let stack = Stack::start().await;
    let client = stack.client();
    let code = |link: &serde_json::Value| link["short_code"].as_str().unwrap().to_owned();
    let target = "https://example.com/";
    let inactive = client.shorten(&json!({"original_url": target, "is_active": false})).await;
    let soon = Utc::now() + chrono::Duration::seconds(1);
    let expired = client.shorten(&json!({"original_url": target, "expires_at": soon})).await;
    let used_up = client.shorten(&json!({"original_url": target, "max_clicks": 1})).await;
    assert_eq!(client.resolve(&code(&used_up)).await.0, 302);
    let deleted = client.shorten(&json!({"original_url": target})).await;
    assert_eq!(client.delete(&format!("/api/v1/urls/{}", deleted["id"])).send().await.status, 204);

    let left = soon - Utc::now();
    tokio::time::sleep(left.to_std().unwrap_or_default()).await;
    let unknown = client.get("/unknown1").send().await;
    assert_eq!(unknown.status, 404);
    for link in [inactive, expired, used_up, deleted] {
        let response = client.get(&format!("/{}", code(&link))).send().await;
        assert_eq!(response.status, 404, "{link}");
        assert_eq!(response.body, unknown.body, "{link}");
        let without_date = |headers: &http::HeaderMap| {
            let mut headers = headers.clone();
            headers.remove("date");
            headers
        };
        assert_eq!(without_date(&response.headers), without_date(&unknown.headers), "{link}");
    }
    // A path that cannot be a code gets the same response.
    for path in ["/ab", "/a.b", "/abc/def", "/%61bc", "/sitemap.xml", "/favicon.svg"] {
        assert_eq!(client.get(path).send().await.body, unknown.body, "{path}");
    }
}

#[tokio::test]
async fn must_07_expiry_takes_effect_on_time_in_every_cache() {
    let stack = Stack::builder().shorteners(2).start().await;
    let client = stack.client();
    let text =
        (Utc::now() + chrono::Duration::seconds(2)).to_rfc3339_opts(SecondsFormat::Millis, true);
    // Parsed again, because the text has only milliseconds.
    let expires_at: chrono::DateTime<Utc> = text.parse().unwrap();
    let body = json!({"original_url": "https://example.com/", "expires_at": text});
    let code = client.shorten(&body).await["short_code"].as_str().unwrap().to_owned();
    for shortener in 0..2 {
        assert_eq!(stack.resolve_at(shortener, &code).await.0, 302, "warm-up of each cache");
    }
    for shortener in 0..2 {
        within(Duration::from_secs(10), "expiry", || async {
            let before = Utc::now();
            let (status, _) = stack.resolve_at(shortener, &code).await;
            let after = Utc::now();
            // Both responses are right if the link expired between the two times.
            assert!(status == 404 || before < expires_at, "{status} after the expiry");
            assert!(status == 302 || after >= expires_at, "{status} before the expiry");
            status == 404
        })
        .await;
    }
    let later = json!({"expires_at": "2099-01-01T00:00:00Z"});
    let id = &client.get("/api/v1/urls").send().await.json()[0]["id"];
    assert_eq!(client.patch(&format!("/api/v1/urls/{id}"), &later).send().await.status, 200);
    for shortener in 0..2 {
        within(Duration::from_secs(1), "302 after the expiry was postponed", || async {
            stack.resolve_at(shortener, &code).await.0 == 302
        })
        .await;
    }
}
