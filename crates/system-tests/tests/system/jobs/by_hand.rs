//! `admin jobs`, and what the upkeep leaves of ended jobs.

use std::{
    fs::{self, File},
    time::{Duration, SystemTime},
};

use linnet_system_tests::Stack;
use serde_json::Value;

use super::support::{
    builder, counts, ended, hold_code, import, job, let_go, links, no_upload_is_left, once, uploads,
};

/// What the command printed, if it succeeded; else what it complained of.
async fn admin(stack: &Stack, arguments: &[&str]) -> Result<String, String> {
    let (code, out, error) = stack.cli(&[&["admin"], arguments].concat()).await;
    if code == 0 { Ok(out) } else { Err(error) }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn jobs_are_listed_shown_cancelled_and_replayed() {
    let mut stack = builder().env("LINNET__JOBS__MAX_ATTEMPTS", 2).start().await;
    let client = stack.client();
    let mut database = stack.database().await;
    let done = import(&client, links("a", 3)).await;
    ended(&client, done).await;
    hold_code(&mut database, "b000001").await;
    let held = import(&client, links("b", 3)).await;
    once(&client, held, "it runs", |job| job["state"] == "running").await;

    let list = admin(&stack, &["jobs", "list"]).await.unwrap();
    let state = |list: &str, id: i64| {
        let line = list.lines().find(|line| line.trim_start().starts_with(&format!("{id} ")));
        line.map(|line| line.split_whitespace().nth(2).unwrap().to_owned())
    };
    assert_eq!(state(&list, done).as_deref(), Some("succeeded"), "{list}");
    assert_eq!(state(&list, held).as_deref(), Some("running"), "{list}");
    let running = admin(&stack, &["jobs", "list", "--state", "running"]).await.unwrap();
    assert_eq!((state(&running, done), state(&running, held).is_some()), (None, true));

    let shown = admin(&stack, &["jobs", "show", &held.to_string()]).await.unwrap();
    let shown: Value = serde_json::from_str(&shown).unwrap();
    assert_eq!((&shown["id"], &shown["state"]), (&held.into(), &"running".into()));

    let_go(&mut database).await;
    ended(&client, held).await;

    no_upload_is_left(&stack).await;
    stack.workers[0].stop().await;
    let waiting = import(&client, links("w", 3)).await;
    let cancelled = admin(&stack, &["jobs", "cancel", &waiting.to_string()]).await.unwrap();
    assert!(cancelled.contains("\"cancelled\""), "{cancelled}");
    assert_eq!(job(&client, waiting).await["state"], "cancelled");
    assert_eq!(uploads(&stack).len(), 0);
    let again = admin(&stack, &["jobs", "cancel", &waiting.to_string()]).await.unwrap_err();
    assert!(again.contains(&format!("job {waiting} is cancelled")), "{again}");
    let absent = admin(&stack, &["jobs", "show", "999999"]).await.unwrap_err();
    assert!(absent.contains("there is no job 999999"), "{absent}");

    // One whose upload is nowhere to be found each time is a dead letter.
    let dead = import(&client, links("c", 3)).await;
    let files = uploads(&stack);
    let away = stack.folder().join("away");
    fs::rename(&files[0], &away).unwrap();
    stack.workers[0].start();
    assert_eq!(ended(&client, dead).await["is_dead"], true);
    let list = admin(&stack, &["jobs", "list", "--dead"]).await.unwrap();
    assert_eq!((state(&list, dead).as_deref(), state(&list, done)), (Some("dead"), None));
    fs::rename(&away, &files[0]).unwrap();
    admin(&stack, &["jobs", "replay", &dead.to_string()]).await.unwrap();
    let replayed = ended(&client, dead).await;
    assert_eq!((&replayed["state"], counts(&replayed)), (&"succeeded".into(), [3, 3, 0, 0]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_upkeep_deletes_ended_jobs_and_forsaken_uploads_in_time() {
    let stack = builder().env("LINNET__JOBS__RETENTION_DAYS", 7).start().await;
    let client = stack.client();
    let (old, young) = (
        import(&client, "original_url\nhttps://example.com/\nx\n").await,
        import(&client, "original_url\nhttps://example.com/\ny\n").await,
    );
    for id in [old, young] {
        ended(&client, id).await;
    }
    sqlx::query(
        "UPDATE jobs SET finished_at = finished_at - interval '7 days 1 minute' WHERE id = $1",
    )
    .bind(old)
    .execute(&mut stack.database().await)
    .await
    .unwrap();
    // The worker may have come to it by itself in the same moment, so what is left counts.
    admin(&stack, &["run-task", "ended-jobs"]).await.unwrap();
    client.get(&format!("/api/v1/jobs/{old}")).send().await.problem(404);
    client.get(&format!("/api/v1/jobs/{old}/errors")).send().await.problem(404);
    assert_eq!(job(&client, young).await["state"], "succeeded");

    // A worker removes an upload when its job has ended, a moment later.
    no_upload_is_left(&stack).await;
    // Two that no job needs, one of them old enough; one that a job needs, however old.
    let mut database = stack.database().await;
    hold_code(&mut database, "h000001").await;
    let held = import(&client, links("h", 3)).await;
    once(&client, held, "it runs", |job| job["state"] == "running").await;
    let needed = uploads(&stack);
    assert_eq!(needed.len(), 1, "{needed:?}");
    let name = |stem: &str| {
        let suffix = needed[0].extension().unwrap().to_str().unwrap();
        needed[0].with_file_name(format!("{stem}.{suffix}"))
    };
    let (forsaken, fresh) = (name("forsaken"), name("fresh"));
    for path in [&forsaken, &fresh] {
        fs::write(path, "x").unwrap();
    }
    let hours_ago = SystemTime::now() - Duration::from_secs(2 * 3_600);
    for path in [&forsaken, &needed[0]] {
        File::options().write(true).open(path).unwrap().set_modified(hours_ago).unwrap();
    }
    admin(&stack, &["run-task", "uploads"]).await.unwrap();
    assert!(!forsaken.exists() && fresh.exists() && needed[0].exists());
    let_go(&mut database).await;
    assert_eq!(ended(&client, held).await["rows_written"], 3);
}
