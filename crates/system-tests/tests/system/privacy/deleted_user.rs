//! A deleted user's data in stored responses.

use linnet_system_tests::Stack;
use serde_json::json;

use super::{EMAIL, EMAIL_MARK, Places, names, places_of};

/// A part of the title and the target of a link.
const LINK_MARK: &str = "MarkedLinkOfUser";

#[tokio::test]
async fn must_31_data_of_a_deleted_user_is_in_no_table() {
    let stack = Stack::start().await;
    let admin = stack.client();
    let user = json!({"username": "MarkedName", "email": EMAIL});
    let create = || admin.post("/api/v1/users", &user).header("idempotency-key", "user").send();
    let created = create().await;
    assert_eq!(created.status, 201, "{}", created.text());
    let id = created.json()["id"].as_i64().unwrap();
    let key = json!({"name": "k", "scopes": ["urls:write"], "user_id": id});
    let key = admin.post("/api/v1/api-keys", &key).send().await.json();
    let own = admin.with_key(key["key"].as_str().unwrap());
    let target = format!("https://example.com/{LINK_MARK}");
    for (client, title) in [(&own, "own"), (&admin, "of the administrator")] {
        let title = format!("{LINK_MARK} {title}");
        let link = json!({"original_url": target, "title": title, "user_id": id});
        let link =
            client.post("/api/v1/urls", &link).header("idempotency-key", "link").send().await;
        assert_eq!(link.status, 201, "{}", link.text());
    }
    let of_user = async || places_of(&stack, &[EMAIL_MARK, "MarkedName"]).await;
    let of_links = async || places_of(&stack, &[LINK_MARK]).await;
    assert_eq!(of_user().await, names(&["table idempotency_keys", "table users"]));
    let stored = names(&["table events", "table idempotency_keys", "table urls"]);
    assert_eq!(of_links().await, stored);

    let path = format!("/api/v1/users/{id}");
    assert_eq!(admin.delete(&path).send().await.status, 204);
    assert_eq!(of_user().await, Places::new());
    assert_eq!(of_links().await, names(&["table events"]), "the history stays");

    let again = create().await;
    assert_eq!(again.status, 201, "{}", again.text());
    assert_eq!(again.header("idempotency-replayed"), None);
    assert_ne!(again.json()["id"].as_i64().unwrap(), id);
}
