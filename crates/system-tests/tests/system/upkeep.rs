//! The upkeep by workers, and by hand.

use std::{collections::BTreeMap, time::Duration};

use linnet_system_tests::{Process, Stack, within};
use linnet_worker::maintenance::TASKS;
use serde_json::json;
use sqlx::{Connection, PgConnection};
use tokio::sync::Mutex;

/// Longest wait for what is due at once.
const DUE: Duration = Duration::from_secs(30);
/// Within this every process stops serving the old answer.
const BOUND: Duration = Duration::from_secs(1);

const RUNS: &str = "linnet_maintenance_runs";

async fn execute(database: &mut PgConnection, statement: &'static str) {
    sqlx::raw_sql(statement).execute(database).await.unwrap();
}

/// Waits until every worker has seen that all tasks were done: it finds nothing due any more.
async fn all_seen_done(stack: &Stack) {
    within(DUE, "all workers see all tasks done", || async {
        for worker in &stack.workers {
            let metrics = worker.metrics().await;
            for task in &TASKS {
                let name = "linnet_maintenance_last_success_timestamp_seconds";
                if metrics.sum(name, &[("task", task.name)]) == 0.0 {
                    return false;
                }
            }
        }
        true
    })
    .await;
}

/// Runs of each task that succeeded, of all workers together.
async fn succeeded(stack: &Stack) -> BTreeMap<&'static str, f64> {
    let mut sums: BTreeMap<&str, f64> = TASKS.iter().map(|task| (task.name, 0.0)).collect();
    for worker in &stack.workers {
        let metrics = worker.metrics().await;
        for (task, sum) in &mut sums {
            *sum += metrics.sum(RUNS, &[("task", task), ("outcome", "succeeded")]);
        }
        assert_eq!(
            metrics.sum(RUNS, &[]),
            metrics.sum("linnet_maintenance_duration_seconds_count", &[]),
            "every run was timed"
        );
    }
    sums
}

async fn started(stack: &Stack) -> Vec<(String, chrono::DateTime<chrono::Utc>)> {
    sqlx::query_as("SELECT task, started_at FROM maintenance_runs ORDER BY task")
        .fetch_all(&mut stack.database().await)
        .await
        .unwrap()
}

/// Stops the workers and lets a task be due, with no failure behind it.
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

/// Waits until a worker runs a task that something holds up.
async fn runs(stack: &Stack, task: &str) {
    let database = Mutex::new(stack.database().await);
    within(DUE, &format!("{task} runs"), || async {
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

async fn locks(database: &mut PgConnection) -> i64 {
    sqlx::query_scalar(
        "SELECT count(*) FROM pg_locks JOIN pg_stat_activity USING (pid)
          WHERE locktype = 'advisory' AND datname = current_database()
            AND application_name = 'linnet-upkeep'",
    )
    .fetch_one(database)
    .await
    .unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_workers_one_runs_a_task_and_once_in_its_interval() {
    let mut stack = Stack::builder().workers(2).start().await;
    all_seen_done(&stack).await;
    let once: BTreeMap<_, _> = TASKS.iter().map(|task| (task.name, 1.0)).collect();
    assert_eq!(succeeded(&stack).await, once);

    make_due(&mut stack, "click-batches").await;
    let before = started(&stack).await;
    for worker in &mut stack.workers {
        worker.start();
    }
    stack.ready().await;
    within(DUE, "the task that is due is run", || async {
        succeeded(&stack).await["click-batches"] > 0.0
    })
    .await;
    all_seen_done(&stack).await;
    let only: BTreeMap<_, _> = TASKS
        .iter()
        .map(|task| (task.name, if task.name == "click-batches" { 1.0 } else { 0.0 }))
        .collect();
    assert_eq!(succeeded(&stack).await, only);
    for ((task, before), (_, after)) in before.iter().zip(&started(&stack).await) {
        assert_eq!(after > before, task == "click-batches", "{task}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_is_killed_in_a_run_leaves_the_task_to_others() {
    let mut stack = Stack::builder().workers(1).start().await;
    all_seen_done(&stack).await;
    make_due(&mut stack, "idempotency-keys").await;
    let mut blocker = stack.database().await;
    let mut held = blocker.begin().await.unwrap();
    execute(&mut held, "LOCK TABLE idempotency_keys").await;
    stack.workers[0].start();
    runs(&stack, "idempotency-keys").await;
    let database = Mutex::new(stack.database().await);
    assert_eq!(locks(&mut *database.lock().await).await, 1);
    let (code, _, error) =
        stack.cli(&["admin", "run-task", "idempotency-keys", "--wait", "1"]).await;
    assert_eq!(code, 1, "{error}");
    assert!(error.contains("runs elsewhere: since"), "{error}");

    stack.workers[0].kill().await;
    within(Duration::from_secs(10), "the lock is free", || async {
        locks(&mut *database.lock().await).await == 0
    })
    .await;
    held.rollback().await.unwrap();
    stack.workers[0].start();
    stack.ready().await;
    within(DUE, "the task is done after all", || async {
        succeeded(&stack).await["idempotency-keys"] == 1.0
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_stops_cuts_its_run_off_without_harm() {
    let mut stack = Stack::builder().workers(1).start().await;
    all_seen_done(&stack).await;
    make_due(&mut stack, "idempotency-keys").await;
    let mut blocker = stack.database().await;
    let mut held = blocker.begin().await.unwrap();
    execute(&mut held, "LOCK TABLE idempotency_keys").await;
    stack.workers[0].start();
    runs(&stack, "idempotency-keys").await;
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
    held.rollback().await.unwrap();
    let (code, out, error) = stack.cli(&["admin", "run-task", "idempotency-keys"]).await;
    assert_eq!((code, out.as_str()), (0, "idempotency-keys: 0 answer(s) forgotten\n"), "{error}");
}

fn complaints(worker: &Process) -> usize {
    let is_one = |line: &&serde_json::Value| {
        line["level"] == "WARN" && line.to_string().contains("idempotency-keys")
    };
    worker.log_lines().iter().filter(is_one).count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_task_that_fails_is_tried_again_and_stops_no_other() {
    let mut stack = Stack::builder().workers(1).start().await;
    all_seen_done(&stack).await;
    for worker in &mut stack.workers {
        assert!(worker.stop().await.success());
    }
    let mut database = stack.database().await;
    execute(
        &mut database,
        "DELETE FROM maintenance_runs; ALTER TABLE idempotency_keys RENAME TO elsewhere",
    )
    .await;
    let before = complaints(&stack.workers[0]);
    stack.workers[0].start();
    stack.ready().await;
    let failures = [("task", "idempotency-keys"), ("outcome", "failed")];
    within(DUE, "it is tried again", || async {
        stack.workers[0].metrics().await.sum(RUNS, &failures) >= 2.0
    })
    .await;
    let metrics = stack.workers[0].metrics().await;
    let counted = metrics.sum(RUNS, &failures);
    assert_eq!((complaints(&stack.workers[0]) - before) as f64, counted, "once for each");
    for task in TASKS.iter().filter(|task| task.name != "idempotency-keys") {
        let labels = [("task", task.name), ("outcome", "succeeded")];
        assert_eq!(metrics.sum(RUNS, &labels), 1.0, "{}", task.name);
    }
    execute(&mut database, "ALTER TABLE elsewhere RENAME TO idempotency_keys").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_to_idempotency_keys_go_after_a_day() {
    let mut stack = Stack::builder().workers(1).start().await;
    let client = stack.client();
    let body = json!({"original_url": "https://example.com/"});
    for key in ["old", "new"] {
        let answer = client.post("/api/v1/urls", &body).header("idempotency-key", key).send().await;
        assert_eq!(answer.status, 201);
    }
    all_seen_done(&stack).await;
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
    within(DUE, "the old one is gone", || async {
        let keys: Vec<String> = sqlx::query_scalar("SELECT key FROM idempotency_keys")
            .fetch_all(&mut *database.lock().await)
            .await
            .unwrap();
        keys == ["new"]
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn must_07_a_link_that_expired_long_ago_is_deleted_and_every_cache_hears_of_it() {
    let stack = Stack::builder().shorteners(2).start().await;
    let client = stack.client();
    let link = client
        .shorten(&json!({"original_url": "https://example.com/", "short_code": "gone-by-itself"}))
        .await;
    let id = link["id"].as_i64().unwrap();
    // All caches hold it as one without an end, and nobody tells them that it has got one.
    for shortener in 0..2 {
        assert_eq!(stack.resolve_at(shortener, "gone-by-itself").await.0, 302);
    }
    let mut database = stack.database().await;
    let end = "UPDATE urls SET expires_at = now() - interval '91 days'";
    execute(&mut database, end).await;
    assert_eq!(client.resolve("gone-by-itself").await.0, 302, "only the news can end it");

    let (code, out, error) = stack.cli(&["admin", "run-task", "expired-links"]).await;
    assert_eq!((code, out.as_str()), (0, "expired-links: 1 link(s) deleted\n"), "{error}");
    within(BOUND, "404 through nginx", || async {
        client.resolve("gone-by-itself").await.0 == 404
    })
    .await;
    for shortener in 0..2 {
        within(BOUND, "404 at each shortener", || async {
            stack.resolve_at(shortener, "gone-by-itself").await.0 == 404
        })
        .await;
    }
    assert_eq!(client.get(&format!("/api/v1/urls/{id}")).send().await.status, 404);
    let path = format!("/api/v1/events?url_id={id}&event_type=deleted");
    let events = client.get(&path).send().await.json();
    assert_eq!(events[0]["details"]["reason"], "expired", "{events}");

    // The code is free again, and the new link's version is the higher one.
    client
        .shorten(&json!({"original_url": "https://example.com/2", "short_code": "gone-by-itself"}))
        .await;
    for shortener in 0..2 {
        within(BOUND, "the new link", || async {
            stack.resolve_at(shortener, "gone-by-itself").await.1.as_deref()
                == Some("https://example.com/2")
        })
        .await;
    }
    let (_, out, _) = stack.cli(&["admin", "run-task", "expired-links"]).await;
    assert_eq!(out, "expired-links: 0 link(s) deleted\n");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_task_that_does_not_exist_is_refused_with_those_that_do() {
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
