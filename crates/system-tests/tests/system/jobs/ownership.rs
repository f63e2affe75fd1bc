//! Jobs and imported rows are limited to the caller's own resources.

use linnet_system_tests::client::Method;
use serde_json::json;

use super::support::{
    IMPORTER, URLS, USERS, accepted_job_id, builder, import, invalid_rows, links_csv, query_count,
    upload, wait_for_job_end, wait_for_rows_read,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn must_16_jobs_of_another_user_are_not_found_and_not_changed() {
    let mut stack = builder().start().await;
    stack.workers[0].stop().await;
    let (_, ada) = stack.create_user("ada", &IMPORTER).await;
    let (_, bob) = stack.create_user("bob", &IMPORTER).await;
    let id = import(&ada, links_csv("a", 3)).await;
    let path = format!("/api/v1/jobs/{id}");
    for (method, suffix) in [
        (Method::GET, ""),
        (Method::GET, "/errors"),
        (Method::GET, "/errors?format=csv"),
        (Method::GET, "/events"),
        (Method::POST, "/cancel"),
        (Method::POST, "/replay"),
        (Method::DELETE, ""),
    ] {
        bob.request(method.clone(), &format!("{path}{suffix}")).send().await.problem(404);
        stack
            .client()
            .anonymous()
            .request(method, &format!("{path}{suffix}"))
            .send()
            .await
            .problem(401);
    }
    assert_eq!(bob.get("/api/v1/jobs").send().await.json(), json!([]));
    assert_eq!(ada.get("/api/v1/jobs").send().await.json()[0]["id"], id);
    assert_eq!(ada.get(&path).send().await.json()["state"], "queued", "the job is unchanged");
    // A key with only `urls:read` can neither upload nor cancel.
    let (_, reader) = stack.create_user("reader", &["urls:read"]).await;
    upload(&reader, URLS, links_csv("r", 1)).send().await.problem(403);
    reader.request(Method::POST, &format!("{path}/cancel")).send().await.problem(403);
    // `jobs:write` alone does not permit writing links.
    let (_, jobs_only) = stack.create_user("jobs-only", &["jobs:write"]).await;
    upload(&jobs_only, URLS, links_csv("h", 1)).send().await.problem(403);
    for user in [&ada, &jobs_only] {
        upload(user, USERS, "username,email\na,a@example.com\n").send().await.problem(403);
    }
    stack.client().anonymous().request(Method::POST, URLS).send().await.problem(401);
    stack.workers[0].start();
    assert_eq!(wait_for_job_end(&ada, id).await["rows_written"], 3);
    // Dead letters are visible to their owner only.
    sqlx::query("UPDATE jobs SET state = 'failed', dead_at = now() WHERE id = $1")
        .bind(id)
        .execute(&mut stack.database().await)
        .await
        .unwrap();
    assert_eq!(bob.get("/api/v1/jobs/dead").send().await.json(), json!([]));
    assert_eq!(ada.get("/api/v1/jobs/dead").send().await.json()[0]["id"], id);
    bob.request(Method::POST, &format!("{path}/replay")).send().await.problem(404);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn must_16_imported_rows_can_neither_name_another_user_nor_change_their_links() {
    let stack = builder().start().await;
    let (ada_id, ada) = stack.create_user("ada", &IMPORTER).await;
    let (bob_id, bob) = stack.create_user("bob", &IMPORTER).await;
    let link = json!({"original_url": "https://example.com/bobs", "short_code": "bobs"});
    let bobs = bob.shorten(&link).await;
    let csv = format!(
        "id,user_id,short_code,original_url\n\
         {},{ada_id},mine,https://example.com/1\n\
         ,{bob_id},for-bob,https://example.com/2\n\
         ,,bobs,https://example.com/3\n",
        bobs["id"]
    );
    for on_conflict in ["update", "skip", "fail"] {
        let path = format!("{URLS}?on_conflict={on_conflict}");
        let id = accepted_job_id(&upload(&ada, &path, &csv).send().await);
        let job = wait_for_job_end(&ada, id).await;
        assert_eq!(job["state"], "succeeded", "{job}");
        let bad = invalid_rows(&ada, id).await;
        assert!(bad.contains(&(3, "user_id".into(), "forbidden".into())), "{bad:?}");
        let shown = bob.get(&format!("/api/v1/urls/{}", bobs["id"])).send().await.json();
        assert_eq!(shown, bobs, "{on_conflict}");
    }
    let mine = ada.get("/api/v1/urls").send().await.json();
    assert_eq!(mine.as_array().unwrap().len(), 1, "{mine}");
    assert_eq!(mine[0]["short_code"], "mine");
    assert_ne!(mine[0]["id"], bobs["id"], "the id from the row");
    assert_eq!(bob.get("/api/v1/urls").send().await.json().as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn deleting_a_user_cancels_its_running_import_first() {
    let stack = builder().start().await;
    let (id, owner) = stack.create_user("importer", &IMPORTER).await;
    let job = import(&owner, links_csv("gone", 60_000)).await;
    wait_for_rows_read(&owner, job, 1).await;
    let deleted = stack.client().delete(&format!("/api/v1/users/{id}")).send().await;
    assert_eq!(deleted.status, 204, "{}", deleted.text());
    let mut database = stack.database().await;
    assert_eq!(query_count(&mut database, "SELECT count(*) FROM urls").await, 0);
    assert_eq!(query_count(&mut database, "SELECT count(*) FROM jobs").await, 0);
}
