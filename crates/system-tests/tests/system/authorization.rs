//! Ownership, scopes, API keys and the `Host` header.

use std::time::Duration;

use chrono::{SecondsFormat, Utc};
use http::Method;
use linnet_system_tests::{Client, Stack, raw, stack::BASE_URL, within};
use serde_json::{Value, json};

#[tokio::test]
async fn must_15_host_header_changes_neither_links_nor_redirects() {
    let stack = Stack::start().await;
    let address = stack.client().address();
    let body = r#"{"original_url":"https://example.com/"}"#;
    let hosts: [&[&str]; 6] = [
        &["Host: lnt.test"],
        &["Host: evil.example"],
        &["Host: EVIL.EXAMPLE:99"],
        &["Host: evil.example", "X-Forwarded-Host: worse.example", "Forwarded: host=worst.example"],
        &["Host: lnt.test", "Host: evil.example"],
        &[],
    ];
    for host in hosts {
        for version in ["1.1", "1.0"] {
            let mut request = format!("POST /api/v1/urls HTTP/{version}\r\nConnection: close\r\n");
            for line in host {
                request += &format!("{line}\r\n");
            }
            request += &format!(
                "Authorization: Bearer {}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
                stack.admin_key,
                body.len()
            );
            let response = raw::exchange(address, request.as_bytes()).await;
            assert!(
                !response.text.contains("evil") && !response.text.contains("wors"),
                "{}",
                response.text
            );
            match response.status {
                Some(201) => {
                    assert!(
                        response.text.contains(&format!("\"short_url\":\"{BASE_URL}/")),
                        "{}",
                        response.text
                    );
                }
                // An HTTP/1.1 request without a `Host` header or with two of them is malformed.
                Some(400) => {
                    assert!(host.len() == 2 || host.is_empty(), "{host:?}: {}", response.text);
                }
                status => panic!("{host:?}: {status:?} {}", response.text),
            }
        }
    }
    let link = stack.client().shorten(&json!({"original_url": "https://example.com/"})).await;
    let path = format!("/{}", link["short_code"].as_str().unwrap());
    for host in ["Host: evil.example", "Host: LNT.TEST", "Host: 127.0.0.1"] {
        let response = raw::get(address, path.as_bytes(), &[host]).await;
        assert_eq!(response.status, Some(302));
        assert!(response.text.to_ascii_lowercase().contains("location: https://example.com/\r\n"));
    }
}

/// Creates resources of `client`'s user. Returns the name, the path and a change for each.
async fn create_resources(client: &Client, user: i64) -> Vec<(&'static str, String, Value)> {
    let link = client.shorten(&json!({"original_url": "https://example.com/"})).await;
    let event = json!({"url_id": link["id"], "event_type": "x"});
    let event = client.post("/api/v1/events", &event).send().await.json();
    let key = json!({"name": "mine", "scopes": ["urls:read"]});
    let key = client.post("/api/v1/api-keys", &key).send().await.json();
    let key = key["id"].as_str().unwrap();
    vec![
        ("urls", format!("/api/v1/urls/{}", link["id"]), json!({"title": "stolen"})),
        ("events", format!("/api/v1/events/{}", event["id"]), json!({})),
        ("users", format!("/api/v1/users/{user}"), json!({"username": "stolen"})),
        ("api-keys", format!("/api/v1/api-keys/{key}"), json!({"name": "stolen"})),
    ]
}

const USER_SCOPES: &[&str] = &["urls:read", "urls:write", "users:read", "users:write"];

#[tokio::test]
async fn must_16_resources_of_another_user_are_not_found() {
    let stack = Stack::start().await;
    let (owner_id, owner) = stack.create_user("owner", USER_SCOPES).await;
    let (_, thief) = stack.create_user("thief", USER_SCOPES).await;
    for (resource, path, change) in create_resources(&owner, owner_id).await {
        let before = owner.get(&path).send().await;
        assert_eq!(before.status, 200, "{path}");
        let absent = match resource {
            "api-keys" => "/api/v1/api-keys/zzzzzzzz".to_owned(),
            _ => format!("/api/v1/{resource}/987654321"),
        };
        for method in [Method::GET, Method::HEAD, Method::PUT, Method::PATCH, Method::DELETE] {
            if resource == "events" && method != Method::GET && method != Method::HEAD {
                continue;
            }
            let theirs = thief.request(method.clone(), &path).json(&change).send().await;
            let missing = thief.request(method.clone(), &absent).json(&change).send().await;
            assert_eq!(theirs.status, 404, "{method} {path}: {}", theirs.text());
            assert_eq!(missing.status, 404, "{method} {absent}: {}", missing.text());
            if method != Method::HEAD {
                let (mut theirs, mut missing) = (theirs.json(), missing.json());
                for problem in [&mut theirs, &mut missing] {
                    problem.as_object_mut().unwrap().remove("request_id");
                }
                assert_eq!(theirs, missing, "{method} {path}: differs from a missing resource");
            }
        }
        assert_eq!(owner.get(&path).send().await.body, before.body, "{path} has changed");
        let list = thief.get(&format!("/api/v1/{resource}")).send().await.json();
        let id = before.json()["id"].clone();
        assert!(list.as_array().unwrap().iter().all(|item| item["id"] != id), "{resource}");
    }
    // A filter by the owner finds nothing.
    for list in ["urls", "events", "api-keys"] {
        let response = thief.get(&format!("/api/v1/{list}?user_id={owner_id}")).send().await;
        assert_eq!(response.json(), json!([]), "{list}");
    }
    for (path, body) in [
        ("/api/v1/urls", json!({"original_url": "https://example.com/", "user_id": owner_id})),
        ("/api/v1/api-keys", json!({"name": "x", "scopes": ["urls:read"], "user_id": owner_id})),
    ] {
        thief.post(path, &body).send().await.problem(403);
    }
    let link = owner.get("/api/v1/urls").send().await.json()[0]["id"].clone();
    let event = json!({"url_id": link, "event_type": "x"});
    thief.post("/api/v1/events", &event).send().await.problem(404);
    thief
        .post("/api/v1/users", &json!({"username": "x", "email": "x@example.test"}))
        .send()
        .await
        .problem(403);
    // A key cannot create a key with more scopes.
    for scopes in [json!(["admin"]), json!(["jobs:write"]), json!(["urls:read", "admin"])] {
        thief
            .post("/api/v1/api-keys", &json!({"name": "x", "scopes": scopes}))
            .send()
            .await
            .problem(403);
    }
}

#[tokio::test]
async fn must_16_key_is_limited_to_its_scopes() {
    let stack = Stack::start().await;
    let all = ["urls:read", "urls:write", "users:read", "users:write", "jobs:write", "admin"];
    let link = stack.client().shorten(&json!({"original_url": "https://example.com/"})).await["id"]
        .clone();
    let link = format!("/api/v1/urls/{link}");
    let none = json!({});
    let table: Vec<(Method, &str, &Value, &str)> = vec![
        (Method::GET, "/api/v1/urls", &none, "urls:read"),
        (Method::HEAD, "/api/v1/urls", &none, "urls:read"),
        (Method::GET, &link, &none, "urls:read"),
        (Method::GET, "/api/v1/events", &none, "urls:read"),
        (Method::GET, "/api/v1/events/1", &none, "urls:read"),
        (Method::POST, "/api/v1/urls", &none, "urls:write"),
        (Method::PATCH, &link, &none, "urls:write"),
        (Method::PUT, &link, &none, "urls:write"),
        (Method::DELETE, "/api/v1/urls/987654321", &none, "urls:write"),
        (Method::POST, "/api/v1/events", &none, "urls:write"),
        (Method::GET, "/api/v1/users", &none, "users:read"),
        (Method::GET, "/api/v1/users/1", &none, "users:read"),
        (Method::GET, "/api/v1/api-keys", &none, "users:read"),
        (Method::GET, "/api/v1/api-keys/zzzzzzzz", &none, "users:read"),
        (Method::POST, "/api/v1/users", &none, "users:write"),
        (Method::PATCH, "/api/v1/users/987654321", &none, "users:write"),
        (Method::PUT, "/api/v1/users/987654321", &none, "users:write"),
        (Method::DELETE, "/api/v1/users/987654321", &none, "users:write"),
        (Method::POST, "/api/v1/api-keys", &none, "users:write"),
        (Method::PATCH, "/api/v1/api-keys/zzzzzzzz", &none, "users:write"),
        (Method::DELETE, "/api/v1/api-keys/zzzzzzzz", &none, "users:write"),
    ];
    for (n, scope) in all.into_iter().enumerate() {
        let (_, client) = stack.create_user(&format!("scoped{n}"), &[scope]).await;
        for (method, path, body, needed) in &table {
            let response = client.request(method.clone(), path).json(body).send().await;
            let may = scope == *needed || scope == "admin";
            assert_eq!(
                response.status != 403,
                may,
                "{scope}: {method} {path}: {}",
                response.status
            );
            assert!(
                ![401, 405].contains(&response.status),
                "{scope}: {method} {path}: {}",
                response.status
            );
        }
    }
    for (method, path, body, _) in &table {
        let response =
            stack.client().anonymous().request(method.clone(), path).json(body).send().await;
        assert_eq!(response.status, 401, "{method} {path}");
        assert!(
            response.header("www-authenticate").is_some_and(|value| value.starts_with("Bearer"))
        );
    }
}

#[tokio::test]
async fn must_16_only_a_complete_valid_key_authenticates() {
    let stack = Stack::start().await;
    let key = stack.admin_key.clone();
    let client = stack.client().anonymous();
    let get = |header: &str, value: &str| client.get("/api/v1/urls").header(header, value).send();
    assert_eq!(get("authorization", &format!("Bearer {key}")).await.status, 200);
    assert_eq!(get("authorization", &format!("bearer {key}")).await.status, 200);
    assert_eq!(get("x-api-key", &key).await.status, 200);
    let (front, last) = key.split_at(key.len() - 1);
    let wrong_secret = format!("{front}{}", if last == "A" { "B" } else { "A" });
    let other_id = format!("lnt_zzzzzzzz{}", &key[12..]);
    for bad in [
        wrong_secret.as_str(),
        &other_id,
        front,
        &format!("{key}x"),
        &key.to_uppercase(),
        "lnt_",
        "x",
        "lnt_zzzzzzzz_'; DROP TABLE api_keys; --",
    ] {
        assert_eq!(get("x-api-key", bad).await.status, 401, "{bad}");
        assert_eq!(get("authorization", &format!("Bearer {bad}")).await.status, 401, "{bad}");
    }
    assert_eq!(get("authorization", &format!("Basic {key}")).await.status, 401);
    let both = client.get("/api/v1/urls").header("x-api-key", &key);
    let both = both.header("authorization", &format!("Bearer {other_id}")).send().await;
    assert_eq!(both.status, 400);
    for name in ["api_key", "key", "token", "access_token"] {
        let response = client.get(&format!("/api/v1/urls?{name}={key}")).send().await;
        assert_eq!(response.problem(400)["code"], "key_in_url");
    }
    // A client cannot send the gateway's identity headers.
    let forged = client
        .get("/api/v1/urls")
        .header("x-linnet-user-id", "1")
        .header("x-linnet-scopes", "admin")
        .header("x-linnet-key-id", "aaaaaaaa")
        .header("x-linnet-service-token", "system-tests-0123456789abcdef0123456789");
    assert_eq!(forged.send().await.status, 401);
    let (_, weak) = stack.create_user("weak", &["urls:read"]).await;
    let forged = weak
        .get("/api/v1/users")
        .header("X-Linnet-Scopes", "admin")
        .header("x-linnet-user-id", &stack.admin_id.to_string());
    assert_eq!(forged.send().await.status, 403);
}

#[tokio::test]
async fn must_16_key_expires_on_time_and_its_secret_is_neither_stored_nor_logged() {
    let stack = Stack::start().await;
    let client = stack.client();
    let expires_at = Utc::now() + chrono::Duration::milliseconds(2_500);
    let body = json!({"name": "short", "scopes": ["urls:read"],
        "expires_at": expires_at.to_rfc3339_opts(SecondsFormat::Millis, true)});
    let key = client.post("/api/v1/api-keys", &body).send().await.json();
    let key = key["key"].as_str().unwrap();
    let short = client.with_key(key);
    assert_eq!(short.get("/api/v1/urls").send().await.status, 200);
    within(Duration::from_secs(10), "401 after the key's expiry", || async {
        let before = Utc::now();
        let status = short.get("/api/v1/urls").send().await.status;
        assert!(status == 401 || before < expires_at, "{status} after the expiry");
        status == 401
    })
    .await;
    assert!(Utc::now() >= expires_at, "401 before the expiry");

    let secret = &key[13..];
    for process in stack.shorteners.iter().chain(&stack.gateways) {
        assert!(!process.log().contains(secret), "{}", process.name());
    }
    let mut database = stack.database().await;
    let dump: Vec<String> = sqlx::query_scalar("SELECT api_keys::text FROM api_keys")
        .fetch_all(&mut database)
        .await
        .unwrap();
    assert!(!dump.is_empty() && dump.iter().all(|row| !row.contains(secret)));
}
