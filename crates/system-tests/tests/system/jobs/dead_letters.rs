//! Failed attempts, dead letters and replay.

use std::{fs, path::PathBuf};

use linnet_system_tests::{Stack, client::Method, expected::metric, within};
use serde_json::json;

use super::support::{
    JOB_TIMEOUT, builder, count_links_created_once, follow_events, get_job, import, links_csv,
    row_counts, upload_files, wait_for_job, wait_for_job_end, wait_for_rows_read,
    wait_until_no_uploads,
};

async fn start_stack() -> Stack {
    builder().env("LINNET__JOBS__MAX_ATTEMPTS", 3).env("LINNET__JOBS__CHUNK_ROWS", 50).start().await
}

/// Moves the only upload away. Returns its original and its new path.
fn move_upload_away(stack: &Stack) -> (PathBuf, PathBuf) {
    let files = upload_files(stack);
    assert_eq!(files.len(), 1, "{files:?}");
    let (from, to) = (files[0].clone(), stack.folder().join("moved-upload"));
    fs::rename(&from, &to).unwrap();
    (from, to)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn job_that_fails_every_attempt_becomes_a_dead_letter_and_continues_when_replayed() {
    let mut stack = start_stack().await;
    let client = stack.client();
    let id = import(&client, links_csv("r", 10_000)).await;
    let follower = tokio::spawn(follow_events(client.clone(), stack.admin_key.clone(), id, 1_000));
    wait_for_rows_read(&client, id, 500).await;
    // A running worker would continue to read the open file.
    stack.workers[0].kill().await;
    let (original, moved) = move_upload_away(&stack);
    let before = get_job(&client, id).await["rows_read"].as_i64().unwrap();
    assert!((500..10_000).contains(&before), "{before}");
    stack.workers[0].start();
    let dead = wait_for_job_end(&client, id).await;
    assert_eq!((&dead["state"], &dead["is_dead"]), (&json!("failed"), &json!(true)), "{dead}");
    assert_eq!(
        (&dead["attempts"], row_counts(&dead)),
        (&json!(3), [before, before, 0, 0]),
        "{dead}"
    );
    assert_eq!(dead["error"]["code"], "internal", "{dead}");
    let folder = stack.folder().to_str().unwrap();
    assert!(!dead.to_string().contains(folder), "the response contains a path: {dead}");
    let received = follower.await.unwrap();
    received.assert_in_order();
    assert_eq!(received.end, dead);

    let list = client.get("/api/v1/jobs/dead").send().await.json();
    assert_eq!(list, json!([dead]));
    let other = client.get("/api/v1/jobs/dead?kind=import_users").send().await.json();
    assert_eq!(other, json!([]));
    // A dead letter cannot be cancelled, only replayed or discarded.
    let cancel = client.request(Method::POST, &format!("/api/v1/jobs/{id}/cancel")).send().await;
    assert_eq!(cancel.problem(409)["code"], "wrong_state");

    fs::rename(moved, original).unwrap();
    let replay = format!("/api/v1/jobs/{id}/replay");
    let replayed = client.request(Method::POST, &replay).send().await;
    assert_eq!(replayed.status, 202, "{}", replayed.text());
    assert_eq!(
        row_counts(&replayed.json()),
        [before, before, 0, 0],
        "the rows of the failed attempts"
    );
    assert_eq!(replayed.json()["error"], json!(null));
    let done = wait_for_job_end(&client, id).await;
    assert_eq!((&done["state"], row_counts(&done)), (&json!("succeeded"), [10_000, 10_000, 0, 0]));
    assert_eq!(done["is_dead"], false);
    assert_eq!(count_links_created_once(&mut stack.database().await, "r").await, 10_000);
    assert_eq!(client.get("/api/v1/jobs/dead").send().await.json(), json!([]));
    let again = client.request(Method::POST, &replay).send().await;
    assert_eq!(again.problem(409)["code"], "wrong_state");
    wait_until_no_uploads(&stack).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn failed_attempt_is_retried() {
    let mut stack = builder()
        .env("LINNET__JOBS__MAX_ATTEMPTS", 1_000)
        .env("LINNET__JOBS__RETRY_MS", 10)
        .start()
        .await;
    let client = stack.client();
    stack.workers[0].stop().await;
    let id = import(&client, links_csv("a", 10)).await;
    let (original, moved) = move_upload_away(&stack);
    stack.workers[0].start();
    let waiting =
        wait_for_job(&client, id, "to fail three times", |job| job["attempts"].as_i64() >= Some(3))
            .await;
    assert_eq!(waiting["is_dead"], false);
    assert_eq!(waiting["error"]["code"], "internal");
    fs::rename(moved, original).unwrap();
    let done = wait_for_job_end(&client, id).await;
    assert_eq!((&done["state"], row_counts(&done)), (&json!("succeeded"), [10, 10, 0, 0]));
    assert_eq!((&done["error"], &done["attempts"]), (&json!(null), &json!(0)), "{done}");
    // A worker counts an attempt after its end is recorded.
    let worker = &stack.workers[0];
    within(JOB_TIMEOUT, "three counted attempts", || async {
        worker.metrics().await.sum(metric::JOBS_FAILED_ATTEMPTS, &[]) >= 3.0
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn discarding_a_dead_letter_deletes_its_upload() {
    let mut stack = start_stack().await;
    let client = stack.client();
    stack.workers[0].stop().await;
    let id = import(&client, links_csv("d", 10)).await;
    let (original, moved) = move_upload_away(&stack);
    stack.workers[0].start();
    let dead = wait_for_job_end(&client, id).await;
    assert_eq!(dead["is_dead"], true, "{dead}");
    fs::rename(moved, original).unwrap();
    let path = format!("/api/v1/jobs/{id}");
    assert_eq!(client.delete(&path).send().await.status, 204);
    client.get(&path).send().await.problem(404);
    client.request(Method::POST, &format!("{path}/replay")).send().await.problem(404);
    assert_eq!(client.get("/api/v1/jobs/dead").send().await.json(), json!([]));
    assert!(upload_files(&stack).is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn job_that_kills_its_worker_every_time_becomes_a_dead_letter() {
    let mut stack = builder().env("LINNET__JOBS__MAX_ATTEMPTS", 3).start().await;
    let client = stack.client();
    let mut database = stack.database().await;
    super::support::lock_code(&mut database, "k000001").await;
    let id = import(&client, links_csv("k", 3)).await;
    for attempt in 1..=3 {
        wait_for_job(&client, id, &format!("attempt {attempt}"), |job| {
            job["state"] == "running" && job["attempts"] == attempt
        })
        .await;
        stack.workers[0].kill().await;
        stack.workers[0].start();
    }
    let dead = wait_for_job_end(&client, id).await;
    assert_eq!((&dead["is_dead"], &dead["error"]["code"]), (&json!(true), &json!("worker_died")));
    super::support::unlock_code(&mut database).await;
    assert_eq!(
        client.request(Method::POST, &format!("/api/v1/jobs/{id}/replay")).send().await.status,
        202
    );
    assert_eq!(row_counts(&wait_for_job_end(&client, id).await), [3, 3, 0, 0]);
}
