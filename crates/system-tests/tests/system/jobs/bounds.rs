//! Bounds of a user's jobs in a process: memory, slots, and the time for which a key's rights last.

use linnet_system_tests::{client::Method, within};
use serde_json::json;
use sqlx::Connection as _;

use super::support::{
    IMPORTER, JOB_TIMEOUT, URLS, accepted_job_id, builder, get_job, import, links_csv, upload,
    wait_for_job_end,
};

/// Bytes of a page of bad rows, with the rows' lines and errors.
const PAGE_BYTES: usize = 300 * 1024;
const ROWS: usize = 100;

/// Rows that are bad, each with as many cells as a row may have.
fn wide_csv() -> String {
    let names: Vec<String> = (1..1_000).map(|n| format!("c{n}")).collect();
    let row = format!("no{}\n", ",1234".repeat(999));
    format!("original_url,{}\n{}", names.join(","), row.repeat(ROWS))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn must_25_must_26_bad_rows_of_many_cells_are_read_in_bounded_pages_by_a_share() {
    let stack = builder().start().await;
    let (_, one) = stack.create_user("one", &IMPORTER).await;
    let (_, two) = stack.create_user("two", &IMPORTER).await;
    let id = import(&one, wide_csv()).await;
    assert_eq!(wait_for_job_end(&one, id).await["rows_failed"], ROWS);
    let errors = format!("/api/v1/jobs/{id}/errors");
    let mut next = Some(format!("{errors}?limit=200"));
    let mut lines = Vec::new();
    while let Some(path) = next {
        let page = one.get(&path).send().await;
        assert_eq!(page.status, 200, "{}", page.text());
        assert!(page.body.len() <= PAGE_BYTES, "{}", page.body.len());
        for row in page.json().as_array().unwrap() {
            assert_eq!(row["cells"].as_array().unwrap().len(), 1_000);
            lines.push(row["line"].as_u64().unwrap());
        }
        let link = page.header("link").map(|link| link.split_once('<').unwrap().1);
        next = link.map(|link| link.split_once('>').unwrap().0.to_owned());
    }
    assert_eq!(lines, (2..).take(ROWS).collect::<Vec<u64>>());

    // As a file, it waits for the lock and holds the user's share.
    let mut database = stack.database().await;
    let mut lock = database.begin().await.unwrap();
    let statement = "LOCK TABLE job_row_errors IN ACCESS EXCLUSIVE MODE";
    sqlx::query(statement).execute(&mut *lock).await.unwrap();
    let file = format!("{errors}?format=csv");
    let first = tokio::spawn(one.get(&file).send());
    let held = || async {
        let metrics = stack.shortener_metrics(0).await;
        metrics.sum("linnet_slots_held", &[("kind", "exports")])
    };
    within(JOB_TIMEOUT, "the file to begin", || async { held().await >= 1.0 }).await;
    let second = one.get(&file).send().await;
    assert_eq!(second.problem(429)["code"], "too_many_concurrent");
    assert_eq!(one.request(Method::HEAD, &file).send().await.status, 200, "HEAD has no file");
    assert_eq!(two.get("/api/v1/urls/export").send().await.status, 200);
    lock.rollback().await.unwrap();
    let whole = first.await.unwrap();
    assert_eq!(whole.text().lines().count(), ROWS + 1);
    within(JOB_TIMEOUT, "the slot to be given back", || async { held().await == 0.0 }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn must_26_waiting_for_a_job_holds_no_upload() {
    let mut stack = builder()
        .env("LINNET__JOBS__UPLOADS", 1)
        .env("LINNET__JOBS__UPLOADS_PER_USER", 1)
        .start()
        .await;
    stack.workers[0].stop().await;
    let client = stack.client();
    let waiting = upload(&client, URLS, links_csv("w", 1)).header("prefer", "wait=45");
    let waiting = tokio::spawn(waiting.header("idempotency-key", "one").send());
    within(JOB_TIMEOUT, "the job of the first upload", || async {
        client.get("/api/v1/jobs").send().await.json()[0]["state"] == "queued"
    })
    .await;
    assert!(!waiting.is_finished());
    accepted_job_id(&upload(&client, URLS, links_csv("v", 1)).send().await);
    stack.workers[0].start();
    assert_eq!(waiting.await.unwrap().header("preference-applied"), Some("wait=45"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn must_27_job_is_cancelled_when_its_key_is_revoked_or_expires() {
    let mut stack = builder().start().await;
    let scopes = ["urls:read", "urls:write", "users:read", "users:write", "jobs:write"];
    let (_, user) = stack.create_user("one", &scopes).await;
    stack.workers[0].stop().await;
    let mut jobs = Vec::new();
    for _ in 0..2 {
        let body = json!({"name": "import", "scopes": IMPORTER});
        let key = user.post("/api/v1/api-keys", &body).send().await;
        assert_eq!(key.status, 201, "{}", key.text());
        let key = key.json();
        let client = user.with_key(key["key"].as_str().unwrap());
        let id = import(&client, links_csv("k", 1)).await;
        jobs.push((id, key["id"].as_str().unwrap().to_owned()));
    }
    let own = import(&user, links_csv("own", 1)).await;
    let cancelled = (json!("cancelled"), json!("key_ended"));
    let [(revoked, revoked_key), (expired, expired_key)] = &jobs[..] else { panic!("{jobs:?}") };
    let deleted = user.delete(&format!("/api/v1/api-keys/{revoked_key}")).send().await;
    assert_eq!(deleted.status, 204, "{}", deleted.text());
    let job = get_job(&user, *revoked).await;
    assert_eq!((job["state"].clone(), job["error"]["code"].clone()), cancelled);
    sqlx::query("UPDATE api_keys SET expires_at = now() WHERE id = $1")
        .bind(expired_key)
        .execute(&mut stack.database().await)
        .await
        .unwrap();
    stack.workers[0].start();
    let job = wait_for_job_end(&user, *expired).await;
    assert_eq!((job["state"].clone(), job["error"]["code"].clone()), cancelled);
    assert_eq!(job["rows_written"], 0);
    assert_eq!(wait_for_job_end(&user, own).await["state"], "succeeded");
}
