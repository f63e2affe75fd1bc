//! Imports whose workers are killed or stopped.

use std::collections::HashSet;

use linnet_system_tests::{Stack, eventually, expected::log, expected::metric};
use rand::RngExt;
use sqlx::PgConnection;
use tokio::sync::Mutex;

use super::support::{
    JOB_TIMEOUT, builder, count_links_created_once, follow_events, import, invalid_rows, links_csv,
    row_counts, wait_for_job_end, wait_for_rows_read, wait_until_no_uploads,
};

const ROWS: usize = 100_000;
const KILLS: usize = 20;

/// A CSV file and the lines of its invalid rows, which have an invalid target or the code of another row.
fn csv_with_invalid_rows() -> (String, Vec<i64>) {
    let mut csv = "short_code,original_url\n".to_owned();
    let mut invalid = Vec::new();
    for n in 0..ROWS {
        let line = i64::try_from(n + 2).unwrap();
        match n % 1_000 {
            // The row has the code of a much earlier row.
            333 if n > 50_000 => {
                csv.push_str(&format!("k{:06},https://example.com/\n", n - 50_000));
                invalid.push(line);
            }
            // The row has the code of a row in the same chunk.
            334 => {
                csv.push_str(&format!("k{:06},https://example.com/\n", n - 2));
                invalid.push(line);
            }
            667 => {
                csv.push_str(&format!("k{n:06},javascript:alert({n})\n"));
                invalid.push(line);
            }
            _ => csv.push_str(&format!("k{n:06},https://example.com/{n}\n")),
        }
    }
    (csv, invalid)
}

/// The number of the worker that most recently started an attempt of a job.
fn last_worker_that_started_a_job(stack: &Stack) -> usize {
    let last_start = |number: usize| {
        let lines = stack.workers[number].log_lines();
        let started = lines.iter().rfind(|line| line["message"] == log::JOB_ATTEMPT_STARTED)?;
        Some((started["timestamp"].as_str().expect("the time").to_owned(), number))
    };
    let last = (0..stack.workers.len()).filter_map(last_start).max();
    last.expect("a worker that started a job").1
}

/// Waits until a worker that was not killed has read at least `goal` rows of a job. Returns the number of
/// rows and the worker's name.
async fn wait_for_progress(
    database: &Mutex<PgConnection>,
    job: i64,
    goal: i64,
    killed: &HashSet<String>,
) -> (i64, String) {
    eventually(JOB_TIMEOUT, "progress of a running worker", || async {
        let (rows_read, state, worker): (i64, String, Option<String>) =
            sqlx::query_as("SELECT rows_read, state, worker FROM jobs WHERE id = $1")
                .bind(job)
                .fetch_one(&mut *database.lock().await)
                .await
                .unwrap();
        assert_ne!(state, "succeeded", "the job ended before the last kill");
        // Ignores the lease of a killed worker.
        let worker = worker.filter(|worker| !killed.contains(worker))?;
        (rows_read >= goal).then_some((rows_read, worker))
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn import_writes_each_row_once_while_workers_are_killed_twenty_times() {
    let mut stack = builder()
        .workers(2)
        .env("LINNET__JOBS__CHUNK_ROWS", 500)
        .env("LINNET__JOBS__MAX_ATTEMPTS", 100)
        .start()
        .await;
    let client = stack.client();
    let (csv, invalid) = csv_with_invalid_rows();
    let id = import(&client, csv).await;
    let follower = tokio::spawn(follow_events(stack.client(), stack.admin_key.clone(), id, 7));
    let database = Mutex::new(stack.database().await);
    let mut killed = HashSet::new();
    let mut before = 0;
    for kill in 0..KILLS {
        // A random row in the next part of the file, and a random point within a chunk.
        let (part, wait) = {
            let mut random = rand::rng();
            (random.random_range(0..ROWS / KILLS), random.random_range(0..60))
        };
        let goal = i64::try_from(kill * ROWS / (KILLS + 1) + part / 2).unwrap();
        let (read, worker) = wait_for_progress(&database, id, goal.max(before + 1), &killed).await;
        assert!(read >= before, "{read} rows read, {before} before");
        before = read;
        killed.insert(worker);
        tokio::time::sleep(std::time::Duration::from_millis(wait)).await;
        let number = last_worker_that_started_a_job(&stack);
        stack.workers[number].kill().await;
        stack.workers[number].start();
    }
    let job = wait_for_job_end(&client, id).await;
    assert_eq!(job["state"], "succeeded", "{job}");
    let [all, failed] = [ROWS, invalid.len()].map(|count| i64::try_from(count).unwrap());
    assert_eq!(row_counts(&job), [all, all - failed, 0, failed]);
    let mut database = database.into_inner();
    assert_eq!(count_links_created_once(&mut database, "k").await, all - failed);
    let wrong: i64 = sqlx::query_scalar(
        "SELECT count(*) FROM urls WHERE starts_with(short_code, 'k')
            AND original_url <> 'https://example.com/' || substr(short_code, 2)::int",
    )
    .fetch_one(&mut database)
    .await
    .unwrap();
    assert_eq!(wrong, 0, "links with another row's target");
    let lines: Vec<i64> = invalid_rows(&client, id).await.into_iter().map(|row| row.0).collect();
    assert_eq!(lines, invalid, "invalid rows in the report");

    let received = follower.await.unwrap();
    received.assert_in_order();
    assert_eq!(received.lines, invalid, "over {} streams", received.streams);
    assert_eq!(received.end["rows_read"], all);
    assert!(received.streams > 10, "{}", received.streams);
    wait_until_no_uploads(&stack).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn job_resumes_where_its_killed_worker_stopped() {
    let mut stack = builder().env("LINNET__JOBS__CHUNK_ROWS", 50).start().await;
    let client = stack.client();
    let id = import(&client, links_csv("d", 10_000)).await;
    let before = wait_for_rows_read(&client, id, 500).await["rows_read"].as_i64().unwrap();
    stack.workers[0].kill().await;
    let left = super::support::get_job(&client, id).await["rows_read"].as_i64().unwrap();
    assert!((before..10_000).contains(&left), "{left} after {before}");
    stack.workers[0].start();
    let job = wait_for_job_end(&client, id).await;
    assert_eq!((&job["state"], row_counts(&job)), (&"succeeded".into(), [10_000, 10_000, 0, 0]));
    assert_eq!(count_links_created_once(&mut stack.database().await, "d").await, 10_000);
    // The restarted worker wrote only the remaining rows.
    let metrics = stack.workers[0].metrics().await;
    let rest = metrics.sum(metric::JOBS_ROWS, &[("outcome", "written")]);
    assert_eq!(rest, (10_000 - left) as f64);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stopping_worker_returns_its_job_to_the_queue_at_once() {
    // A lease longer than the test cannot expire.
    let mut stack = builder()
        .env("LINNET__JOBS__LEASE_MS", 600_000)
        .env("LINNET__JOBS__CHUNK_ROWS", 50)
        .start()
        .await;
    let client = stack.client();
    let id = import(&client, links_csv("s", 10_000)).await;
    wait_for_rows_read(&client, id, 500).await;
    assert!(stack.workers[0].stop().await.success());
    let left = super::support::get_job(&client, id).await;
    assert_eq!((&left["state"], &left["attempts"]), (&"queued".into(), &0.into()), "{left}");
    stack.workers[0].start();
    let job = wait_for_job_end(&client, id).await;
    assert_eq!((&job["state"], row_counts(&job)), (&"succeeded".into(), [10_000, 10_000, 0, 0]));
    assert_eq!(count_links_created_once(&mut stack.database().await, "s").await, 10_000);
    let metrics = stack.workers[0].metrics().await;
    let rest = metrics.sum(metric::JOBS_ROWS, &[("outcome", "written")]);
    assert_eq!(rest, (10_000 - left["rows_read"].as_i64().unwrap()) as f64);
}
