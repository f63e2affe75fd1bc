//! Takedowns, banned hosts and banned codes through the API.

use std::time::Duration;

use http::Method;
use linnet_system_tests::{Client, Stack, within};
use serde_json::{Value, json};

const SCOPES: &[&str] = &["urls:read", "urls:write", "users:read", "users:write", "jobs:write"];
const HOSTS: &str = "/api/v1/banned-hosts";
const CODES: &str = "/api/v1/banned-codes";

fn code(link: &Value) -> &str {
    link["short_code"].as_str().unwrap()
}

async fn resolves_everywhere(stack: &Stack, code: &str, status: u16) {
    for shortener in 0..2 {
        within(Duration::from_secs(1), "the takedown or its end", || async {
            stack.resolve_at(shortener, code).await.0 == status
        })
        .await;
    }
}

/// Sends a body that must be accepted with this status, and returns the response's body.
async fn accepted(client: &Client, method: Method, path: &str, body: &Value, status: u16) -> Value {
    let response = client.request(method, path).json(body).send().await;
    assert_eq!(response.status, status, "{path} {body}: {}", response.text());
    response.json()
}

#[tokio::test]
async fn must_20_administrator_takes_links_down_and_restores_them_through_the_api() {
    let stack = Stack::builder().shorteners(2).start().await;
    let admin = stack.client();
    let (_, owner) = stack.create_user("owner", SCOPES).await;
    let link = owner.shorten(&json!({"original_url": "https://example.com/x"})).await;
    assert_eq!((&link["taken_down_at"], &link["takedown_reason"]), (&json!(null), &json!(null)));
    let path = format!("/api/v1/urls/{}", link["id"]);
    let takedown = format!("{path}/takedown");
    resolves_everywhere(&stack, code(&link), 302).await;

    let reason = json!({"reason": "phishing, ticket 7"});
    let down = accepted(&admin, Method::PUT, &takedown, &reason, 200).await;
    assert_eq!((&down["is_active"], &down["takedown_reason"]), (&json!(false), &reason["reason"]));
    resolves_everywhere(&stack, code(&link), 404).await;
    // The owner sees the reason and cannot end the takedown.
    let shown = owner.get(&path).send().await.json();
    assert_eq!(shown["taken_down_at"], down["taken_down_at"]);
    assert_eq!(shown["takedown_reason"], reason["reason"]);
    owner.delete(&takedown).send().await.problem(403);
    owner.put(&takedown, &reason).send().await.problem(403);
    for patch in [json!({"is_active": true}), json!({"original_url": "https://example.org/"})] {
        assert_eq!(owner.patch(&path, &patch).send().await.json()["is_active"], false, "{patch}");
        // The same changes by an administrator do not end it either.
        assert_eq!(admin.patch(&path, &patch).send().await.json()["is_active"], false, "{patch}");
    }
    for field in ["taken_down_at", "takedown_reason"] {
        owner.patch(&path, &json!({field: null})).send().await.problem(422);
    }
    resolves_everywhere(&stack, code(&link), 404).await;
    // A further takedown changes only the reason.
    let again = accepted(&admin, Method::PUT, &takedown, &json!({"reason": "malware"}), 200).await;
    assert_eq!(again["taken_down_at"], down["taken_down_at"]);
    assert_eq!(again["takedown_reason"], "malware");
    admin.put(&takedown, &json!({})).send().await.problem(422);

    let up = admin.delete(&takedown).send().await;
    assert_eq!((up.status, &up.json()["taken_down_at"]), (200, &json!(null)), "{}", up.text());
    assert_eq!(
        (&up.json()["is_active"], &up.json()["takedown_reason"]),
        (&json!(true), &json!(null))
    );
    resolves_everywhere(&stack, code(&link), 302).await;
    admin.delete(&takedown).send().await.problem(404);
    admin.put("/api/v1/urls/987654321/takedown", &reason).send().await.problem(404);

    let events = owner.get(&format!("/api/v1/events?url_id={}", link["id"])).send().await.json();
    let by_type = |name: &str| {
        let found = events.as_array().unwrap().iter().find(|event| event["event_type"] == name);
        found.unwrap_or_else(|| panic!("no event {name}: {events}")).clone()
    };
    let taken = by_type("taken_down");
    assert!(
        ["phishing, ticket 7", "malware"].contains(&taken["details"]["reason"].as_str().unwrap())
    );
    assert_eq!(taken["user_id"], stack.admin_id);
    assert_eq!(by_type("restored")["user_id"], stack.admin_id);
}

// Long because each spelling of a host needs the same steps.
#[tokio::test]
async fn must_20_banned_host_covers_every_spelling_and_subdomain() {
    let stack = Stack::builder().shorteners(2).start().await;
    let admin = stack.client();
    let (_, owner) = stack.create_user("owner", SCOPES).await;
    let cases: [(&str, &[&str], &[&str]); 4] = [
        (
            "BÜCHER.example.",
            &[
                "https://xn--bcher-kva.example/",
                "http://user.XN--BCHER-KVA.example.:8080/a?b#c",
                "https://bücher.example",
                "https://b%C3%BCcher.example/",
            ],
            &["https://bucher.example/", "https://example/b%C3%BCcher.example"],
        ),
        (
            "192.0.2.7",
            &[
                "http://192.0.2.7/",
                "http://3221225991/",
                "http://0xc0.0.2.7:81/",
                "http://192.0.519/",
                "http://[::ffff:192.0.2.7]/",
                "http://[64:ff9b::c000:207]:82/",
                "http://[::192.0.2.7]/",
            ],
            &["http://192.0.2.70/", "http://1.192.0.2/", "http://[::ffff:192.0.2.70]/"],
        ),
        (
            "2001:DB8:0:0:0:0:0:7",
            &["http://[2001:db8::7]/", "https://[2001:db8:0::0:7]:8443/x"],
            &["http://[2001:db8::70]/"],
        ),
        (
            "evil.example",
            &["https://evil.example", "https://a.b.evil.example./x", "https://EVIL。example/"],
            &[
                "https://notevil.example/",
                "https://evil.example.org/",
                "https://x.example/evil.example",
            ],
        ),
    ];
    for (host, banned, other) in cases {
        let mut links = Vec::new();
        for target in banned {
            links.push(owner.shorten(&json!({"original_url": target})).await);
        }
        for link in &links {
            resolves_everywhere(&stack, code(link), 302).await;
        }
        let body = json!({"host": host, "reason": "malware"});
        owner.post(HOSTS, &body).send().await.problem(403);
        let ban = accepted(&admin, Method::POST, HOSTS, &body, 201).await;
        assert_eq!(ban["links_taken_down"], banned.len(), "{ban}");
        assert_eq!(ban["user_id"], stack.admin_id);
        for (link, target) in links.iter().zip(banned) {
            resolves_everywhere(&stack, code(link), 404).await;
            let path = format!("/api/v1/urls/{}", link["id"]);
            let shown = owner.get(&path).send().await.json();
            assert_eq!(
                (&shown["is_active"], &shown["takedown_reason"]),
                (&json!(false), &json!("malware"))
            );
            owner.post("/api/v1/urls", &json!({"original_url": target})).send().await.problem(422);
            // A takedown cannot end before the ban.
            admin.delete(&format!("{path}/takedown")).send().await.problem(422);
        }
        for target in other {
            owner.shorten(&json!({"original_url": target})).await;
        }
        // The request can be repeated.
        let again = accepted(&admin, Method::POST, HOSTS, &json!({"host": host}), 201).await;
        assert_eq!((&again["id"], &again["reason"]), (&ban["id"], &ban["reason"]));
        assert_eq!(again["links_taken_down"], 0);

        let one = format!("{HOSTS}/{}", ban["id"]);
        owner.delete(&one).send().await.problem(403);
        assert_eq!(admin.delete(&one).send().await.status, 204);
        admin.delete(&one).send().await.problem(404);
        resolves_everywhere(&stack, code(&links[0]), 404).await;
        let takedown = format!("/api/v1/urls/{}/takedown", links[0]["id"]);
        assert_eq!(admin.delete(&takedown).send().await.status, 200);
        resolves_everywhere(&stack, code(&links[0]), 302).await;
    }
    for host in [
        "",
        "https://evil.example/",
        "evil.example:80",
        "a b",
        "u@evil.example",
        "*.example",
        ".",
        "evil.example;",
        "a.example,b.example",
        "$HOST",
        "https",
    ] {
        let refused = admin.post(HOSTS, &json!({"host": host})).send().await;
        refused.problem(422);
        assert_eq!(refused.problem_fields(), ["host"], "{host:?}");
    }
}

#[tokio::test]
async fn must_20_banned_codes_and_hosts_are_listed_and_only_for_administrators() {
    let stack = Stack::start().await;
    let admin = stack.client();
    let (_, owner) = stack.create_user("owner", SCOPES).await;
    for (list, field, names) in [
        (HOSTS, "host", ["one.example", "two.example", "three.example"]),
        (CODES, "short_code", ["codeone", "codetwo", "codethree"]),
    ] {
        for name in names {
            let ban = accepted(&admin, Method::POST, list, &json!({field: name}), 201).await;
            assert_eq!((&ban[field], &ban["reason"]), (&json!(name), &json!(null)));
        }
        let mut found = Vec::new();
        let mut next = Some(format!("{list}?limit=2"));
        while let Some(path) = next {
            let page = admin.get(&path).send().await;
            found.extend(page.json().as_array().unwrap().clone());
            let link = page.header("link").map(str::to_owned);
            next =
                link.and_then(|link| Some(link.split_once('<')?.1.split_once('>')?.0.to_owned()));
        }
        let listed: Vec<&str> = found.iter().map(|ban| ban[field].as_str().unwrap()).collect();
        assert_eq!(listed, names);
        for method in [Method::GET, Method::HEAD] {
            assert_eq!(owner.request(method, list).send().await.status, 403);
        }
    }
    // Until its ban ends, no user gets a code, not even its former owner or an administrator.
    let link = owner
        .shorten(&json!({"original_url": "https://example.com/", "short_code": "printed"}))
        .await;
    assert_eq!(owner.delete(&format!("/api/v1/urls/{}", link["id"])).send().await.status, 204);
    let ban = json!({"short_code": "printed", "reason": "abuse"});
    let ban = accepted(&admin, Method::POST, CODES, &ban, 201).await;
    let body = json!({"original_url": "https://example.com/", "short_code": "printed"});
    for client in [&owner, &admin] {
        assert_eq!(client.post("/api/v1/urls", &body).send().await.problem(409)["code"], "taken");
    }
    assert_eq!(admin.delete(&format!("{CODES}/{}", ban["id"])).send().await.status, 204);
    owner.shorten(&body).await;
    // The code of a link that is deleted while it is taken down is banned with the reason.
    let link = owner
        .shorten(&json!({"original_url": "https://example.com/", "short_code": "gone-1"}))
        .await;
    let path = format!("/api/v1/urls/{}", link["id"]);
    accepted(&admin, Method::PUT, &format!("{path}/takedown"), &json!({"reason": "scam"}), 200)
        .await;
    assert_eq!(owner.delete(&path).send().await.status, 204);
    let bans = admin.get(CODES).send().await.json();
    let last = bans.as_array().unwrap().last().unwrap();
    assert_eq!((&last["short_code"], &last["reason"]), (&json!("gone-1"), &json!("scam")));
}
