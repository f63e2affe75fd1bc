//! Takedowns, banned hosts, and codes of links that are gone.

use std::time::Duration;

use linnet_system_tests::{Client, Stack, within};
use serde_json::{Value, json};

use super::support::{IMPORTER, URLS, accepted_job_id, builder, upload, wait_for_job_end};

const TARGET: &str = "https://evil.example/x";

async fn resolves_everywhere(stack: &Stack, code: &str, status: u16) {
    for shortener in 0..2 {
        within(Duration::from_secs(1), "the takedown or its end", || async {
            stack.resolve_at(shortener, code).await.0 == status
        })
        .await;
    }
}

async fn admin(stack: &Stack, args: &[&str]) {
    let (status, out, error) = stack.cli(&[&["admin"][..], args].concat()).await;
    assert_eq!(status, 0, "{args:?}: {out}{error}");
}

/// Imports one link, and waits for the end of the job. Returns the job.
async fn import(client: &Client, row: &str, on_conflict: &str) -> Value {
    let path = format!("{URLS}?on_conflict={on_conflict}");
    let csv = format!("short_code,original_url\n{row}\n");
    let id = accepted_job_id(&upload(client, &path, csv).send().await);
    wait_for_job_end(client, id).await
}

#[tokio::test]
async fn must_20_owner_cannot_revive_a_link_that_is_taken_down() {
    let stack = builder().shorteners(2).start().await;
    let (_, owner) = stack.create_user("owner", &IMPORTER).await;
    let link = owner.shorten(&json!({"original_url": TARGET, "short_code": "taken"})).await;
    let path = format!("/api/v1/urls/{}", link["id"]);
    resolves_everywhere(&stack, "taken", 302).await;
    admin(&stack, &["take-down", "taken"]).await;
    resolves_everywhere(&stack, "taken", 404).await;

    for patch in [
        json!({"is_active": true}),
        json!({"is_active": true, "original_url": "https://other.example/"}),
        json!({"max_clicks": 5, "is_active": true}),
        json!({"expires_at": "2099-01-01T00:00:00Z"}),
    ] {
        assert_eq!(owner.patch(&path, &patch).send().await.json()["is_active"], false, "{patch}");
        assert_eq!(owner.put(&path, &patch).send().await.json()["is_active"], false, "{patch}");
    }
    let bulk = json!({"ids": [link["id"]], "change": {"is_active": true}});
    assert_eq!(owner.patch(URLS, &bulk).send().await.status, 200);
    import(&owner, "taken,https://other.example/", "update").await;
    let reused = owner.shorten(&json!({"original_url": TARGET, "reuse": true})).await;
    assert_ne!(reused["id"], link["id"], "an inactive link is not reused");
    resolves_everywhere(&stack, "taken", 404).await;

    // After a deletion, no user can take the code.
    assert_eq!(owner.delete(&path).send().await.status, 204);
    for client in [&owner, &stack.client()] {
        let body = json!({"original_url": "https://other.example/", "short_code": "taken"});
        client.post("/api/v1/urls", &body).send().await.problem(409);
        let report = import(client, "taken,https://other.example/", "fail").await;
        assert_eq!(report["rows_written"], 0, "{report}");
    }
    resolves_everywhere(&stack, "taken", 404).await;
    admin(&stack, &["release-code", "taken"]).await;
    owner.shorten(&json!({"original_url": TARGET, "short_code": "taken"})).await;
    resolves_everywhere(&stack, "taken", 302).await;

    // An administrator ends a takedown.
    admin(&stack, &["take-down", "taken"]).await;
    resolves_everywhere(&stack, "taken", 404).await;
    admin(&stack, &["restore-link", "taken"]).await;
    resolves_everywhere(&stack, "taken", 302).await;
}

#[tokio::test]
async fn must_20_banned_hosts_and_codes_hold_wherever_links_are_written() {
    let stack = builder().shorteners(2).start().await;
    let client = stack.client();
    let code = |link: &Value| link["short_code"].as_str().unwrap().to_owned();
    let bad = client.shorten(&json!({"original_url": "https://www.evil.example:8443/a"})).await;
    let limited = json!({"original_url": TARGET, "max_clicks": 10});
    let limited = client.shorten(&limited).await;
    let good = client.shorten(&json!({"original_url": "https://notevil.example/"})).await;
    for link in [&bad, &limited, &good] {
        resolves_everywhere(&stack, &code(link), 302).await;
    }
    admin(&stack, &["ban-host", "EVIL.example."]).await;
    resolves_everywhere(&stack, &code(&bad), 404).await;
    resolves_everywhere(&stack, &code(&limited), 404).await;
    resolves_everywhere(&stack, &code(&good), 302).await;

    for target in
        [TARGET, "http://evil.example.", "https://a.b.EVIL.example/", "https://evil%2eexample"]
    {
        for body in [
            json!({"original_url": target}),
            json!({"original_url": target, "short_code": "custom"}),
            json!({"original_url": target, "reuse": true}),
        ] {
            let refused = client.post("/api/v1/urls", &body).send().await;
            refused.problem(422);
            assert_eq!(refused.problem_fields(), ["original_url"], "{body}");
        }
        let path = format!("/api/v1/urls/{}", good["id"]);
        client.patch(&path, &json!({"original_url": target})).send().await.problem(422);
        let report = import(&client, &format!("imported,{target}"), "update").await;
        assert_eq!((&report["rows_written"], &report["rows_failed"]), (&json!(0), &json!(1)));
    }
    resolves_everywhere(&stack, &code(&good), 302).await;

    admin(&stack, &["unban-host", "evil.example"]).await;
    resolves_everywhere(&stack, &code(&bad), 404).await;
    client.shorten(&json!({"original_url": TARGET})).await;

    admin(&stack, &["ban-code", "badword"]).await;
    let body = json!({"original_url": "https://good.example/", "short_code": "badword"});
    client.post("/api/v1/urls", &body).send().await.problem(409);
    let (status, _, error) = stack.cli(&["admin", "ban-host", "https://evil.example/"]).await;
    assert_ne!(status, 0, "{error}");
}

#[tokio::test]
async fn code_of_a_deleted_link_is_held_for_its_owner() {
    let stack = Stack::builder().start().await;
    let (_, owner) = stack.create_user("owner", &["urls:read", "urls:write"]).await;
    let (_, other) = stack.create_user("other", &["urls:read", "urls:write"]).await;
    let body = json!({"original_url": "https://example.com/", "short_code": "printed"});
    let link = owner.shorten(&body).await;
    let path = format!("/api/v1/urls/{}", link["id"]);
    assert_eq!(owner.delete(&path).send().await.status, 204);
    let taken = other.post("/api/v1/urls", &body).send().await;
    assert_eq!(taken.problem(409)["code"], "taken");
    owner.shorten(&body).await;
    assert_eq!(owner.resolve("printed").await.0, 302);
}

#[tokio::test]
async fn code_of_a_deleted_link_is_free_at_once_if_codes_are_not_held() {
    let stack = Stack::builder().env("LINNET__LINKS__HOLD_CODES_DAYS", 0).start().await;
    let (_, owner) = stack.create_user("owner", &["urls:read", "urls:write"]).await;
    let (_, other) = stack.create_user("other", &["urls:read", "urls:write"]).await;
    let body = json!({"original_url": "https://example.com/", "short_code": "printed"});
    let link = owner.shorten(&body).await;
    let path = format!("/api/v1/urls/{}", link["id"]);
    assert_eq!(owner.delete(&path).send().await.status, 204);
    other.shorten(&body).await;
}

#[tokio::test]
async fn must_20_link_has_the_state_that_its_owner_chose_after_a_takedown() {
    let stack = builder().start().await;
    let (_, owner) = stack.create_user("owner", &IMPORTER).await;
    let (on, off) = (json!({"is_active": true}), json!({"is_active": false}));
    let title = json!({"title": "New"});
    // The state before the takedown, the changes during it, and the state after it.
    for (before, changes, after) in [
        (true, vec![], true),
        (false, vec![], false),
        (true, vec![&off], false),
        (false, vec![&on], true),
        (true, vec![&off, &title], false),
        (true, vec![&off, &on], true),
        (false, vec![&on, &title, &off], false),
    ] {
        for way in ["patch", "bulk", "import"] {
            let body = json!({"original_url": TARGET, "is_active": before});
            let link = owner.shorten(&body).await;
            let (path, code) =
                (format!("/api/v1/urls/{}", link["id"]), link["short_code"].as_str());
            let takedown = format!("{path}/takedown");
            for reason in ["scam", "malware"] {
                let down = stack.client().put(&takedown, &json!({"reason": reason})).send().await;
                assert_eq!(down.json()["is_active"], false);
            }
            for change in &changes {
                let response = match way {
                    "patch" => owner.patch(&path, change).send().await,
                    "bulk" => {
                        let change = json!({"ids": [link["id"]], "change": change});
                        owner.patch(URLS, &change).send().await
                    }
                    _ => {
                        let mut row = (*change).clone();
                        row["short_code"] = json!(code);
                        row["original_url"] = json!(TARGET);
                        let path = format!("{URLS}?on_conflict=update");
                        let request = owner.post(&path, &json!([row])).header("prefer", "wait=30");
                        request.send().await
                    }
                };
                assert_eq!(response.status, 200, "{way} {change}: {}", response.text());
                assert_eq!(owner.get(&path).send().await.json()["is_active"], false);
            }
            let up = stack.client().delete(&takedown).send().await.json();
            assert_eq!(up["is_active"], after, "{way}: {before} {changes:?}");
            // A later takedown begins anew.
            owner.patch(&path, &on).send().await;
            stack.client().put(&takedown, &json!({"reason": "scam"})).send().await;
            assert_eq!(stack.client().delete(&takedown).send().await.json()["is_active"], true);
        }
    }
}
