//! Maintenance tasks, run by workers and by `admin run-task`.

use std::{collections::BTreeMap, time::Duration};

use linnet_system_tests::{
    Process, Stack,
    expected::{MAINTENANCE_SESSION, message, metric},
    within,
};
use linnet_worker::maintenance::TASKS;
use serde_json::json;
use sqlx::{Connection, PgConnection};
use tokio::sync::Mutex;

/// Longest wait for a task that is due.
const TASK_TIMEOUT: Duration = Duration::from_secs(30);
/// Time within which every process serves a change.
const BOUND: Duration = Duration::from_secs(1);

async fn execute(database: &mut PgConnection, statement: &'static str) {
    sqlx::raw_sql(statement).execute(database).await.unwrap();
}

/// Waits until every worker has recorded a success of each task, so that none is due.
pub(super) async fn wait_until_no_task_is_due(stack: &Stack) {
    within(TASK_TIMEOUT, "a success of each task in every worker", || async {
        for worker in &stack.workers {
            let metrics = worker.metrics().await;
            for task in &TASKS {
                let name = metric::MAINTENANCE_LAST_SUCCESS_TIMESTAMP_SECONDS;
                if metrics.sum(name, &[("task", task.name)]) == 0.0 {
                    return false;
                }
            }
        }
        true
    })
    .await;
}

/// The number of successful runs of each task by all workers.
pub(super) async fn successful_runs(stack: &Stack) -> BTreeMap<&'static str, f64> {
    let mut sums: BTreeMap<&str, f64> = TASKS.iter().map(|task| (task.name, 0.0)).collect();
    for worker in &stack.workers {
        let metrics = worker.metrics().await;
        for (task, sum) in &mut sums {
            *sum +=
                metrics.sum(metric::MAINTENANCE_RUNS, &[("task", task), ("outcome", "succeeded")]);
        }
        assert_eq!(
            metrics.sum(metric::MAINTENANCE_RUNS, &[]),
            metrics.sum(metric::MAINTENANCE_DURATION_SECONDS_COUNT, &[]),
            "runs and measured durations"
        );
    }
    sums
}

/// The time at which each task started last.
async fn start_times(stack: &Stack) -> Vec<(String, chrono::DateTime<chrono::Utc>)> {
    sqlx::query_as("SELECT task, started_at FROM maintenance_runs ORDER BY task")
        .fetch_all(&mut stack.database().await)
        .await
        .unwrap()
}

/// Stops the workers and makes a task due, without earlier failures.
async fn make_due(stack: &mut Stack, task: &str) {
    for worker in &mut stack.workers {
        assert!(worker.stop().await.success());
    }
    sqlx::query(
        "UPDATE maintenance_runs SET succeeded_at = succeeded_at - interval '1 hour', failures = 0
          WHERE task = $1",
    )
    .bind(task)
    .execute(&mut stack.database().await)
    .await
    .unwrap();
}

/// Waits until a worker runs a task.
async fn wait_until_running(stack: &Stack, task: &str) {
    let database = Mutex::new(stack.database().await);
    within(TASK_TIMEOUT, &format!("{task} to run"), || async {
        sqlx::query_scalar::<_, bool>(
            "SELECT EXISTS (SELECT FROM maintenance_runs WHERE task = $1 AND finished_at IS NULL)",
        )
        .bind(task)
        .fetch_one(&mut *database.lock().await)
        .await
        .unwrap()
    })
    .await;
}

/// The number of advisory locks that running tasks hold.
async fn count_task_locks(database: &mut PgConnection) -> i64 {
    sqlx::query_scalar(
        "SELECT count(*) FROM pg_locks JOIN pg_stat_activity USING (pid)
          WHERE locktype = 'advisory' AND datname = current_database()
            AND application_name = $1",
    )
    .bind(MAINTENANCE_SESSION)
    .fetch_one(database)
    .await
    .unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_task_runs_once_per_interval_in_one_of_two_workers() {
    let mut stack = Stack::builder().workers(2).start().await;
    wait_until_no_task_is_due(&stack).await;
    let once: BTreeMap<_, _> = TASKS.iter().map(|task| (task.name, 1.0)).collect();
    assert_eq!(successful_runs(&stack).await, once);

    make_due(&mut stack, "click-batches").await;
    let before = start_times(&stack).await;
    for worker in &mut stack.workers {
        worker.start();
    }
    stack.wait_until_ready().await;
    within(TASK_TIMEOUT, "a run of the task that is due", || async {
        successful_runs(&stack).await["click-batches"] > 0.0
    })
    .await;
    wait_until_no_task_is_due(&stack).await;
    let only: BTreeMap<_, _> = TASKS
        .iter()
        .map(|task| (task.name, if task.name == "click-batches" { 1.0 } else { 0.0 }))
        .collect();
    assert_eq!(successful_runs(&stack).await, only);
    for ((task, before), (_, after)) in before.iter().zip(&start_times(&stack).await) {
        assert_eq!(after > before, task == "click-batches", "{task}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn task_of_a_killed_worker_is_run_again() {
    let mut stack = Stack::builder().workers(1).start().await;
    wait_until_no_task_is_due(&stack).await;
    make_due(&mut stack, "idempotency-keys").await;
    let mut blocker = stack.database().await;
    let mut lock = blocker.begin().await.unwrap();
    execute(&mut lock, "LOCK TABLE idempotency_keys").await;
    stack.workers[0].start();
    wait_until_running(&stack, "idempotency-keys").await;
    let database = Mutex::new(stack.database().await);
    assert_eq!(count_task_locks(&mut *database.lock().await).await, 1);
    let (code, _, error) =
        stack.cli(&["admin", "run-task", "idempotency-keys", "--wait", "1"]).await;
    assert_eq!(code, 1, "{error}");
    assert!(error.contains(message::TASK_RUNS_ELSEWHERE), "{error}");

    stack.workers[0].kill().await;
    within(Duration::from_secs(10), "the killed worker's lock to be released", || async {
        count_task_locks(&mut *database.lock().await).await == 0
    })
    .await;
    lock.rollback().await.unwrap();
    stack.workers[0].start();
    stack.wait_until_ready().await;
    within(TASK_TIMEOUT, "a successful run", || async {
        successful_runs(&stack).await["idempotency-keys"] == 1.0
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stopping_worker_aborts_its_run_without_a_failure() {
    let mut stack = Stack::builder().workers(1).start().await;
    wait_until_no_task_is_due(&stack).await;
    make_due(&mut stack, "idempotency-keys").await;
    let mut blocker = stack.database().await;
    let mut lock = blocker.begin().await.unwrap();
    execute(&mut lock, "LOCK TABLE idempotency_keys").await;
    stack.workers[0].start();
    wait_until_running(&stack, "idempotency-keys").await;
    let end = stack.workers[0].stop().await;
    assert!(end.success(), "{end}");
    let mut database = stack.database().await;
    let run: (String, i32) = sqlx::query_as(
        "SELECT outcome, failures FROM maintenance_runs WHERE task = 'idempotency-keys'",
    )
    .fetch_one(&mut database)
    .await
    .unwrap();
    assert_eq!(run, ("stopped".to_owned(), 0));
    lock.rollback().await.unwrap();
    let (code, out, error) = stack.cli(&["admin", "run-task", "idempotency-keys"]).await;
    assert_eq!((code, out.as_str()), (0, message::IDEMPOTENCY_KEYS_0_DELETED), "{error}");
}

/// The number of warnings about the task `idempotency-keys`.
fn count_warnings(worker: &Process) -> usize {
    let is_warning = |line: &&serde_json::Value| {
        line["level"] == "WARN" && line.to_string().contains("click-batches")
    };
    worker.log_lines().iter().filter(is_warning).count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn failed_task_is_retried_and_blocks_no_other() {
    let mut stack = Stack::builder().workers(1).start().await;
    wait_until_no_task_is_due(&stack).await;
    for worker in &mut stack.workers {
        assert!(worker.stop().await.success());
    }
    let mut database = stack.database().await;
    // No other task reads this table.
    execute(
        &mut database,
        "DELETE FROM maintenance_runs; ALTER TABLE click_batches RENAME TO elsewhere",
    )
    .await;
    let before = count_warnings(&stack.workers[0]);
    stack.workers[0].start();
    stack.wait_until_ready().await;
    let failures = [("task", "click-batches"), ("outcome", "failed")];
    within(TASK_TIMEOUT, "two failed runs", || async {
        stack.workers[0].metrics().await.sum(metric::MAINTENANCE_RUNS, &failures) >= 2.0
    })
    .await;
    let metrics = stack.workers[0].metrics().await;
    let counted = metrics.sum(metric::MAINTENANCE_RUNS, &failures);
    assert_eq!(
        (count_warnings(&stack.workers[0]) - before) as f64,
        counted,
        "one warning for each failure"
    );
    for task in TASKS.iter().filter(|task| task.name != "click-batches") {
        let labels = [("task", task.name), ("outcome", "succeeded")];
        assert_eq!(metrics.sum(metric::MAINTENANCE_RUNS, &labels), 1.0, "{}", task.name);
    }
    execute(&mut database, "ALTER TABLE elsewhere RENAME TO click_batches").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn idempotency_keys_are_deleted_after_a_day() {
    let mut stack = Stack::builder().workers(1).start().await;
    let client = stack.client();
    let body = json!({"original_url": "https://example.com/"});
    for key in ["old", "new"] {
        let response =
            client.post("/api/v1/urls", &body).header("idempotency-key", key).send().await;
        assert_eq!(response.status, 201);
    }
    wait_until_no_task_is_due(&stack).await;
    make_due(&mut stack, "idempotency-keys").await;
    let mut database = stack.database().await;
    execute(
        &mut database,
        "UPDATE idempotency_keys SET created_at = now() - interval '24 hours 1 second'
          WHERE key = 'old'",
    )
    .await;
    let database = Mutex::new(database);
    stack.workers[0].start();
    within(TASK_TIMEOUT, "the old key to be deleted", || async {
        let keys: Vec<String> = sqlx::query_scalar("SELECT key FROM idempotency_keys")
            .fetch_all(&mut *database.lock().await)
            .await
            .unwrap();
        keys == ["new"]
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn must_07_deletion_of_an_expired_link_invalidates_every_cache() {
    let stack = Stack::builder().shorteners(2).start().await;
    let client = stack.client();
    let link = client
        .shorten(&json!({"original_url": "https://example.com/", "short_code": "expired-link"}))
        .await;
    let id = link["id"].as_i64().unwrap();
    // All caches contain the link without an expiry. The change below publishes no invalidation.
    for shortener in 0..2 {
        assert_eq!(stack.resolve_at(shortener, "expired-link").await.0, 302);
    }
    let mut database = stack.database().await;
    let end = "UPDATE urls SET expires_at = now() - interval '91 days'";
    execute(&mut database, end).await;
    assert_eq!(
        client.resolve("expired-link").await.0,
        302,
        "only an invalidation removes it from the caches"
    );

    let (code, out, error) = stack.cli(&["admin", "run-task", "expired-links"]).await;
    assert_eq!((code, out.as_str()), (0, message::EXPIRED_LINKS_1_DELETED), "{error}");
    within(BOUND, "404 through nginx", || async { client.resolve("expired-link").await.0 == 404 })
        .await;
    for shortener in 0..2 {
        within(BOUND, "404 at each shortener", || async {
            stack.resolve_at(shortener, "expired-link").await.0 == 404
        })
        .await;
    }
    assert_eq!(client.get(&format!("/api/v1/urls/{id}")).send().await.status, 404);
    let path = format!("/api/v1/events?url_id={id}&event_type=deleted");
    let events = client.get(&path).send().await.json();
    assert_eq!(events[0]["details"]["reason"], "expired", "{events}");

    // The code is free again, and the new link has a higher version.
    client
        .shorten(&json!({"original_url": "https://example.com/2", "short_code": "expired-link"}))
        .await;
    for shortener in 0..2 {
        within(BOUND, "the new link", || async {
            stack.resolve_at(shortener, "expired-link").await.1.as_deref()
                == Some("https://example.com/2")
        })
        .await;
    }
    let (_, out, _) = stack.cli(&["admin", "run-task", "expired-links"]).await;
    assert_eq!(out, message::EXPIRED_LINKS_0_DELETED);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unknown_task_is_rejected_with_a_list_of_tasks() {
    let stack = Stack::builder().gateways(1).start().await;
    let (code, _, error) = stack.cli(&["admin", "run-task", "nonsense"]).await;
    assert_eq!(code, 2, "{error}");
    let (help_code, help, _) = stack.cli(&["admin", "run-task", "--help"]).await;
    assert_eq!(help_code, 0);
    assert!(error.contains("nonsense"), "{error}");
    for task in &TASKS {
        assert!(error.contains(task.name), "{error}");
        assert!(help.contains(task.name) && help.contains(task.about), "{help}");
    }
}
