//! Workers that are killed in the middle of an import.

use std::collections::HashSet;

use linnet_system_tests::{Stack, eventually};
use rand::RngExt;
use tokio::sync::Mutex;

use super::support::{
    SOON, bad_rows, builder, counts, ended, follow, import, links, made_once, no_upload_is_left,
    under_way,
};

const ROWS: usize = 100_000;
const KILLS: usize = 20;

/// A file with a bad row here and there: bad in itself, or because another row has its code. Also the
/// lines of the bad ones.
fn rows() -> (String, Vec<i64>) {
    let mut csv = "short_code,original_url\n".to_owned();
    let mut bad = Vec::new();
    for n in 0..ROWS {
        let line = i64::try_from(n + 2).unwrap();
        match n % 1_000 {
            // Of a row far before it, or of one of the same chunk.
            333 if n > 50_000 => {
                csv.push_str(&format!("k{:06},https://example.com/\n", n - 50_000));
                bad.push(line);
            }
            334 => {
                csv.push_str(&format!("k{:06},https://example.com/\n", n - 2));
                bad.push(line);
            }
            667 => {
                csv.push_str(&format!("k{n:06},javascript:alert({n})\n"));
                bad.push(line);
            }
            _ => csv.push_str(&format!("k{n:06},https://example.com/{n}\n")),
        }
    }
    (csv, bad)
}

/// The worker that began a job last.
fn runner(stack: &Stack) -> usize {
    let begun = |number: usize| {
        let lines = stack.workers[number].log_lines();
        let begun = lines.iter().rfind(|line| line["message"] == "a job begins")?;
        Some((begun["timestamp"].as_str().expect("the time").to_owned(), number))
    };
    let last = (0..stack.workers.len()).filter_map(begun).max();
    last.expect("a worker that runs the job").1
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_import_whose_workers_are_killed_twenty_times_takes_each_row_once() {
    let mut stack = builder()
        .workers(2)
        .env("LINNET__JOBS__CHUNK_ROWS", 500)
        .env("LINNET__JOBS__MAX_ATTEMPTS", 100)
        .start()
        .await;
    let client = stack.client();
    let (csv, bad) = rows();
    let id = import(&client, csv).await;
    let follower = tokio::spawn(follow(stack.client(), stack.admin_key.clone(), id, 7));
    let database = Mutex::new(stack.database().await);
    let mut killed = HashSet::new();
    let mut before = 0;
    for kill in 0..KILLS {
        // Somewhere in the next part of the file, and somewhere within a chunk.
        let (part, wait) = {
            let mut random = rand::rng();
            (random.random_range(0..ROWS / KILLS), random.random_range(0..60))
        };
        let goal = i64::try_from(kill * ROWS / (KILLS + 1) + part / 2).unwrap();
        let look = || async {
            let seen: (i64, String, Option<String>) =
                sqlx::query_as("SELECT rows_read, state, worker FROM jobs WHERE id = $1")
                    .bind(id)
                    .fetch_one(&mut *database.lock().await)
                    .await
                    .unwrap();
            assert_ne!(seen.1, "succeeded", "it ended before the kills did");
            // Whoever was killed runs it no more.
            let (read, worker) = (seen.0, seen.2.filter(|worker| !killed.contains(worker))?);
            (read >= goal && read > before).then_some((read, worker))
        };
        let (read, worker) = eventually(SOON, "a worker is at it", look).await;
        assert!(read >= before, "{read} rows are done, and {before} were");
        before = read;
        killed.insert(worker);
        tokio::time::sleep(std::time::Duration::from_millis(wait)).await;
        let number = runner(&stack);
        stack.workers[number].kill().await;
        stack.workers[number].start();
    }
    let job = ended(&client, id).await;
    assert_eq!(job["state"], "succeeded", "{job}");
    let [all, failed] = [ROWS, bad.len()].map(|count| i64::try_from(count).unwrap());
    assert_eq!(counts(&job), [all, all - failed, 0, failed]);
    let mut database = database.into_inner();
    assert_eq!(made_once(&mut database, "k").await, all - failed);
    let wrong: i64 = sqlx::query_scalar(
        "SELECT count(*) FROM urls WHERE starts_with(short_code, 'k')
            AND original_url <> 'https://example.com/' || substr(short_code, 2)::int",
    )
    .fetch_one(&mut database)
    .await
    .unwrap();
    assert_eq!(wrong, 0, "each code leads to its own target");
    let lines: Vec<i64> = bad_rows(&client, id).await.into_iter().map(|row| row.0).collect();
    assert_eq!(lines, bad, "each bad row once");

    let told = follower.await.unwrap();
    told.is_in_order();
    assert_eq!(told.lines, bad, "each bad row is told once, over {} streams", told.streams);
    assert_eq!(told.end["rows_read"], all);
    assert!(told.streams > 10, "{}", told.streams);
    no_upload_is_left(&stack).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_whose_workers_all_die_goes_on_where_it_was() {
    let mut stack = builder().env("LINNET__JOBS__CHUNK_ROWS", 50).start().await;
    let client = stack.client();
    let id = import(&client, links("d", 10_000)).await;
    let before = under_way(&client, id, 500).await["rows_read"].as_i64().unwrap();
    stack.workers[0].kill().await;
    let left = super::support::job(&client, id).await["rows_read"].as_i64().unwrap();
    assert!((before..10_000).contains(&left), "{left} after {before}");
    stack.workers[0].start();
    let job = ended(&client, id).await;
    assert_eq!((&job["state"], counts(&job)), (&"succeeded".into(), [10_000, 10_000, 0, 0]));
    assert_eq!(made_once(&mut stack.database().await, "d").await, 10_000);
    // What the second worker wrote is the rest.
    let metrics = stack.workers[0].metrics().await;
    let rest = metrics.sum("linnet_jobs_rows", &[("outcome", "written")]);
    assert_eq!(rest, (10_000 - left) as f64);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_is_asked_to_stop_gives_its_job_back_at_once() {
    // Far longer than the test: nobody takes over by waiting.
    let mut stack = builder()
        .env("LINNET__JOBS__LEASE_MS", 600_000)
        .env("LINNET__JOBS__CHUNK_ROWS", 50)
        .start()
        .await;
    let client = stack.client();
    let id = import(&client, links("s", 10_000)).await;
    under_way(&client, id, 500).await;
    assert!(stack.workers[0].stop().await.success());
    let left = super::support::job(&client, id).await;
    assert_eq!((&left["state"], &left["attempts"]), (&"queued".into(), &0.into()), "{left}");
    stack.workers[0].start();
    let job = ended(&client, id).await;
    assert_eq!((&job["state"], counts(&job)), (&"succeeded".into(), [10_000, 10_000, 0, 0]));
    assert_eq!(made_once(&mut stack.database().await, "s").await, 10_000);
    let metrics = stack.workers[0].metrics().await;
    let rest = metrics.sum("linnet_jobs_rows", &[("outcome", "written")]);
    assert_eq!(rest, (10_000 - left["rows_read"].as_i64().unwrap()) as f64);
}
