//! Maintenance tasks against PostgreSQL: the effect of each task, locks, records and time limits.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking, also in its helpers"
)]
#![expect(clippy::disallowed_methods, reason = "tests do not drop a transaction that begins")]

#[expect(dead_code, reason = "these tests use only some of the helpers")]
#[path = "../../../store/tests/store/support.rs"]
mod support;

use std::time::Duration;

use chrono::{DateTime, Days, Utc};
use linnet_jobs::JobSettings;
use linnet_platform::clock::Clock;
use linnet_store::{Store, StoreError, TaskOutcome};
use linnet_worker::maintenance::{
    LinkSettings, MaintenanceContext, MaintenanceSettings, RunError, TASKS, Task,
};
use sqlx::PgPool;

use crate::support::{count, create, new_link};

/// Generous timeout for steps that normally take milliseconds.
const SOON: Duration = Duration::from_secs(20);

fn context(pool: &PgPool) -> MaintenanceContext {
    let settings = MaintenanceSettings {
        links: LinkSettings::default(),
        jobs: JobSettings::default(),
        click_retention_days: 90,
    };
    MaintenanceContext { store: Store::new(pool.clone()), settings, clock: Clock::System }
}

fn task(name: &str) -> &'static Task {
    Task::find(name).unwrap()
}

/// Runs a task; returns its report.
async fn report_of(context: &MaintenanceContext, name: &str) -> String {
    context.run_now(task(name), Duration::ZERO).await.unwrap().to_string()
}

async fn execute(pool: &PgPool, statement: &'static str) {
    sqlx::raw_sql(statement).execute(pool).await.unwrap();
}

async fn create_expired_link(store: &Store, code: &str, ago: Duration) {
    let expires_at = Some(store.server_time().await.unwrap() - ago);
    let mut new = new_link(Some(code));
    new.attributes.expires_at = expires_at;
    create(store, &new).await;
}

#[sqlx::test(migrations = "../../migrations")]
async fn rows_are_counted_up_to_the_quota_and_old_counts_deleted(pool: PgPool) {
    let options = pool.connect_options().as_ref().clone().options([("linnet.links_per_user", 2)]);
    let mut context = context(&pool);
    context.store = Store::new(pool.clone().options().clone().connect_with(options).await.unwrap());
    execute(
        &pool,
        "INSERT INTO users (id, username, email) SELECT n, 'u', n || '@example.com' FROM generate_series(1, 250) AS n;
         INSERT INTO urls (user_id, short_code, original_url)
         SELECT n % 250 + 1, 'c-' || n, 'https://example.com/' FROM generate_series(0, 253) AS n;
         INSERT INTO urls (user_id, short_code, original_url)
         SELECT 1, 'd-' || n, 'https://example.com/' FROM generate_series(1, 9) AS n;
         INSERT INTO owner_row_counts (owner, kind, rows) VALUES ('user:250', 'links', 2), ('user:999', 'events', 9);",
    )
    .await;
    assert_eq!(report_of(&context, "row-quotas").await, "4 owner(s) at a quota");
    let counts: Vec<(String, i64)> =
        sqlx::query_as("SELECT owner, rows FROM owner_row_counts ORDER BY owner")
            .fetch_all(&pool)
            .await
            .unwrap();
    let expected = ["user:1", "user:2", "user:3", "user:4"].map(|owner| (owner.to_owned(), 2));
    assert_eq!(counts, expected);
    execute(&pool, "DELETE FROM urls WHERE user_id = 1").await;
    assert_eq!(report_of(&context, "row-quotas").await, "3 owner(s) at a quota");
    context.settings.links.per_user = 0;
    context.settings.links.events_per_user = 0;
    context.settings.links.bytes_per_user = 0;
    context.settings.links.event_bytes_per_user = 0;
    assert_eq!(report_of(&context, "row-quotas").await, "0 owner(s) at a quota");
}

#[sqlx::test(migrations = "../../migrations")]
async fn long_expired_links_are_deleted_with_event_and_invalidation(pool: PgPool) {
    let context = context(&pool);
    let days_90 = 90 * 24 * 60;
    create(&context.store, &new_link(Some("forever"))).await;
    create_expired_link(&context.store, "recently", Duration::from_mins(days_90 - 1)).await;
    create_expired_link(&context.store, "long-ago", Duration::from_mins(days_90 + 1)).await;
    let before: i64 =
        sqlx::query_scalar("SELECT max(version) FROM urls").fetch_one(&pool).await.unwrap();
    assert_eq!(report_of(&context, "expired-links").await, "1 link(s) deleted");

    let left: Vec<String> = sqlx::query_scalar("SELECT short_code FROM urls ORDER BY 1")
        .fetch_all(&pool)
        .await
        .unwrap();
    assert_eq!(left, ["forever", "recently"]);
    let events: Vec<(Option<i64>, serde_json::Value)> =
        sqlx::query_as("SELECT user_id, details FROM events WHERE event_type = 'deleted'")
            .fetch_all(&pool)
            .await
            .unwrap();
    let details = serde_json::json!({
        "short_code": "long-ago", "original_url": "https://example.com/", "reason": "expired"});
    assert_eq!(events, [(None, details)]);
    let pending = context.store.pending_invalidations(Duration::ZERO, 10).await.unwrap();
    let [only] = pending.as_slice() else { panic!("{pending:?}") };
    assert_eq!(only.subject, "long-ago");
    assert!(only.version > before, "newer than any cached entry");

    assert_eq!(report_of(&context, "expired-links").await, "0 link(s) deleted");
}

#[sqlx::test(migrations = "../../migrations")]
async fn expired_links_are_kept_at_zero_days(pool: PgPool) {
    let mut context = context(&pool);
    create_expired_link(&context.store, "old", Duration::from_hours(24 * 1_000)).await;
    context.settings.links.delete_expired_after_days = 0;
    assert_eq!(report_of(&context, "expired-links").await, "nothing to do");
    assert_eq!(count(&pool, "SELECT count(*) FROM urls").await, 1);
}

#[sqlx::test(migrations = "../../migrations")]
async fn expired_links_are_deleted_in_batches_that_skip_locked_rows(pool: PgPool) {
    let store = Store::new(pool.clone());
    for (code, hours) in [("first", 5_000), ("second", 4_000), ("third", 3_000)] {
        create_expired_link(&store, code, Duration::from_hours(hours)).await;
    }
    let mut edit = pool.begin().await.unwrap();
    sqlx::raw_sql("SELECT FROM urls WHERE short_code = 'first' FOR UPDATE")
        .execute(&mut *edit)
        .await
        .unwrap();
    assert_eq!(store.delete_expired_links(90, 1).await.unwrap(), 1);
    let left = "SELECT string_agg(short_code, ' ' ORDER BY id) FROM urls";
    let text: String = sqlx::query_scalar(left).fetch_one(&pool).await.unwrap();
    assert_eq!(text, "first third", "one link, and not the locked one");
    sqlx::raw_sql("UPDATE urls SET expires_at = NULL WHERE short_code = 'first'")
        .execute(&mut *edit)
        .await
        .unwrap();
    edit.commit().await.unwrap();
    assert_eq!(store.delete_expired_links(90, 10).await.unwrap(), 1);
    assert_eq!(store.delete_expired_links(90, 10).await.unwrap(), 0);
    let text: String = sqlx::query_scalar(left).fetch_one(&pool).await.unwrap();
    assert_eq!(text, "first", "its expiry was removed before the run");
}

#[sqlx::test(migrations = "../../migrations")]
async fn expired_links_are_found_by_an_index(pool: PgPool) {
    execute(
        &pool,
        "INSERT INTO urls (short_code, original_url, expires_at)
         SELECT 'code' || n, 'https://example.com/',
                CASE WHEN n % 100 = 0 THEN now() - make_interval(days => n / 100) END
           FROM generate_series(1, 20000) AS n;
         ANALYZE urls",
    )
    .await;
    let plan: Vec<String> = sqlx::query_scalar(
        "EXPLAIN SELECT id FROM urls WHERE expires_at < now() - make_interval(days => 90)
          ORDER BY expires_at LIMIT 1000 FOR UPDATE SKIP LOCKED",
    )
    .fetch_all(&pool)
    .await
    .unwrap();
    let plan = plan.join("\n");
    assert!(plan.contains("urls_expires_at_idx") && !plan.contains("Seq Scan"), "{plan}");
}

#[sqlx::test(migrations = "../../migrations")]
async fn partitions_are_created_in_advance_and_old_ones_dropped(pool: PgPool) {
    let mut context = context(&pool);
    assert_eq!(report_of(&context, "click-partitions").await, "4 partition(s) created");
    assert_eq!(report_of(&context, "click-partitions").await, "0 partition(s) created");
    let today = context.store.server_time().await.unwrap().date_naive();
    for days in [9, 10, 11] {
        assert!(context.store.ensure_partition(today - Days::new(days)).await.unwrap());
    }
    context.settings.click_retention_days = 10;
    assert_eq!(report_of(&context, "click-retention").await, "1 partition(s) dropped");
    assert_eq!(report_of(&context, "click-retention").await, "0 partition(s) dropped");
    let partitions = "SELECT count(*) FROM pg_inherits WHERE inhparent = 'raw_clicks'::regclass";
    assert_eq!(count(&pool, partitions).await, 6);
}

#[sqlx::test(migrations = "../../migrations")]
async fn old_visitor_keys_batch_ids_and_responses_are_deleted(pool: PgPool) {
    let context = context(&pool);
    execute(
        &pool,
        "INSERT INTO visitor_keys (day, key)
         SELECT (now() AT TIME ZONE 'UTC')::date - n, decode(repeat('00', 16), 'hex')
           FROM generate_series(-1, 3) AS n;
         INSERT INTO click_batches (id, ingested_at)
         SELECT decode(md5(n::text), 'hex'), now() - interval '7 days' + interval '1 minute' * (n - 2)
           FROM generate_series(0, 3) AS n;
         INSERT INTO idempotency_keys (owner, key, request_hash, status, body, created_at)
         SELECT 'user:1', n::text, '', 201, '',
                now() - CASE WHEN n <= 20001 THEN interval '24 hours 1 minute' ELSE interval '23 hours' END
           FROM generate_series(1, 20003) AS n",
    )
    .await;
    assert_eq!(report_of(&context, "visitor-keys").await, "2 key(s) deleted");
    assert_eq!(count(&pool, "SELECT count(*) FROM visitor_keys").await, 3, "yesterday to tomorrow");
    // Four ids are from two minutes before to one minute after seven days ago.
    assert_eq!(report_of(&context, "click-batches").await, "3 batch id(s) deleted");
    assert_eq!(report_of(&context, "idempotency-keys").await, "20001 response(s) deleted");
    assert_eq!(count(&pool, "SELECT count(*) FROM idempotency_keys").await, 2);
}

#[sqlx::test(migrations = "../../migrations")]
async fn ended_months_are_folded(pool: PgPool) {
    let context = context(&pool);
    execute(
        &pool,
        "INSERT INTO click_days (subject, day, clicks) VALUES (0, '2025-01-15', 3);
         INSERT INTO click_days_by_value (subject, day, value_id, clicks)
         VALUES (0, '2025-01-15', 1, 2), (0, '2025-01-16', 1, 1)",
    )
    .await;
    let first = report_of(&context, "click-months").await;
    let months: i64 = first.strip_suffix(" month(s) folded").unwrap().parse().unwrap();
    assert!(months > 20, "{first}");
    assert_eq!(count(&pool, "SELECT count(*) FROM click_months").await, months);
    let folded = "SELECT clicks FROM click_months_by_value WHERE month = '2025-01-01'";
    assert_eq!(count(&pool, folded).await, 3);
    assert_eq!(report_of(&context, "click-months").await, "0 month(s) folded");
}

#[derive(Debug, sqlx::FromRow)]
struct Run {
    started_at: DateTime<Utc>,
    finished_at: Option<DateTime<Utc>>,
    outcome: Option<String>,
    error: Option<String>,
    succeeded_at: Option<DateTime<Utc>>,
    failures: i32,
}

async fn run_of(pool: &PgPool, task: &str) -> Run {
    let query = sqlx::query_as("SELECT * FROM maintenance_runs WHERE task = $1").bind(task);
    query.fetch_one(pool).await.unwrap()
}

#[sqlx::test(migrations = "../../migrations")]
async fn every_task_succeeds_in_an_empty_database_and_is_recorded(pool: PgPool) {
    let context = context(&pool);
    for task in &TASKS {
        context.run_now(task, Duration::ZERO).await.unwrap();
        let run = run_of(&pool, task.name).await;
        assert_eq!(run.outcome.as_deref(), Some("succeeded"), "{}", task.name);
        assert_eq!(run.succeeded_at, Some(run.started_at));
        assert!(run.finished_at.unwrap() >= run.started_at);
        assert_eq!((run.error, run.failures), (None, 0));
    }
    let records = context.store.task_records().await.unwrap();
    assert_eq!(records.len(), TASKS.len());
    assert!(records.iter().all(|record| record.since_success.unwrap() < SOON));
}

#[sqlx::test(migrations = "../../migrations")]
async fn failure_is_recorded_and_affects_no_other_task(pool: PgPool) {
    let context = context(&pool);
    report_of(&context, "idempotency-keys").await;
    let before = run_of(&pool, "idempotency-keys").await;
    execute(&pool, "DROP TABLE idempotency_keys").await;
    for failures in 1..=2 {
        let failed = context.run_now(task("idempotency-keys"), Duration::ZERO).await;
        assert!(matches!(failed, Err(RunError::Store(StoreError::Failed(_)))), "{failed:?}");
        let run = run_of(&pool, "idempotency-keys").await;
        assert_eq!(run.outcome.as_deref(), Some("failed"));
        assert!(run.error.unwrap().contains("idempotency_keys"), "the record names the cause");
        assert_eq!((run.failures, run.succeeded_at), (failures, before.succeeded_at));
    }
    assert_eq!(report_of(&context, "expired-links").await, "0 link(s) deleted");
}

#[sqlx::test(migrations = "../../migrations")]
async fn run_beyond_its_time_limit_is_cancelled(pool: PgPool) {
    let context = context(&pool);
    let mut short = task("idempotency-keys").clone();
    short.timeout = Duration::from_millis(200);
    let mut blocker = pool.begin().await.unwrap();
    sqlx::raw_sql("LOCK TABLE idempotency_keys").execute(&mut *blocker).await.unwrap();
    let late = context.run_now(&short, Duration::ZERO).await;
    assert!(matches!(late, Err(RunError::TimedOut(_))), "{late:?}");
    let run = run_of(&pool, short.name).await;
    assert_eq!((run.outcome.as_deref(), run.failures), (Some("timed_out"), 1));
    blocker.rollback().await.unwrap();
    assert_eq!(report_of(&context, short.name).await, "0 response(s) deleted");
    assert_eq!(run_of(&pool, short.name).await.failures, 0);
}

#[sqlx::test(migrations = "../../migrations")]
async fn task_runs_once_at_a_time(pool: PgPool) {
    let context = context(&pool);
    let (name, long) = ("expired-links", Duration::from_mins(1));
    let mut holder = context.store.task_session(name, long).await.unwrap();
    assert!(holder.holder().await.unwrap().is_none());
    assert!(holder.try_lock().await.unwrap());
    let refused = context.run_now(task(name), Duration::from_millis(300)).await.unwrap_err();
    let RunError::RunsElsewhere(Some(found)) = &refused else { panic!("{refused:?}") };
    let pid = count(
        &pool,
        "SELECT pid::bigint FROM pg_stat_activity
          WHERE datname = current_database() AND application_name = 'linnet-maintenance'
            AND query LIKE '%pg_try_advisory_lock%' ORDER BY backend_start LIMIT 1",
    );
    assert_eq!(i64::from(found.session), pid.await);
    assert!(refused.to_string().contains(&format!("session {}", found.session)), "{refused}");
    assert_eq!(
        count(&pool, "SELECT count(*) FROM maintenance_runs").await,
        0,
        "a run without the lock is not recorded"
    );
    report_of(&context, "idempotency-keys").await;

    // A run that waits for the lock starts once the lock is released.
    let (waited, ()) = tokio::join!(context.run_now(task(name), SOON), holder.close());
    assert_eq!(waited.unwrap().to_string(), "0 link(s) deleted");
}

#[sqlx::test(migrations = "../../migrations")]
async fn lock_ends_with_its_session_and_the_unfinished_run_counts_as_failed(pool: PgPool) {
    let context = context(&pool);
    let name = "expired-links";
    let mut session = context.store.task_session(name, Duration::from_mins(1)).await.unwrap();
    assert!(session.try_lock().await.unwrap());
    session.begin().await.unwrap();
    let record = session.record().await.unwrap().unwrap();
    assert_eq!((record.failures, record.since_success), (1, None));
    assert!(record.since_attempt.unwrap() < SOON);
    drop(session);
    let run = run_of(&pool, name).await;
    assert_eq!((run.outcome, run.finished_at, run.failures), (None, None, 1));
    assert_eq!(context.run_now(task(name), SOON).await.unwrap().to_string(), "0 link(s) deleted");
}

#[sqlx::test(migrations = "../../migrations")]
async fn run_cancelled_by_shutdown_does_not_count_as_failure(pool: PgPool) {
    let store = Store::new(pool.clone());
    let name = "expired-links";
    let mut session = store.task_session(name, Duration::from_mins(1)).await.unwrap();
    assert!(session.try_lock().await.unwrap());
    session.begin().await.unwrap();
    session.finish(TaskOutcome::Stopped, Some("the process stops")).await.unwrap();
    let run = run_of(&pool, name).await;
    assert_eq!((run.outcome.as_deref(), run.failures), (Some("stopped"), 0));
    assert_eq!(run.succeeded_at, None);
}

#[sqlx::test(migrations = "../../migrations")]
async fn uploads_in_the_database_that_no_job_needs_are_removed(pool: PgPool) {
    let mut context = context(&pool);
    context.settings.jobs.upload_dir = "/proc/no-directory".into();
    execute(
        &pool,
        "INSERT INTO uploads (content_bytes, stored_bytes, state, changed_at)
         SELECT 10, 1, state, now() - make_interval(mins => n)
           FROM (VALUES (59, 'kept'), (61, 'kept'), (61, 'kept'), (61, 'kept'), (61, 'kept'),
                        (4, 'receiving'), (6, 'receiving'), (6, 'receiving'), (0, 'removed')) AS upload (n, state);
         INSERT INTO upload_pieces SELECT id, 0, '' FROM uploads;
         INSERT INTO removed_upload_bytes VALUES (1, now() - interval '3 hours', 1);
         INSERT INTO jobs (kind, by_admin, format, on_conflict, dry_run, upload, upload_bytes, is_large,
                           state, dead_at)
         VALUES ('import_urls', true, 'csv', 'fail', false, 'postgres:2', 1, false, 'queued', NULL),
                ('import_urls', true, 'csv', 'fail', false, 'postgres:3', 1, false, 'failed', now()),
                ('import_urls', true, 'csv', 'fail', false, 'postgres:4', 1, false, 'cancelled', NULL),
                ('import_urls', true, 'csv', 'fail', false, 'postgres:7', 1, false, 'queued', NULL)",
    )
    .await;
    assert_eq!(report_of(&context, "uploads").await, "4 upload(s) removed");
    let left: Vec<i64> = sqlx::query_scalar("SELECT upload_id FROM upload_pieces ORDER BY 1")
        .fetch_all(&pool)
        .await
        .unwrap();
    assert_eq!(left, [1, 2, 3, 6, 7], "young ones, and those of queued and of dead jobs");
    let counted: Vec<(Option<i64>, i64)> =
        sqlx::query_as("SELECT user_id, stored_bytes FROM removed_upload_bytes")
            .fetch_all(&pool)
            .await
            .unwrap();
    assert_eq!(counted, [(None, 4)]);
    assert_eq!(report_of(&context, "uploads").await, "0 upload(s) removed");
}
