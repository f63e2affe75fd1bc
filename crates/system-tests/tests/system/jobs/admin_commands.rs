//! `admin jobs`, and the maintenance tasks that delete ended jobs and orphaned uploads.

use std::{
    fs::{self, File},
    time::{Duration, SystemTime},
};

use linnet_system_tests::{Stack, expected::message};
use serde_json::Value;

use super::support::{
    builder, get_job, import, links_csv, lock_code, row_counts, unlock_code, upload_files,
    wait_for_job, wait_for_job_end, wait_until_no_uploads,
};

/// Runs `linnet-shortener admin`. Returns standard output, or standard error if the command failed.
async fn run_admin(stack: &Stack, arguments: &[&str]) -> Result<String, String> {
    let (code, out, error) = stack.cli(&[&["admin"], arguments].concat()).await;
    if code == 0 { Ok(out) } else { Err(error) }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn jobs_can_be_listed_shown_cancelled_and_replayed() {
    let mut stack = builder().env("LINNET__JOBS__MAX_ATTEMPTS", 2).start().await;
    let client = stack.client();
    let mut database = stack.database().await;
    let done = import(&client, links_csv("a", 3)).await;
    wait_for_job_end(&client, done).await;
    lock_code(&mut database, "b000001").await;
    let held = import(&client, links_csv("b", 3)).await;
    wait_for_job(&client, held, "to run", |job| job["state"] == "running").await;

    let list = run_admin(&stack, &["jobs", "list"]).await.unwrap();
    let state = |list: &str, id: i64| {
        let line = list.lines().find(|line| line.trim_start().starts_with(&format!("{id} ")));
        line.map(|line| line.split_whitespace().nth(2).unwrap().to_owned())
    };
    assert_eq!(state(&list, done).as_deref(), Some("succeeded"), "{list}");
    assert_eq!(state(&list, held).as_deref(), Some("running"), "{list}");
    let running = run_admin(&stack, &["jobs", "list", "--state", "running"]).await.unwrap();
    assert_eq!((state(&running, done), state(&running, held).is_some()), (None, true));

    let shown = run_admin(&stack, &["jobs", "show", &held.to_string()]).await.unwrap();
    let shown: Value = serde_json::from_str(&shown).unwrap();
    assert_eq!((&shown["id"], &shown["state"]), (&held.into(), &"running".into()));

    unlock_code(&mut database).await;
    wait_for_job_end(&client, held).await;

    wait_until_no_uploads(&stack).await;
    stack.workers[0].stop().await;
    let waiting = import(&client, links_csv("w", 3)).await;
    let cancelled = run_admin(&stack, &["jobs", "cancel", &waiting.to_string()]).await.unwrap();
    assert!(cancelled.contains("\"cancelled\""), "{cancelled}");
    assert_eq!(get_job(&client, waiting).await["state"], "cancelled");
    assert_eq!(upload_files(&stack).len(), 0);
    let again = run_admin(&stack, &["jobs", "cancel", &waiting.to_string()]).await.unwrap_err();
    assert!(again.contains(&message::job_is_cancelled(waiting)), "{again}");
    let absent = run_admin(&stack, &["jobs", "show", "999999"]).await.unwrap_err();
    assert!(absent.contains(&message::job_not_found(999_999)), "{absent}");

    // A job whose upload is missing at each attempt becomes a dead letter.
    let dead = import(&client, links_csv("c", 3)).await;
    let files = upload_files(&stack);
    let moved = stack.folder().join("moved-upload");
    fs::rename(&files[0], &moved).unwrap();
    stack.workers[0].start();
    assert_eq!(wait_for_job_end(&client, dead).await["is_dead"], true);
    let list = run_admin(&stack, &["jobs", "list", "--dead"]).await.unwrap();
    assert_eq!((state(&list, dead).as_deref(), state(&list, done)), (Some("dead"), None));
    fs::rename(&moved, &files[0]).unwrap();
    run_admin(&stack, &["jobs", "replay", &dead.to_string()]).await.unwrap();
    let replayed = wait_for_job_end(&client, dead).await;
    assert_eq!((&replayed["state"], row_counts(&replayed)), (&"succeeded".into(), [3, 3, 0, 0]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn maintenance_deletes_old_ended_jobs_and_orphaned_uploads() {
    let stack = builder().env("LINNET__JOBS__RETENTION_DAYS", 7).start().await;
    let client = stack.client();
    let (old, young) = (
        import(&client, "original_url\nhttps://example.com/\nx\n").await,
        import(&client, "original_url\nhttps://example.com/\ny\n").await,
    );
    for id in [old, young] {
        wait_for_job_end(&client, id).await;
    }
    sqlx::query(
        "UPDATE jobs SET finished_at = finished_at - interval '7 days 1 minute' WHERE id = $1",
    )
    .bind(old)
    .execute(&mut stack.database().await)
    .await
    .unwrap();
    // The worker may run the task at the same moment, so only the result is checked.
    run_admin(&stack, &["run-task", "ended-jobs"]).await.unwrap();
    client.get(&format!("/api/v1/jobs/{old}")).send().await.problem(404);
    client.get(&format!("/api/v1/jobs/{old}/errors")).send().await.problem(404);
    assert_eq!(get_job(&client, young).await["state"], "succeeded");

    wait_until_no_uploads(&stack).await;
    // An old orphan, a recent orphan, and an old upload of a running job.
    let mut database = stack.database().await;
    lock_code(&mut database, "h000001").await;
    let held = import(&client, links_csv("h", 3)).await;
    wait_for_job(&client, held, "to run", |job| job["state"] == "running").await;
    let needed = upload_files(&stack);
    assert_eq!(needed.len(), 1, "{needed:?}");
    let name = |stem: &str| {
        let suffix = needed[0].extension().unwrap().to_str().unwrap();
        needed[0].with_file_name(format!("{stem}.{suffix}"))
    };
    let (old_orphan, recent_orphan) = (name("old_orphan"), name("recent_orphan"));
    for path in [&old_orphan, &recent_orphan] {
        fs::write(path, "x").unwrap();
    }
    let hours_ago = SystemTime::now() - Duration::from_secs(2 * 3_600);
    for path in [&old_orphan, &needed[0]] {
        File::options().write(true).open(path).unwrap().set_modified(hours_ago).unwrap();
    }
    run_admin(&stack, &["run-task", "uploads"]).await.unwrap();
    assert!(!old_orphan.exists() && recent_orphan.exists() && needed[0].exists());
    unlock_code(&mut database).await;
    assert_eq!(wait_for_job_end(&client, held).await["rows_written"], 3);
}
