//! Listing, reading, creating, changing and deleting each resource of the API.

use linnet_system_tests::{Client, Response, Stack};
use serde_json::{Value, json};

/// The target of the `Link` header's `rel="next"`.
fn next_page(response: &Response) -> Option<String> {
    let (target, rest) = response.header("link")?.strip_prefix('<')?.split_once('>')?;
    assert_eq!(rest, "; rel=\"next\"");
    Some(target.to_owned())
}

/// Reads all pages, beginning with `path`.
async fn read_pages(client: &Client, path: &str) -> Vec<Vec<Value>> {
    let mut path = Some(path.to_owned());
    let mut pages = Vec::new();
    while let Some(here) = path {
        let response = client.get(&here).send().await;
        assert_eq!(response.status, 200, "{here}: {}", response.text());
        pages.push(response.json().as_array().unwrap().clone());
        path = next_page(&response);
        assert!(pages.len() < 100, "more than 100 pages");
    }
    pages
}

fn ids(items: &[Value]) -> Vec<i64> {
    items.iter().map(|item| item["id"].as_i64().unwrap()).collect()
}

/// The fields of a link in the order of the documentation. The snapshot of the document lists them.
pub(crate) fn link_fields() -> Vec<String> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/openapi.json");
    let document: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let fields = document["components"]["schemas"]["UrlBody"]["required"].as_array().unwrap();
    fields.iter().map(|field| field.as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn links_can_be_listed_read_changed_and_deleted() {
    let stack = Stack::start().await;
    let client = stack.client();
    let made =
        client.shorten(&json!({"original_url": "https://example.com/1", "title": "One"})).await;
    let path = format!("/api/v1/urls/{}", made["id"]);
    assert_eq!(client.get(&path).send().await.json(), made);
    let mut fields: Vec<_> = made.as_object().unwrap().keys().map(String::as_str).collect();
    let mut expected = link_fields();
    fields.sort_unstable();
    expected.sort_unstable();
    assert_eq!(fields, expected);

    let patch =
        json!({"original_url": "https://example.com/2", "title": null, "redirect_status": 307});
    let changed = client.patch(&path, &patch).send().await;
    assert_eq!(changed.status, 200, "{}", changed.text());
    let changed = changed.json();
    assert_eq!(changed["original_url"], "https://example.com/2");
    assert_eq!(changed["title"], Value::Null);
    assert_eq!(changed["redirect_status"], 307);
    assert_eq!(changed["short_code"], made["short_code"]);
    let put = client.put(&path, &json!({"is_active": false})).send().await.json();
    assert_eq!(put["is_active"], false);
    assert_eq!(put["original_url"], "https://example.com/2", "PUT accepts any subset of fields");
    assert_eq!(client.get(&path).send().await.json(), put);
    for immutable in ["id", "short_code", "user_id", "clicks", "created_at"] {
        let response = client.patch(&path, &json!({immutable: made[immutable]})).send().await;
        response.problem(422);
        assert_eq!(response.problem_fields(), [immutable]);
    }

    let head = client.head(&path).send().await;
    assert_eq!((head.status, head.body.len()), (200, 0));
    let gone = client.delete(&path).send().await;
    assert_eq!((gone.status, gone.body.len()), (204, 0));
    for response in [
        client.get(&path).send().await,
        client.delete(&path).send().await,
        client.patch(&path, &json!({"title": "x"})).send().await,
    ] {
        assert_eq!(response.problem(404)["code"], "not_found");
    }
    // The code is free again.
    let again = json!({"original_url": "https://example.com/3", "short_code": made["short_code"]});
    assert_eq!(client.shorten(&again).await["short_code"], made["short_code"]);
    let code = made["short_code"].as_str().unwrap();
    assert_eq!(client.resolve(code).await.1.as_deref(), Some("https://example.com/3"));
}

#[tokio::test]
async fn search_for_two_characters_is_followed_through_all_links() {
    let stack = Stack::start().await;
    let client = stack.client();
    sqlx::query(
        "INSERT INTO urls (short_code, original_url, title)
         SELECT 'a' || lpad(n::text, 7, '0'), 'https://a.example/',
                CASE WHEN n IN (1, 2, 3, 45001, 45002, 50000) THEN 'xy' END
           FROM generate_series(1, 50000) AS n",
    )
    .execute(&mut stack.database().await)
    .await
    .unwrap();
    for path in ["/api/v1/urls?search=xy&limit=2", "/api/v1/urls?search=XY&page=1&per_page=2"] {
        let pages = read_pages(&client, path).await;
        let sizes: Vec<_> = pages.iter().map(Vec::len).collect();
        // Windows of 20,000 links: three matches, none, and three; the last page is short.
        assert_eq!(sizes, [2, 1, 0, 2, 1], "{path}");
        let mut found = ids(&pages.concat());
        found.dedup();
        assert_eq!(found.len(), 6, "{path}");
    }
    let export = client.get("/api/v1/urls/export?search=xy&format=ndjson").send().await;
    assert_eq!(export.text().lines().count(), 6);
}

#[tokio::test]
async fn lists_are_paginated_by_cursor_and_by_page() {
    let stack = Stack::start().await;
    let client = stack.client();
    let mut made = Vec::new();
    for n in 0..7 {
        let link =
            client.shorten(&json!({"original_url": format!("https://example.com/{n}")})).await;
        made.push(link["id"].as_i64().unwrap());
    }
    let by_cursor = read_pages(&client, "/api/v1/urls?limit=3").await;
    let sizes: Vec<_> = by_cursor.iter().map(Vec::len).collect();
    assert_eq!(sizes, [3, 3, 1]);
    assert_eq!(ids(&by_cursor.concat()), made);
    let by_page = read_pages(&client, "/api/v1/urls?page=1&per_page=3").await;
    assert_eq!(ids(&by_page.concat()), made);
    assert_eq!(
        by_page[1],
        client
            .get("/api/v1/urls?page=2&per_page=3")
            .send()
            .await
            .json()
            .as_array()
            .unwrap()
            .clone()
    );
    assert_eq!(client.get("/api/v1/urls?page=9&per_page=3").send().await.json(), json!([]));

    // Deletions do not shift the pages of a cursor.
    let first = client.get("/api/v1/urls?limit=3").send().await;
    let rest = next_page(&first).unwrap();
    assert_eq!(client.delete(&format!("/api/v1/urls/{}", made[0])).send().await.status, 204);
    assert_eq!(ids(&read_pages(&client, &rest).await.concat()), made[3..]);

    for (query, field) in [
        ("limit=201", "limit"),
        ("limit=0", "limit"),
        ("limit=-1", "limit"),
        ("limit=x", "limit"),
        ("per_page=201", "per_page"),
        ("page=0", "page"),
        ("page=99999999999999999999", "page"),
        ("page=1000000&per_page=200", "page"),
        ("cursor=x", "cursor"),
        ("no_such=1", "no_such"),
        ("is_active=maybe", "is_active"),
        ("user_id=x", "user_id"),
    ] {
        let response = client.get(&format!("/api/v1/urls?{query}")).send().await;
        response.problem(422);
        assert_eq!(response.problem_fields(), [field], "{query}");
    }
}

#[tokio::test]
async fn links_can_be_filtered() {
    let stack = Stack::start().await;
    let client = stack.client();
    let (user, theirs) = stack.create_user("filters", &["urls:read", "urls:write"]).await;
    let title = |title: &str| json!({"original_url": "https://example.com/", "title": title});
    let on = client.shorten(&title("Quarterly 100%_sure")).await["id"].as_i64().unwrap();
    let off = json!({"original_url": "https://search.example/Needle", "is_active": false});
    let off = client.shorten(&off).await["id"].as_i64().unwrap();
    let other = theirs.shorten(&title("other")).await["id"].as_i64().unwrap();
    for (query, found) in [
        (format!("user_id={user}"), vec![other]),
        ("is_active=false".into(), vec![off]),
        ("is_active=true".into(), vec![on, other]),
        ("search=nEEdle".into(), vec![off]),
        ("search=quarterly".into(), vec![on]),
        ("search=100%25_".into(), vec![on]),
        ("search=0%25_".into(), vec![on]),
        ("search=no+such".into(), vec![]),
        ("search=rc".into(), vec![off]),
        ("search=&is_active=true&user_id=".into(), vec![on, other]),
        (format!("search=example&is_active=true&user_id={user}"), vec![other]),
    ] {
        let response = client.get(&format!("/api/v1/urls?{query}")).send().await;
        assert_eq!(response.status, 200, "{query}: {}", response.text());
        assert_eq!(ids(response.json().as_array().unwrap()), found, "{query}");
    }
}

#[tokio::test]
async fn users_can_be_listed_read_changed_and_deleted() {
    let stack = Stack::start().await;
    let client = stack.client();
    let body = json!({"username": "ada", "email": "Ada@example.test"});
    let made = client.post("/api/v1/users", &body).send().await;
    assert_eq!(made.status, 201, "{}", made.text());
    let location = made.header("location").unwrap().to_owned();
    let user = made.json();
    assert_eq!(location, format!("/api/v1/users/{}", user["id"]));
    assert_eq!(client.get(&location).send().await.json(), user);
    assert_eq!(user.as_object().unwrap().len(), 4);

    // User names need not be unique. Email addresses must be, whatever their case.
    let same_name = json!({"username": "ada", "email": "ada2@example.test"});
    assert_eq!(client.post("/api/v1/users", &same_name).send().await.status, 201);
    let same_address = json!({"username": "eve", "email": "aDA@EXAMPLE.test"});
    let taken = client.post("/api/v1/users", &same_address).send().await;
    assert_eq!(taken.problem(409)["code"], "taken");
    assert_eq!(taken.problem_fields(), ["email"]);

    let renamed = client.patch(&location, &json!({"username": "Ada L."})).send().await.json();
    assert_eq!(renamed["username"], "Ada L.");
    assert_eq!(renamed["email"], user["email"]);
    let all = read_pages(&client, "/api/v1/users?limit=1").await;
    assert_eq!(all.concat().len(), 3);

    // Deleting a user deletes their links, which stop resolving.
    let link = json!({"original_url": "https://example.com/", "user_id": user["id"]});
    let link = client.shorten(&link).await;
    let code = link["short_code"].as_str().unwrap();
    assert_eq!(client.resolve(code).await.0, 302);
    assert_eq!(client.delete(&location).send().await.status, 204);
    assert_eq!(client.resolve(code).await.0, 404);
    client.get(&location).send().await.problem(404);
    client.get(&format!("/api/v1/urls/{}", link["id"])).send().await.problem(404);
}

#[tokio::test]
async fn keys_can_be_created_listed_renamed_and_revoked() {
    let stack = Stack::start().await;
    let client = stack.client();
    let body = json!({"name": "ci", "scopes": ["urls:read"], "expires_at": "2099-01-01T00:00:00Z"});
    let made = client.post("/api/v1/api-keys", &body).send().await;
    assert_eq!(made.status, 201, "{}", made.text());
    let secret = made.json()["key"].as_str().unwrap().to_owned();
    let id = made.json()["id"].as_str().unwrap().to_owned();
    assert!(secret.starts_with(&format!("lnt_{id}_")), "{secret}");
    let path = format!("/api/v1/api-keys/{id}");
    assert_eq!(made.header("location"), Some(path.as_str()));

    let shown = client.get(&path).send().await;
    let tail = secret.rsplit('_').next().unwrap();
    assert!(!shown.text().contains(&secret[13..]) && !shown.text().contains(tail));
    assert_eq!(shown.json()["name"], "ci");
    assert_eq!(shown.json()["scopes"], json!(["urls:read"]));
    let renamed = client.patch(&path, &json!({"name": "CI server"})).send().await;
    assert_eq!(renamed.json()["name"], "CI server", "{}", renamed.text());
    let put = client.put(&path, &json!({"name": "CI 2"})).send().await;
    assert_eq!((put.status, put.json()["name"].clone()), (200, json!("CI 2")));

    for n in 0..4 {
        let body = json!({"name": format!("k{n}"), "scopes": ["urls:read"]});
        assert_eq!(client.post("/api/v1/api-keys", &body).send().await.status, 201);
    }
    let walked = read_pages(&client, "/api/v1/api-keys?limit=2").await.concat();
    let mut walked: Vec<_> = walked.iter().map(|key| key["id"].as_str().unwrap()).collect();
    assert_eq!(walked.len(), 6);
    walked.sort_unstable();
    walked.dedup();
    assert_eq!(walked.len(), 6, "each key is on one page");

    assert_eq!(client.with_key(&secret).get("/api/v1/urls").send().await.status, 200);
    assert_eq!(client.delete(&path).send().await.status, 204);
    for (what, request) in [
        ("shown", client.get(&path)),
        ("renamed", client.patch(&path, &json!({"name": "again"}))),
        ("revoked", client.delete(&path)),
    ] {
        assert_eq!(request.send().await.status, 404, "{what} after it was revoked");
    }
    let listed = client.get("/api/v1/api-keys").send().await.json();
    assert!(listed.as_array().unwrap().iter().all(|key| key["id"] != *id), "{listed}");
    let past = json!({"name": "x", "scopes": ["urls:read"], "expires_at": "2020-01-01T00:00:00Z"});
    let past = client.post("/api/v1/api-keys", &past).send().await;
    past.problem(422);
    assert_eq!(past.problem_fields(), ["expires_at"]);
}

#[tokio::test]
async fn changes_of_links_record_events_and_clients_can_add_events() {
    let stack = Stack::start().await;
    let client = stack.client();
    let link = client.shorten(&json!({"original_url": "https://example.com/"})).await;
    let id = &link["id"];
    let path = format!("/api/v1/urls/{id}");
    client.patch(&path, &json!({"title": "New"})).send().await;
    client.patch(&path, &json!({})).send().await;
    let own = json!({"url_id": id, "event_type": "shared", "details": {"by": "mail", "n": [1, {"a": null}]}});
    let made = client.post("/api/v1/events", &own).send().await;
    assert_eq!(made.status, 201, "{}", made.text());
    let event = made.json();
    assert_eq!(event["user_id"], stack.admin_id);
    assert_eq!(event["details"], own["details"]);
    assert_eq!(client.get(made.header("location").unwrap()).send().await.json(), event);
    client.delete(&path).send().await;

    let events = client.get(&format!("/api/v1/events?url_id={id}")).send().await.json();
    let types: Vec<_> =
        events.as_array().unwrap().iter().map(|e| e["event_type"].as_str().unwrap()).collect();
    assert_eq!(types, ["created", "updated", "shared", "deleted"], "{events}");
    assert_eq!(events[1]["details"], json!({"title": "New"}));
    assert_eq!(events[0]["details"]["short_code"], link["short_code"]);
    let only = client.get("/api/v1/events?event_type=shared").send().await.json();
    assert_eq!(ids(only.as_array().unwrap()), [event["id"].as_i64().unwrap()]);
    let none = client.get("/api/v1/events?user_id=999999").send().await.json();
    assert_eq!(none, json!([]));
    assert_eq!(read_pages(&client, "/api/v1/events?limit=2").await.concat().len(), 4);

    let kept = client.shorten(&json!({"original_url": "https://example.com/"})).await["id"].clone();
    for (body, status, field) in [
        (json!({"url_id": 999_999, "event_type": "x"}), 404, "url_id"),
        (json!({"url_id": kept, "user_id": 999_999, "event_type": "x"}), 404, "user_id"),
        (json!({"event_type": "x"}), 422, "url_id"),
        (json!({"url_id": kept}), 422, "event_type"),
        (json!({"url_id": kept, "event_type": "two words"}), 422, "event_type"),
        (json!({"url_id": kept, "event_type": "x", "details": []}), 422, "details"),
        (json!({"url_id": kept, "event_type": "x", "details": "{}"}), 422, "details"),
        (json!({"url_id": true, "event_type": "x"}), 422, "url_id"),
        (
            json!({"url_id": kept, "event_type": "x", "timestamp": "2020-01-01T00:00:00Z"}),
            422,
            "timestamp",
        ),
    ] {
        let response = client.post("/api/v1/events", &body).send().await;
        response.problem(status);
        assert_eq!(response.problem_fields(), [field], "{body}");
    }
    for method in [http::Method::PUT, http::Method::PATCH, http::Method::DELETE] {
        let response =
            client.request(method, made.header("location").unwrap()).json(&json!({})).send().await;
        assert_eq!(response.problem(405)["code"], "method_not_allowed");
        assert!(response.header("allow").unwrap().contains("GET"));
    }
}
