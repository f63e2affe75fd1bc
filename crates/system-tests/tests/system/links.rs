//! Shorten and resolve.

use std::time::Duration;

use chrono::{SecondsFormat, Utc};
use linnet_system_tests::{Stack, stack::BASE_URL, within};
use serde_json::json;

#[tokio::test]
async fn a_link_is_made_and_leads_to_its_target() {
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
        let answer = client.anonymous().request(method, &format!("/{code}")).send().await;
        assert_eq!(answer.status, 302);
        assert_eq!(answer.header("location"), Some("https://example.com/a?b=c#d"));
        assert_eq!(answer.header("cache-control"), Some("private, max-age=0"));
        assert_eq!(answer.header("server"), Some("nginx"), "no version, no second server");
    }
    // A query is the visitor's own and changes nothing.
    let answer = client.anonymous().get(&format!("/{code}?utm=1&x=//evil")).send().await;
    assert_eq!(answer.header("location"), Some("https://example.com/a?b=c#d"));
}

#[tokio::test]
async fn the_same_target_twice_gives_two_codes_unless_reuse_is_asked_for() {
    let stack = Stack::start().await;
    let client = stack.client();
    let target = json!({"original_url": "https://example.com/same"});
    let (first, second) = (client.shorten(&target).await, client.shorten(&target).await);
    assert_ne!(first["short_code"], second["short_code"]);

    let reuse = json!({"original_url": "https://EXAMPLE.com/same", "reuse": true});
    let again = client.post("/api/v1/urls", &reuse).send().await;
    assert_eq!(again.status, 200, "{}", again.text());
    assert_eq!(again.json()["id"], first["id"], "the oldest one");
    assert!(again.header("location").is_some());

    let (_, other) = stack.user("other", &["urls:read", "urls:write"]).await;
    let theirs = other.post("/api/v1/urls", &reuse).send().await;
    assert_eq!(theirs.status, 201, "another user's link is not reused");
}

#[tokio::test]
async fn twenty_at_once_that_reuse_get_one_link() {
    let stack = Stack::builder().shorteners(2).start().await;
    let body = json!({"original_url": "https://example.com/at-once", "reuse": true});
    let requests = (0..20).map(|_| stack.client().post("/api/v1/urls", &body).send());
    let answers = futures::future::join_all(requests).await;
    let made = answers.iter().filter(|answer| answer.status == 201).count();
    let reused = answers.iter().filter(|answer| answer.status == 200).count();
    assert_eq!((made, reused), (1, 19));
    let first = answers[0].json()["id"].clone();
    assert!(answers.iter().all(|answer| answer.json()["id"] == first));
}

#[tokio::test]
async fn must_08_browsers_keep_only_what_cannot_change() {
    let stack = Stack::start().await;
    let client = stack.client();
    for status in [301_u16, 302, 307, 308] {
        let body = json!({"original_url": "https://example.com/", "redirect_status": status});
        let code = client.shorten(&body).await["short_code"].as_str().unwrap().to_owned();
        let answer = client.get(&format!("/{code}")).send().await;
        assert_eq!(answer.status, status);
        let cached = answer.header("cache-control").unwrap();
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
    let answer = client.get(&format!("/{code}")).send().await;
    let cached = answer.header("cache-control").unwrap();
    let age: u64 = cached.strip_prefix("private, max-age=").unwrap().parse().unwrap();
    assert!(age < 600, "no longer than its remaining life: {cached}");

    let body =
        json!({"original_url": "https://example.com/", "redirect_status": 301, "max_clicks": 3});
    let code = client.shorten(&body).await["short_code"].as_str().unwrap().to_owned();
    let answer = client.get(&format!("/{code}")).send().await;
    assert_eq!(answer.status, 301);
    assert_eq!(answer.header("cache-control"), Some("no-store"), "a limited link is never kept");
}

#[tokio::test]
async fn must_12_whatever_does_not_resolve_looks_the_same() {
    let stack = Stack::start().await;
    let client = stack.client();
    let code = |link: &serde_json::Value| link["short_code"].as_str().unwrap().to_owned();
    let target = "https://example.com/";
    let inactive = client.shorten(&json!({"original_url": target, "is_active": false})).await;
    let expired = client
        .shorten(&json!({"original_url": target, "expires_at": "2020-01-01T00:00:00Z"}))
        .await;
    let used_up = client.shorten(&json!({"original_url": target, "max_clicks": 1})).await;
    assert_eq!(client.resolve(&code(&used_up)).await.0, 302);
    let deleted = client.shorten(&json!({"original_url": target})).await;
    assert_eq!(client.delete(&format!("/api/v1/urls/{}", deleted["id"])).send().await.status, 204);

    let unknown = client.get("/unknown1").send().await;
    assert_eq!(unknown.status, 404);
    for link in [inactive, expired, used_up, deleted] {
        let answer = client.get(&format!("/{}", code(&link))).send().await;
        assert_eq!(answer.status, 404, "{link}");
        assert_eq!(answer.body, unknown.body, "{link}");
        let names = |headers: &http::HeaderMap| {
            let mut headers = headers.clone();
            headers.remove("date");
            headers
        };
        assert_eq!(names(&answer.headers), names(&unknown.headers), "{link}");
    }
    // A path of another shape is a miss like any other.
    for path in ["/ab", "/a.b", "/abc/def", "/%61bc", "/robots.txt", "/favicon.ico"] {
        assert_eq!(client.get(path).send().await.body, unknown.body, "{path}");
    }
}

#[tokio::test]
async fn must_07_expiry_is_seen_to_the_second_in_every_cache() {
    let stack = Stack::builder().shorteners(2).start().await;
    let client = stack.client();
    let text =
        (Utc::now() + chrono::Duration::seconds(2)).to_rfc3339_opts(SecondsFormat::Millis, true);
    // What was said, without the digits that it left out.
    let expires_at: chrono::DateTime<Utc> = text.parse().unwrap();
    let body = json!({"original_url": "https://example.com/", "expires_at": text});
    let code = client.shorten(&body).await["short_code"].as_str().unwrap().to_owned();
    for shortener in 0..2 {
        assert_eq!(stack.resolve_at(shortener, &code).await.0, 302, "warms every tier");
    }
    for shortener in 0..2 {
        within(Duration::from_secs(10), "expiry", || async {
            let before = Utc::now();
            let (status, _) = stack.resolve_at(shortener, &code).await;
            let after = Utc::now();
            // Between the two moments either answer is right.
            assert!(status == 404 || before < expires_at, "{status} after its end");
            assert!(status == 302 || after >= expires_at, "{status} before its end");
            status == 404
        })
        .await;
    }
    let later = json!({"expires_at": "2099-01-01T00:00:00Z"});
    let id = &client.get("/api/v1/urls").send().await.json()[0]["id"];
    assert_eq!(client.patch(&format!("/api/v1/urls/{id}"), &later).send().await.status, 200);
    for shortener in 0..2 {
        within(Duration::from_secs(1), "the link lives again", || async {
            stack.resolve_at(shortener, &code).await.0 == 302
        })
        .await;
    }
}
