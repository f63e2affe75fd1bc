//! Which job runs when, and jobs that are called off.

use linnet_system_tests::{Client, client::Method, within};
use serde_json::json;

use super::support::{
    IMPORTER, SOON, URLS, builder, count, counts, ended, hold_code, import, job, let_go, links,
    made_once, no_upload_is_left, under_way, upload,
};

async fn cancel(client: &Client, id: i64) -> linnet_system_tests::Answer {
    client.request(Method::POST, &format!("/api/v1/jobs/{id}/cancel")).send().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_small_jobs_end_while_a_huge_one_goes_on() {
    let stack = builder()
        .env("LINNET__JOBS__CHUNK_ROWS", 1)
        .env("LINNET__JOBS__SMALL_BYTES", 10_000)
        .start()
        .await;
    let client = stack.client();
    let huge = import(&client, links("h", 100_000)).await;
    under_way(&client, huge, 1).await;
    let mut small = Vec::new();
    for n in 0..30 {
        small.push(import(&client, links(&format!("s{n}-"), 2)).await);
    }
    for id in small {
        assert_eq!(ended(&client, id).await["rows_written"], 2);
    }
    let halfway = under_way(&client, huge, 1).await;
    // It is not kept waiting by them, either.
    under_way(&client, huge, halfway["rows_read"].as_i64().unwrap() + 1).await;
    assert_eq!(cancel(&client, huge).await.status, 200);
    assert_eq!(made_once(&mut stack.database().await, "s").await, 60);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_users_jobs_wait_for_each_other_and_for_nobody_elses() {
    let stack = builder().workers(2).env("LINNET__JOBS__RUNNING_PER_USER", 1).start().await;
    let (_, ada) = stack.user("ada", &IMPORTER).await;
    let (_, bob) = stack.user("bob", &IMPORTER).await;
    let mut database = stack.database().await;
    hold_code(&mut database, "a000001").await;
    let held = import(&ada, links("a", 3)).await;
    super::support::once(&ada, held, "it runs", |job| job["state"] == "running").await;
    let mut behind = Vec::new();
    for n in 0..5 {
        behind.push(import(&ada, links(&format!("b{n}-"), 2)).await);
    }
    // The others' jobs end while it is held, and hers have had as many chances to begin.
    for n in 0..5 {
        let id = import(&bob, links(&format!("o{n}-"), 2)).await;
        assert_eq!(ended(&bob, id).await["rows_written"], 2);
    }
    for id in &behind {
        let waiting = job(&ada, *id).await;
        assert_eq!((&waiting["state"], &waiting["started_at"]), (&json!("queued"), &json!(null)));
    }
    let_go(&mut database).await;
    for id in behind {
        assert_eq!(ended(&ada, id).await["rows_written"], 2);
    }
    assert_eq!(ended(&ada, held).await["rows_written"], 3);
    let overlaps =
        "SELECT count(*) FROM jobs a JOIN jobs b ON a.user_id = b.user_id AND a.id < b.id
                     WHERE a.started_at < b.finished_at AND b.started_at < a.finished_at";
    assert_eq!(count(&mut database, overlaps).await, 0, "one after the other");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_has_only_so_many_jobs_waiting() {
    let mut stack = builder()
        .env("LINNET__JOBS__ACTIVE_PER_USER", 2)
        .env("LINNET__JOBS__ACTIVE", 3)
        .start()
        .await;
    stack.workers[0].stop().await;
    let (_, ada) = stack.user("ada", &IMPORTER).await;
    let (_, bob) = stack.user("bob", &IMPORTER).await;
    let mut waiting = vec![import(&ada, links("a", 1)).await, import(&ada, links("b", 1)).await];
    let refused = upload(&ada, URLS, links("c", 1)).send().await;
    assert_eq!(refused.problem(429)["code"], "too_many_jobs");
    assert!(refused.header("retry-after").is_some());
    waiting.push(import(&bob, links("d", 1)).await);
    upload(&bob, URLS, links("e", 1)).send().await.problem(429);
    stack.workers[0].start();
    for id in waiting {
        assert_eq!(ended(&stack.client(), id).await["rows_written"], 1);
    }
    let id = import(&ada, links("f", 1)).await;
    assert_eq!(ended(&ada, id).await["rows_written"], 1);
    no_upload_is_left(&stack).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_that_waits_is_cancelled_and_never_runs() {
    let mut stack = builder().start().await;
    let client = stack.client();
    stack.workers[0].stop().await;
    let id = import(&client, links("c", 10)).await;
    let cancelled = cancel(&client, id).await;
    assert_eq!((cancelled.status, &cancelled.json()["state"]), (200, &json!("cancelled")));
    assert_eq!(cancel(&client, id).await.problem(409)["code"], "wrong_state");
    stack.workers[0].start();
    // A later one has come to its end, so this one would have.
    let later = import(&client, links("l", 10)).await;
    assert_eq!(ended(&client, later).await["rows_written"], 10);
    assert_eq!(job(&client, id).await, cancelled.json());
    assert_eq!(made_once(&mut stack.database().await, "c").await, 0);
    no_upload_is_left(&stack).await;
    assert_eq!(cancel(&client, later).await.problem(409)["code"], "wrong_state");
    cancel(&client, 999_999).await.problem(404);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_that_runs_is_cancelled_and_keeps_what_it_wrote() {
    let stack = builder().env("LINNET__JOBS__CHUNK_ROWS", 10).start().await;
    let client = stack.client();
    let id = import(&client, links("r", 50_000)).await;
    under_way(&client, id, 100).await;
    let cancelled = cancel(&client, id).await;
    assert_eq!((cancelled.status, &cancelled.json()["state"]), (200, &json!("cancelled")));
    let written = cancelled.json()["rows_written"].as_i64().unwrap();
    assert!((100..50_000).contains(&written), "{written}");
    // The worker has let it go when its upload is gone.
    no_upload_is_left(&stack).await;
    assert_eq!(made_once(&mut stack.database().await, "r").await, written);
    assert_eq!(job(&client, id).await, cancelled.json());
    // The worker is free.
    let later = import(&client, links("l", 10)).await;
    assert_eq!(ended(&client, later).await["rows_written"], 10);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_that_runs_is_deleted() {
    let stack = builder().env("LINNET__JOBS__CHUNK_ROWS", 10).start().await;
    let client = stack.client();
    let id = import(&client, links("d", 50_000)).await;
    under_way(&client, id, 100).await;
    let path = format!("/api/v1/jobs/{id}");
    assert_eq!(client.delete(&path).send().await.status, 204);
    client.get(&path).send().await.problem(404);
    client.delete(&path).send().await.problem(404);
    no_upload_is_left(&stack).await;
    let later = import(&client, links("l", 10)).await;
    assert_eq!(counts(&ended(&client, later).await), [10, 10, 0, 0]);
    let mut database = stack.database().await;
    let written = made_once(&mut database, "d").await;
    let idle = "SELECT count(*) FROM jobs WHERE state IN ('queued', 'running')";
    within(SOON, "nothing runs", || async { count(&mut stack.database().await, idle).await == 0 })
        .await;
    assert_eq!(made_once(&mut database, "d").await, written, "none came after");
}
