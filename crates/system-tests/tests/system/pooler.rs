//! PgBouncer in transaction mode between the processes and PostgreSQL.

use std::{collections::BTreeMap, time::Duration};

use futures::future::join_all;
use linnet_system_tests::{EventStream, Stack, expected::metric, within};
use linnet_worker::maintenance::TASKS;
use serde_json::{Value, json};

use super::{
    jobs::support::{
        builder, count_links_created_once, import, links_csv, row_counts, wait_for_job_end,
    },
    maintenance::{successful_runs, wait_until_no_task_is_due},
};

/// Time within which every process serves a change.
const BOUND: Duration = Duration::from_secs(1);
const WAIT: Duration = Duration::from_secs(20);
/// Concurrent requests, more than the pooler has server connections.
const CONCURRENT: usize = 48;
const ROWS: usize = 500;
/// Sessions of the pooler: six for each of its two databases, and those that are being replaced.
const MOST_SESSIONS: i64 = 18;

async fn clicks_of(stack: &Stack, link: &Value) -> i64 {
    let link = stack.client().get(&format!("/api/v1/urls/{}", link["id"])).send().await;
    link.json()["clicks"].as_i64().unwrap_or_default()
}

/// Creates, resolves and edits links, all at the same time.
async fn change_links_at_once(stack: &Stack) {
    let client = stack.client();
    let changes = (0..CONCURRENT).map(|number| {
        let client = client.clone();
        async move {
            let old = format!("https://example.com/{number}");
            let link = client.shorten(&json!({ "original_url": old })).await;
            let code = link["short_code"].as_str().unwrap();
            for shortener in [0, 1] {
                let expected = (302, Some(old.clone()));
                assert_eq!(stack.resolve_at(shortener, code).await, expected);
            }
            let new = format!("{old}/new");
            let path = format!("/api/v1/urls/{}", link["id"]);
            let response = client.patch(&path, &json!({ "original_url": new })).send().await;
            assert_eq!(response.status, 200, "{}", response.text());
            for shortener in [0, 1] {
                within(BOUND, "the edit at each shortener", || async {
                    stack.resolve_at(shortener, code).await.1.as_ref() == Some(&new)
                })
                .await;
            }
        }
    });
    join_all(changes).await;
}

/// Reads statistics and a list, and follows a visit from the live stream to the count of clicks.
async fn follow_a_visit(stack: &Stack) {
    let client = stack.client();
    let link = client.shorten(&json!({"original_url": "https://example.com/"})).await;
    let path = format!("/api/v1/urls/{}", link["id"]);
    let mut events =
        EventStream::open(&client, &stack.admin_key, &format!("{path}/live"), None).await;
    let visits = async {
        loop {
            let code = link["short_code"].as_str().unwrap();
            assert_eq!(client.resolve(code).await.0, 302);
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::select! {
        event = events.event() => assert_eq!(event.name, "click"),
        () = visits => {}
    }
    within(WAIT, "the click to be counted", || async { clicks_of(stack, &link).await > 0 }).await;
    let stats = client.get(&format!("{path}/stats")).send().await;
    assert!(stats.json()["totals"]["clicks"].as_i64() > Some(0), "{}", stats.text());
    let export = client.get("/api/v1/urls/export?format=csv").send().await;
    assert_eq!(export.status, 200, "{}", export.text());
}

/// The sessions at the server, of the pooler and of the processes themselves.
async fn count_sessions(stack: &Stack) -> (i64, i64) {
    sqlx::query_as(
        "SELECT count(*) FILTER (WHERE application_name = 'linnet-shortener'),
                count(*) FILTER (WHERE application_name IN ('linnet-observer', 'linnet-migrate'))
           FROM pg_stat_activity WHERE datname = current_database()",
    )
    .fetch_one(&mut stack.database().await)
    .await
    .unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_process_works_through_a_pooler_in_transaction_mode() {
    let mut stack = builder().shorteners(2).workers(2).pooler().start().await;
    let client = stack.client();
    let job = import(&client, links_csv("pooled", ROWS)).await;
    change_links_at_once(&stack).await;
    follow_a_visit(&stack).await;
    let job = wait_for_job_end(&client, job).await;
    let rows = i64::try_from(ROWS).unwrap();
    assert_eq!((&job["state"], row_counts(&job)), (&"succeeded".into(), [rows, rows, 0, 0]));
    let mut database = stack.database().await;
    assert_eq!(count_links_created_once(&mut database, "pooled").await, rows);

    // The lock of a task is in a session of its own, so each task runs in one of the workers.
    wait_until_no_task_is_due(&stack).await;
    let once: BTreeMap<_, _> = TASKS.iter().map(|task| (task.name, 1.0)).collect();
    assert_eq!(successful_runs(&stack).await, once);

    // The pooler replaces the session of an export, so that a few more than its limits may exist.
    let (pooled, own) = count_sessions(&stack).await;
    assert!((1..=MOST_SESSIONS).contains(&pooled) && own == 0, "{pooled} pooled, {own} own");
    let clients = stack.pooler().process.log().matches("login attempt").count();
    assert!(clients > 2 * CONCURRENT / 3, "{clients} clients share no session");
    for args in [&["preflight"][..], &["migrate"], &["admin", "jobs", "list"]] {
        let (status, _, error) = stack.cli(args).await;
        assert_eq!(status, 0, "{args:?}: {error}");
    }
}

/// The direct URL of another database.
fn elsewhere(stack: &Stack) -> String {
    let mut url = url::Url::parse(&stack.env()["LINNET__POSTGRES__DIRECT_URL"]).unwrap();
    url.set_path("postgres");
    url.into()
}

/// The output of `preflight`, which must fail.
async fn refusal(stack: &Stack, env: &[(&str, &str)]) -> String {
    let (status, _, error) = stack.cli_with(env, &["preflight"]).await;
    assert_ne!(status, 0, "{error}");
    error
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pooler_that_would_lose_locks_timeouts_or_statements_is_refused_with_the_way_out() {
    let mut stack = Stack::builder().pooler().start().await;
    let (status, _, error) = stack.cli(&["preflight"]).await;
    assert_eq!(status, 0, "{error}");
    let pooled = stack.env()["LINNET__POSTGRES__URL"].clone();
    let without_direct = [("LINNET__POSTGRES__DIRECT_URL", "")];
    let set_direct = "postgres.url: a connection pooler shares this session with other clients; set \
                      postgres.direct_url";

    assert!(refusal(&stack, &without_direct).await.contains(set_direct));
    let also_pooled = [("LINNET__POSTGRES__DIRECT_URL", pooled.as_str())];
    let error = refusal(&stack, &also_pooled).await;
    assert!(error.contains("postgres.direct_url: a connection pooler shares"), "{error}");

    let elsewhere = elsewhere(&stack);
    let elsewhere = [("LINNET__POSTGRES__DIRECT_URL", elsewhere.as_str())];
    let error = refusal(&stack, &elsewhere).await;
    assert!(error.contains("does not lead to the server and the database"), "{error}");

    // The pooler accepts the parameters of a session and drops them, so the connection succeeds.
    let ignored = "ignore_startup_parameters = options, extra_float_digits";
    stack.pooler().restart(None, ignored).await;
    let error = refusal(&stack, &without_direct).await;
    assert!(error.contains(set_direct), "{error}");

    stack.pooler().restart(None, "max_prepared_statements = 0").await;
    let error = refusal(&stack, &[]).await;
    assert!(error.contains("max_prepared_statements > 0"), "{error}");

    stack.pooler().restart(Some("SET statement_timeout = 1000"), "").await;
    let error = refusal(&stack, &[]).await;
    for part in ["(statement_timeout, lock_timeout, ", "SET linnet.hold_codes_days = 90; "] {
        assert!(error.contains(part), "{part} is not in: {error}");
    }
    // A running process refuses such sessions, too.
    stack.shorteners[0].stop().await;
    stack.shorteners[0].start();
    within(WAIT, "an error with the parameters", || async {
        stack.shorteners[0].log().contains("the pooler's sessions have other parameters")
    })
    .await;
    assert!(!stack.shorteners[0].is_ready().await);
}

/// The database of the lock is another one, as if the two URLs led to two primaries.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn task_does_not_run_under_a_lock_of_another_server() {
    let mut stack = Stack::builder().workers(1).pooler().start().await;
    wait_until_no_task_is_due(&stack).await;
    assert!(stack.workers[0].stop().await.success());
    let due = "UPDATE maintenance_runs SET succeeded_at = succeeded_at - interval '1 day'";
    sqlx::raw_sql(due).execute(&mut stack.database().await).await.unwrap();
    let elsewhere = elsewhere(&stack);
    stack.workers[0].set_env("LINNET__POSTGRES__DIRECT_URL", &elsewhere);
    stack.workers[0].start();
    within(WAIT, "an error with the reason", || async {
        stack.workers[0]
            .log()
            .contains("the pooler leads to another server than postgres.direct_url")
    })
    .await;
    let runs = stack.workers[0].metrics().await;
    let succeeded = runs.sum(metric::MAINTENANCE_RUNS, &[("outcome", "succeeded")]);
    assert_eq!(succeeded, 0.0);
}
