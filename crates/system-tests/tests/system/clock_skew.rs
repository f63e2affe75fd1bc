//! Clocks that differ by 2 s in each direction from those of PostgreSQL and Redis.

use std::{fs, time::Duration};

use chrono::{DateTime, TimeDelta, Utc};
use linnet_system_tests::{Client, Process, Stack, eventually, expected, within};
use serde_json::{Value, json};

use super::jobs::support::{
    builder, count_links_created_once, import, links_csv, row_counts, wait_for_job_end,
};

/// The difference of every process's clock.
const SKEW: TimeDelta = TimeDelta::seconds(2);
/// Time within which every process serves a change.
const BOUND: Duration = Duration::from_secs(1);
const WAIT: Duration = Duration::from_secs(30);
const ROWS: usize = 300;
const VISITS: i64 = 40;

fn library() -> String {
    let folders = fs::read_dir("/usr/lib").unwrap().flatten();
    let mut paths = folders.map(|folder| folder.path().join("faketime/libfaketimeMT.so.1"));
    let path = paths.find(|path| path.exists());
    path.expect("libfaketime: run scripts/install-packages libfaketime").display().to_string()
}

/// Starts the first process of each kind again with a clock that is fast, and the second with one that is slow.
async fn skew_clocks(stack: &mut Stack) {
    let library = library();
    for processes in [&mut stack.shorteners, &mut stack.gateways, &mut stack.workers] {
        for (process, offset) in processes.iter_mut().zip(["+2", "-2"]) {
            assert!(process.stop().await.success());
            process.set_env("LD_PRELOAD", &library);
            process.set_env("FAKETIME", offset);
            process.set_env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
            process.start();
        }
    }
    stack.wait_until_ready().await;
    for processes in [&stack.shorteners, &stack.gateways, &stack.workers] {
        let (fast, slow) = (time_of(&processes[0]).await, time_of(&processes[1]).await);
        assert!(fast - slow > SKEW, "the clocks are equal");
    }
}

/// The time of a process's clock, in seconds.
async fn time_of(process: &Process) -> DateTime<Utc> {
    let response = process.admin_get("/livez").await.expect("a response");
    let time = response.header("date").expect("a date").to_owned();
    DateTime::parse_from_rfc2822(&time).expect("a time").to_utc()
}

/// The time that is left until the latest clock has passed `time`, and [`BOUND`] more.
fn until_past(time: DateTime<Utc>) -> Duration {
    (time + SKEW - Utc::now()).to_std().unwrap_or_default() + BOUND
}

async fn target_at(stack: &Stack, shortener: usize, link: &Value) -> Option<String> {
    stack.resolve_at(shortener, link["short_code"].as_str().unwrap()).await.1
}

/// Waits until a key is refused, and asserts that no gateway accepts it any more.
async fn wait_for_refusal(client: &Client, deadline: Duration, what: &str) {
    let status = async || client.get("/api/v1/urls").send().await.status;
    within(deadline, what, || async { status().await == 401 && status().await == 401 }).await;
    for _ in 0..8 {
        assert_eq!(status().await, 401, "{what}");
    }
}

async fn create_key(stack: &Stack, expires_at: Option<DateTime<Utc>>) -> (String, Client) {
    let body = json!({"name": "skew", "scopes": ["urls:read"], "user_id": stack.admin_id,
        "expires_at": expires_at});
    let key = stack.client().post("/api/v1/api-keys", &body).send().await;
    assert_eq!(key.status, 201, "{}", key.text());
    let key = key.json();
    let client = stack.client().with_key(key["key"].as_str().unwrap());
    (key["id"].as_str().unwrap().to_owned(), client)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clocks_that_differ_by_two_seconds_break_no_promise() {
    let mut stack = builder().shorteners(2).gateways(2).workers(2).start().await;
    skew_clocks(&mut stack).await;
    let client = stack.client();

    // Leases are shorter than the differences.
    let job = import(&client, links_csv("skewed", ROWS)).await;

    let expires_at = Utc::now() + TimeDelta::seconds(8);
    let body = json!({"original_url": "https://example.com/limited", "expires_at": expires_at});
    let limited = client.shorten(&body).await;
    let (_, expiring_key) = create_key(&stack, Some(expires_at)).await;
    for shortener in [0, 1] {
        assert!(target_at(&stack, shortener, &limited).await.is_some(), "a link of {expires_at}");
    }
    assert_eq!(expiring_key.get("/api/v1/urls").send().await.status, 200);

    for number in 0..6 {
        let old = format!("https://example.com/{number}");
        let link = client.shorten(&json!({ "original_url": old })).await;
        for shortener in [0, 1] {
            assert_eq!(target_at(&stack, shortener, &link).await.as_ref(), Some(&old));
        }
        let new = format!("{old}/new");
        let path = format!("/api/v1/urls/{}", link["id"]);
        let edit = client.patch(&path, &json!({ "original_url": new })).send().await;
        assert_eq!(edit.status, 200, "{}", edit.text());
        for shortener in [0, 1] {
            within(BOUND, "the edit at each shortener", || async {
                target_at(&stack, shortener, &link).await.as_ref() == Some(&new)
            })
            .await;
        }
    }

    let (id, revoked_key) = create_key(&stack, None).await;
    assert_eq!(revoked_key.get("/api/v1/urls").send().await.status, 200);
    assert!(client.delete(&format!("/api/v1/api-keys/{id}")).send().await.status < 300);
    wait_for_refusal(&revoked_key, BOUND, "the revoked key to be refused").await;

    for shortener in [0, 1] {
        within(until_past(expires_at), "the link to expire at each shortener", || async {
            target_at(&stack, shortener, &limited).await.is_none()
        })
        .await;
    }
    wait_for_refusal(&expiring_key, until_past(expires_at), "the key to expire").await;

    let job = wait_for_job_end(&client, job).await;
    let rows = i64::try_from(ROWS).unwrap();
    assert_eq!((&job["state"], row_counts(&job)), (&"succeeded".into(), [rows, rows, 0, 0]));
    assert_eq!(count_links_created_once(&mut stack.database().await, "skewed").await, rows);
    let attempts = stack.workers.iter().flat_map(Process::log_lines);
    let attempts = attempts.filter(|line| line["message"] == expected::log::JOB_ATTEMPT_STARTED);
    assert_eq!(attempts.count(), 1, "attempts of the job");

    count_visits(&stack).await;
}

/// Visits a link at both shorteners, and asserts that each click is counted, on a day of one of the clocks.
async fn count_visits(stack: &Stack) {
    let client = stack.client();
    let link = client.shorten(&json!({"original_url": "https://example.com/"})).await;
    let days = |time: DateTime<Utc>| [time - SKEW, time + SKEW].map(|time| time.date_naive());
    let first = days(Utc::now());
    for _ in 0..VISITS {
        assert_eq!(client.resolve(link["short_code"].as_str().unwrap()).await.0, 302);
    }
    let possible = [first, days(Utc::now())].concat();
    let counted = eventually(WAIT, "every click to be counted", || async {
        let counted: Vec<(chrono::NaiveDate, i64)> = sqlx::query_as(
            "SELECT day, clicks::bigint FROM click_totals_by_day WHERE subject = $1",
        )
        .bind(link["id"].as_i64())
        .fetch_all(&mut stack.database().await)
        .await
        .unwrap();
        (counted.iter().map(|(_, clicks)| clicks).sum::<i64>() >= VISITS).then_some(counted)
    })
    .await;
    assert_eq!(counted.iter().map(|(_, clicks)| clicks).sum::<i64>(), VISITS, "{counted:?}");
    assert!(counted.iter().all(|(day, _)| possible.contains(day)), "{counted:?}: {possible:?}");
}
