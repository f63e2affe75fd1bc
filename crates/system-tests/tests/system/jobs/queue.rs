//! Scheduling, limits, cancellation and deletion of jobs.

use linnet_system_tests::{Client, client::Method, within};
use serde_json::json;

use super::support::{
    IMPORTER, JOB_TIMEOUT, URLS, builder, count_links_created_once, get_job, import, links_csv,
    lock_code, query_count, row_counts, unlock_code, upload, wait_for_job_end, wait_for_rows_read,
    wait_until_no_uploads,
};

async fn cancel(client: &Client, id: i64) -> linnet_system_tests::Response {
    client.request(Method::POST, &format!("/api/v1/jobs/{id}/cancel")).send().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn small_jobs_finish_while_a_huge_one_runs() {
    let stack = builder()
        .env("LINNET__JOBS__CHUNK_ROWS", 1)
        .env("LINNET__JOBS__SMALL_BYTES", 10_000)
        .start()
        .await;
    let client = stack.client();
    let huge = import(&client, links_csv("h", 100_000)).await;
    wait_for_rows_read(&client, huge, 1).await;
    let mut small = Vec::new();
    for n in 0..30 {
        small.push(import(&client, links_csv(&format!("s{n}-"), 2)).await);
    }
    for id in small {
        assert_eq!(wait_for_job_end(&client, id).await["rows_written"], 2);
    }
    let halfway = wait_for_rows_read(&client, huge, 1).await;
    // Small jobs do not block the huge job either.
    wait_for_rows_read(&client, huge, halfway["rows_read"].as_i64().unwrap() + 1).await;
    assert_eq!(cancel(&client, huge).await.status, 200);
    assert_eq!(count_links_created_once(&mut stack.database().await, "s").await, 60);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn jobs_of_one_user_run_one_at_a_time_without_delaying_others() {
    let stack = builder().workers(2).env("LINNET__JOBS__RUNNING_PER_USER", 1).start().await;
    let (_, ada) = stack.create_user("ada", &IMPORTER).await;
    let (_, bob) = stack.create_user("bob", &IMPORTER).await;
    let mut database = stack.database().await;
    lock_code(&mut database, "a000001").await;
    let held = import(&ada, links_csv("a", 3)).await;
    super::support::wait_for_job(&ada, held, "to run", |job| job["state"] == "running").await;
    let mut behind = Vec::new();
    for n in 0..5 {
        behind.push(import(&ada, links_csv(&format!("b{n}-"), 2)).await);
    }
    // Bob's jobs end while Ada's is blocked, so her other jobs could have begun too.
    for n in 0..5 {
        let id = import(&bob, links_csv(&format!("o{n}-"), 2)).await;
        assert_eq!(wait_for_job_end(&bob, id).await["rows_written"], 2);
    }
    for id in &behind {
        let waiting = get_job(&ada, *id).await;
        assert_eq!((&waiting["state"], &waiting["started_at"]), (&json!("queued"), &json!(null)));
    }
    unlock_code(&mut database).await;
    for id in behind {
        assert_eq!(wait_for_job_end(&ada, id).await["rows_written"], 2);
    }
    assert_eq!(wait_for_job_end(&ada, held).await["rows_written"], 3);
    let overlaps =
        "SELECT count(*) FROM jobs a JOIN jobs b ON a.user_id = b.user_id AND a.id < b.id
                     WHERE a.started_at < b.finished_at AND b.started_at < a.finished_at";
    assert_eq!(query_count(&mut database, overlaps).await, 0, "overlapping jobs of one user");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn active_jobs_are_limited_per_user_and_in_total() {
    let mut stack = builder()
        .env("LINNET__JOBS__ACTIVE_PER_USER", 2)
        .env("LINNET__JOBS__ACTIVE", 3)
        .start()
        .await;
    stack.workers[0].stop().await;
    let (_, ada) = stack.create_user("ada", &IMPORTER).await;
    let (_, bob) = stack.create_user("bob", &IMPORTER).await;
    let mut waiting =
        vec![import(&ada, links_csv("a", 1)).await, import(&ada, links_csv("b", 1)).await];
    let rejected = upload(&ada, URLS, links_csv("c", 1)).send().await;
    assert_eq!(rejected.problem(429)["code"], "too_many_jobs");
    assert!(rejected.header("retry-after").is_some());
    waiting.push(import(&bob, links_csv("d", 1)).await);
    upload(&bob, URLS, links_csv("e", 1)).send().await.problem(429);
    stack.workers[0].start();
    for id in waiting {
        assert_eq!(wait_for_job_end(&stack.client(), id).await["rows_written"], 1);
    }
    let id = import(&ada, links_csv("f", 1)).await;
    assert_eq!(wait_for_job_end(&ada, id).await["rows_written"], 1);
    wait_until_no_uploads(&stack).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cancelled_queued_job_never_runs() {
    let mut stack = builder().start().await;
    let client = stack.client();
    stack.workers[0].stop().await;
    let id = import(&client, links_csv("c", 10)).await;
    let cancelled = cancel(&client, id).await;
    assert_eq!((cancelled.status, &cancelled.json()["state"]), (200, &json!("cancelled")));
    assert_eq!(cancel(&client, id).await.problem(409)["code"], "wrong_state");
    stack.workers[0].start();
    // The worker runs a later job, so it would have run the cancelled job before.
    let later = import(&client, links_csv("l", 10)).await;
    assert_eq!(wait_for_job_end(&client, later).await["rows_written"], 10);
    assert_eq!(get_job(&client, id).await, cancelled.json());
    assert_eq!(count_links_created_once(&mut stack.database().await, "c").await, 0);
    wait_until_no_uploads(&stack).await;
    assert_eq!(cancel(&client, later).await.problem(409)["code"], "wrong_state");
    cancel(&client, 999_999).await.problem(404);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cancelled_running_job_keeps_the_rows_that_it_wrote() {
    let stack = builder().env("LINNET__JOBS__CHUNK_ROWS", 10).start().await;
    let client = stack.client();
    let id = import(&client, links_csv("r", 50_000)).await;
    wait_for_rows_read(&client, id, 100).await;
    let cancelled = cancel(&client, id).await;
    assert_eq!((cancelled.status, &cancelled.json()["state"]), (200, &json!("cancelled")));
    let written = cancelled.json()["rows_written"].as_i64().unwrap();
    assert!((100..50_000).contains(&written), "{written}");
    // The worker deletes the upload after it has stopped the job.
    wait_until_no_uploads(&stack).await;
    assert_eq!(count_links_created_once(&mut stack.database().await, "r").await, written);
    assert_eq!(get_job(&client, id).await, cancelled.json());
    // The worker continues with other jobs.
    let later = import(&client, links_csv("l", 10)).await;
    assert_eq!(wait_for_job_end(&client, later).await["rows_written"], 10);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn running_job_can_be_deleted() {
    let stack = builder().env("LINNET__JOBS__CHUNK_ROWS", 10).start().await;
    let client = stack.client();
    let id = import(&client, links_csv("d", 50_000)).await;
    wait_for_rows_read(&client, id, 100).await;
    let path = format!("/api/v1/jobs/{id}");
    assert_eq!(client.delete(&path).send().await.status, 204);
    client.get(&path).send().await.problem(404);
    client.delete(&path).send().await.problem(404);
    wait_until_no_uploads(&stack).await;
    let later = import(&client, links_csv("l", 10)).await;
    assert_eq!(row_counts(&wait_for_job_end(&client, later).await), [10, 10, 0, 0]);
    let mut database = stack.database().await;
    let written = count_links_created_once(&mut database, "d").await;
    let idle = "SELECT count(*) FROM jobs WHERE state IN ('queued', 'running')";
    within(JOB_TIMEOUT, "no queued or running job", || async {
        query_count(&mut stack.database().await, idle).await == 0
    })
    .await;
    assert_eq!(
        count_links_created_once(&mut database, "d").await,
        written,
        "links written after the deletion"
    );
}
