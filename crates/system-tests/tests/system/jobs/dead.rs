//! Attempts that fail, and the dead-letter queue.

use std::{fs, path::PathBuf};

use linnet_system_tests::{Stack, client::Method};
use serde_json::json;

use super::support::{
    builder, counts, ended, follow, import, job, links, made_once, no_upload_is_left, once,
    under_way, uploads,
};

async fn stack() -> Stack {
    builder().env("LINNET__JOBS__MAX_ATTEMPTS", 3).env("LINNET__JOBS__CHUNK_ROWS", 50).start().await
}

/// Takes the only upload away, to a place where nobody looks.
fn take_away(stack: &Stack) -> (PathBuf, PathBuf) {
    let files = uploads(stack);
    assert_eq!(files.len(), 1, "{files:?}");
    let (from, to) = (files[0].clone(), stack.folder().join("taken-away"));
    fs::rename(&from, &to).unwrap();
    (from, to)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_that_fails_each_time_is_a_dead_letter_and_goes_on_when_it_is_replayed() {
    let mut stack = stack().await;
    let client = stack.client();
    let id = import(&client, links("r", 10_000)).await;
    let watcher = tokio::spawn(follow(client.clone(), stack.admin_key.clone(), id, 1_000));
    under_way(&client, id, 500).await;
    // A worker that has the file open would go on reading it.
    stack.workers[0].kill().await;
    let (there, away) = take_away(&stack);
    let before = job(&client, id).await["rows_read"].as_i64().unwrap();
    assert!((500..10_000).contains(&before), "{before}");
    stack.workers[0].start();
    let dead = ended(&client, id).await;
    assert_eq!((&dead["state"], &dead["is_dead"]), (&json!("failed"), &json!(true)), "{dead}");
    assert_eq!((&dead["attempts"], counts(&dead)), (&json!(3), [before, before, 0, 0]), "{dead}");
    assert_eq!(dead["error"]["code"], "internal", "{dead}");
    let folder = stack.folder().to_str().unwrap();
    assert!(!dead.to_string().contains(folder), "paths are for the log: {dead}");
    let told = watcher.await.unwrap();
    told.is_in_order();
    assert_eq!(told.end, dead);

    let list = client.get("/api/v1/jobs/dead").send().await.json();
    assert_eq!(list, json!([dead]));
    let other = client.get("/api/v1/jobs/dead?kind=import_users").send().await.json();
    assert_eq!(other, json!([]));
    // It is in a state of its own: nothing else takes it up.
    let cancel = client.request(Method::POST, &format!("/api/v1/jobs/{id}/cancel")).send().await;
    assert_eq!(cancel.problem(409)["code"], "wrong_state");

    fs::rename(away, there).unwrap();
    let replay = format!("/api/v1/jobs/{id}/replay");
    let replayed = client.request(Method::POST, &replay).send().await;
    assert_eq!(replayed.status, 202, "{}", replayed.text());
    assert_eq!(counts(&replayed.json()), [before, before, 0, 0], "where it had come to");
    assert_eq!(replayed.json()["error"], json!(null));
    let done = ended(&client, id).await;
    assert_eq!((&done["state"], counts(&done)), (&json!("succeeded"), [10_000, 10_000, 0, 0]));
    assert_eq!(done["is_dead"], false);
    assert_eq!(made_once(&mut stack.database().await, "r").await, 10_000);
    assert_eq!(client.get("/api/v1/jobs/dead").send().await.json(), json!([]));
    let again = client.request(Method::POST, &replay).send().await;
    assert_eq!(again.problem(409)["code"], "wrong_state");
    no_upload_is_left(&stack).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_attempt_that_fails_is_followed_by_another() {
    let mut stack = builder()
        .env("LINNET__JOBS__MAX_ATTEMPTS", 1_000)
        .env("LINNET__JOBS__RETRY_MS", 10)
        .start()
        .await;
    let client = stack.client();
    stack.workers[0].stop().await;
    let id = import(&client, links("a", 10)).await;
    let (there, away) = take_away(&stack);
    stack.workers[0].start();
    let waiting = once(&client, id, "it fails", |job| job["attempts"].as_i64() >= Some(3)).await;
    assert_eq!(waiting["is_dead"], false);
    assert_eq!(waiting["error"]["code"], "internal");
    fs::rename(away, there).unwrap();
    let done = ended(&client, id).await;
    assert_eq!((&done["state"], counts(&done)), (&json!("succeeded"), [10, 10, 0, 0]));
    assert_eq!((&done["error"], &done["attempts"]), (&json!(null), &json!(0)), "{done}");
    assert!(stack.workers[0].metrics().await.sum("linnet_jobs_failed_attempts", &[]) >= 3.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_letter_is_discarded_with_its_upload() {
    let mut stack = stack().await;
    let client = stack.client();
    stack.workers[0].stop().await;
    let id = import(&client, links("d", 10)).await;
    let (there, away) = take_away(&stack);
    stack.workers[0].start();
    let dead = ended(&client, id).await;
    assert_eq!(dead["is_dead"], true, "{dead}");
    fs::rename(away, there).unwrap();
    let path = format!("/api/v1/jobs/{id}");
    assert_eq!(client.delete(&path).send().await.status, 204);
    client.get(&path).send().await.problem(404);
    client.request(Method::POST, &format!("{path}/replay")).send().await.problem(404);
    assert_eq!(client.get("/api/v1/jobs/dead").send().await.json(), json!([]));
    assert!(uploads(&stack).is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn workers_that_die_of_a_job_each_time_make_it_a_dead_letter() {
    let mut stack = builder().env("LINNET__JOBS__MAX_ATTEMPTS", 3).start().await;
    let client = stack.client();
    let mut database = stack.database().await;
    super::support::hold_code(&mut database, "k000001").await;
    let id = import(&client, links("k", 3)).await;
    for attempt in 1..=3 {
        once(&client, id, "an attempt", |job| {
            job["state"] == "running" && job["attempts"] == attempt
        })
        .await;
        stack.workers[0].kill().await;
        stack.workers[0].start();
    }
    let dead = ended(&client, id).await;
    assert_eq!((&dead["is_dead"], &dead["error"]["code"]), (&json!(true), &json!("worker_died")));
    super::support::let_go(&mut database).await;
    assert_eq!(
        client.request(Method::POST, &format!("/api/v1/jobs/{id}/replay")).send().await.status,
        202
    );
    assert_eq!(counts(&ended(&client, id).await), [3, 3, 0, 0]);
}
