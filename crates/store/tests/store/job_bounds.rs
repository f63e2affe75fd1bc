//! What the jobs of one user may use: bytes of reports that are read, jobs that are kept, and bytes of uploads; and the end
//! of jobs with their key.

use std::time::Duration;

use chrono::Utc;
use linnet_domain::{
    ApiKeySecret, JobError, JobId, JobState, NewJob, RowCells, UserId, Visibility,
};
use linnet_store::{
    AttemptEnd, ChunkProgress, JobChange, JobClaim, JobLimits, JobRefusal, NewKey, ReportRange,
    Store,
};
use sqlx::PgPool;

use crate::{
    jobs::{ALL_REPORTS, LEASE, LIMITS, REPORTS, claim, new_job, progress},
    support::create_user,
};

async fn create(store: &Store, new: &NewJob, limits: JobLimits) -> Result<JobId, JobRefusal> {
    Ok(store.create_job(new, limits).await.unwrap()?.job.id)
}

async fn state(store: &Store, id: JobId) -> (JobState, Option<String>) {
    let job = store.find_job(id, Visibility::All).await.unwrap().unwrap();
    (job.state, job.error.map(|error| error.code))
}

async fn kill(store: &Store, id: JobId) {
    let run = claim(store, id, "w", LEASE).await;
    let error = JobError { code: "internal".to_owned(), message: String::new() };
    assert!(store.end_attempt(&run, AttemptEnd::Dead, &error).await.unwrap());
}

#[sqlx::test(migrations = "../../migrations")]
async fn must_25_reports_that_are_read_end_at_bytes(pool: PgPool) {
    let store = Store::new(pool);
    let id = create(&store, &new_job(None), LIMITS).await.unwrap();
    let run = claim(&store, id, "w", LEASE).await;
    let cells = vec!["12345"; 1_000];
    let wide = RowCells::from(&cells[..]);
    let bad = (2..52).map(|line| (line, progress(0, 0, &[2], false).bad.remove(0).1, wide.clone()));
    let bad = ChunkProgress { bad: bad.collect(), ..progress(100, 0, &[], true) };
    let chunk = store.begin_chunk(&run, REPORTS).await.unwrap().unwrap();
    chunk.commit(bad, LEASE).await.unwrap();
    // Each report has about 9 KB as PostgreSQL prints it.
    let range = ReportRange { bytes: 64 * 1024, ..ALL_REPORTS };
    let (mut lines, mut after, mut pages) = (Vec::new(), 0, 0);
    loop {
        let page = store.job_reports(id, ReportRange { after, ..range }).await.unwrap();
        let Some(last) = page.reports.last() else { break };
        after = last.event;
        pages += 1;
        let bytes: usize = page.reports.iter().map(|report| report.cells.as_json().len()).sum();
        assert!(bytes <= 64 * 1024, "{bytes}");
        assert_eq!(page.is_cut, lines.len() + page.reports.len() < 50);
        assert_eq!(page.reports[0].cells.to_vec(), cells);
        lines.extend(page.reports.iter().map(|report| report.line));
    }
    assert_eq!(lines, (2..52).collect::<Vec<i64>>(), "none is left out");
    assert!((7..=10).contains(&pages), "{pages}");
    let one = store.job_reports(id, ReportRange { bytes: 1, ..range }).await.unwrap();
    assert_eq!((one.reports.len(), one.is_cut), (1, true), "a page has at least one report");

    let errors = store.job_row_errors(id, 0, 100, i64::MAX).await.unwrap();
    assert_eq!(errors.iter().map(|row| row.line).collect::<Vec<_>>(), lines);
    assert_eq!(store.job_row_errors(id, errors[0].event, 100, 1).await.unwrap(), errors[1..2]);
    assert_eq!(store.job_row_errors(id, 0, 3, i64::MAX).await.unwrap(), errors[..3]);
}

#[sqlx::test(migrations = "../../migrations")]
async fn must_26_finished_jobs_of_a_user_are_bounded(pool: PgPool) {
    let store = Store::new(pool);
    let (ada, bob) = (create_user(&store, "ada").await.id, create_user(&store, "bob").await.id);
    let limits = JobLimits { kept_per_user: 3, ..LIMITS };
    let mut ids = Vec::new();
    for _ in 0..3 {
        let id = create(&store, &new_job(Some(ada)), limits).await.unwrap();
        store.cancel_job(id, Visibility::All).await.unwrap();
        ids.push(id);
    }
    let refused = create(&store, &new_job(Some(ada)), limits).await;
    assert_eq!(refused, Err(JobRefusal::TooManyKept));
    create(&store, &new_job(Some(bob)), limits).await.expect("each user has its own");
    store.discard_job(ids[0], Visibility::All).await.unwrap();
    create(&store, &new_job(Some(ada)), limits).await.unwrap();
}

#[sqlx::test(migrations = "../../migrations")]
async fn must_26_uploads_of_dead_jobs_count_and_replays_obey_the_limits(pool: PgPool) {
    let store = Store::new(pool);
    let ada = create_user(&store, "ada").await.id;
    let limits = JobLimits { bytes_per_user: 250, per_user: 2, ..LIMITS };
    let new = NewJob { upload_bytes: 100, by_admin: true, ..new_job(Some(ada)) };
    let dead = create(&store, &new, limits).await.unwrap();
    kill(&store, dead).await;
    let second = create(&store, &new, limits).await.unwrap();
    let refused = create(&store, &new, limits).await;
    assert_eq!(refused, Err(JobRefusal::TooManyActive), "the upload of the dead job is kept");
    let one = JobLimits { per_user: 1, ..limits };
    for limits in [one, JobLimits { all: 1, ..limits }] {
        let replayed = store.replay_job(dead, Visibility::Owner(ada), None, limits).await.unwrap();
        assert!(matches!(&replayed, JobChange::WrongState(job) if job.is_dead), "{replayed:?}");
    }
    store.cancel_job(second, Visibility::All).await.unwrap();
    let replayed = store.replay_job(dead, Visibility::Owner(ada), None, one).await.unwrap();
    assert!(matches!(replayed, JobChange::Done(_)), "{replayed:?}");
    let run = claim(&store, dead, "w", LEASE).await;
    assert!(!run.by_admin, "a replay has the rights of the caller that replays");
}

async fn create_key(store: &Store, user_id: UserId, maker: Option<&str>) -> String {
    let secret = ApiKeySecret::generate().unwrap();
    let scopes = [linnet_domain::Scope::JobsWrite].into_iter().collect();
    let expires_at = maker.is_none().then(|| Utc::now() + Duration::from_hours(1));
    let new = NewKey { user_id, name: "k", scopes, expires_at, maker, most_living: None };
    store.create_key(&secret, &new).await.unwrap().unwrap();
    secret.id().as_str().to_owned()
}

#[sqlx::test(migrations = "../../migrations")]
async fn must_27_jobs_end_with_the_key_that_created_them(pool: PgPool) {
    let store = Store::new(pool.clone());
    let (ada, bob) = (create_user(&store, "ada").await.id, create_user(&store, "bob").await.id);
    let maker = create_key(&store, ada, None).await;
    let child = create_key(&store, bob, Some(&maker)).await;
    let other = create_key(&store, ada, None).await;
    let of = |user_id, key: &str| NewJob { key_id: Some(key.to_owned()), ..new_job(Some(user_id)) };
    let queued = create(&store, &of(ada, &maker), LIMITS).await.unwrap();
    let of_child = create(&store, &of(bob, &child), LIMITS).await.unwrap();
    let stays = create(&store, &of(ada, &other), LIMITS).await.unwrap();
    let keyless = create(&store, &new_job(Some(ada)), LIMITS).await.unwrap();
    // One that is writing a chunk does not delay the revocation.
    let running = create(&store, &of(ada, &maker), LIMITS).await.unwrap();
    let run = claim(&store, running, "w", LEASE).await;
    let chunk = store.begin_chunk(&run, REPORTS).await.unwrap().unwrap();
    let revoked = store.revoke_key(&maker, Visibility::All);
    let revoked = tokio::time::timeout(Duration::from_secs(5), revoked).await.expect("no wait");
    assert_eq!(revoked.unwrap().len(), 2);
    let ended = (JobState::Cancelled, Some("key_ended".to_owned()));
    assert_eq!(state(&store, queued).await, ended);
    assert_eq!(state(&store, of_child).await, ended);
    chunk.commit(progress(10, 1, &[], false), LEASE).await.unwrap();
    assert_eq!(state(&store, running).await.0, JobState::Running);
    assert!(store.begin_chunk(&run, REPORTS).await.unwrap().is_none(), "no further chunk");
    assert_eq!(state(&store, running).await, ended);
    for id in [stays, keyless] {
        assert_eq!(state(&store, id).await, (JobState::Queued, None));
    }
    let refused = create(&store, &of(ada, &maker), LIMITS).await;
    assert_eq!(refused, Err(JobRefusal::KeyEnded), "a request that was on its way");

    // An expired key ends its jobs as well, at the dispatcher's next search.
    sqlx::query("UPDATE api_keys SET expires_at = now() WHERE id = $1")
        .bind(&other)
        .execute(&pool)
        .await
        .unwrap();
    assert_eq!(store.cancel_jobs_of_ended_keys().await.unwrap(), 1);
    assert_eq!(state(&store, stays).await, ended);
    let claimed = store.claim_job(keyless, "w", LEASE, 10).await.unwrap();
    assert!(matches!(claimed, JobClaim::Claimed(_)), "{claimed:?}");
}

#[sqlx::test(migrations = "../../migrations")]
async fn must_27_job_created_while_its_key_is_revoked_never_stays_active(pool: PgPool) {
    let store = Store::new(pool);
    let ada = create_user(&store, "ada").await.id;
    for _ in 0..20 {
        let key = create_key(&store, ada, None).await;
        let new = NewJob { key_id: Some(key.clone()), ..new_job(Some(ada)) };
        let (created, _) = tokio::join!(
            create(&store, &new, LIMITS),
            store.revoke_key(&key, Visibility::All)
        );
        match created {
            Ok(id) => assert_eq!(state(&store, id).await.0, JobState::Cancelled),
            Err(refusal) => assert_eq!(refusal, JobRefusal::KeyEnded),
        }
    }
}

#[sqlx::test(migrations = "../../migrations")]
async fn must_26_ended_keys_are_bounded_and_deleted_after_some_days(pool: PgPool) {
    let store = Store::new(pool.clone());
    let ada = create_user(&store, "ada").await.id;
    let revoked = create_key(&store, ada, None).await;
    store.revoke_key(&revoked, Visibility::All).await.unwrap();
    let living = create_key(&store, ada, None).await;
    assert_eq!(store.delete_ended_keys(30, 100).await.unwrap(), 0);
    sqlx::query(
        "UPDATE api_keys SET revoked_at = revoked_at - interval '31 days',
                expires_at = CASE WHEN id = $1 THEN expires_at + interval '1 year' END",
    )
    .bind(&living)
    .execute(&pool)
    .await
    .unwrap();
    let expired = create_key(&store, ada, None).await;
    sqlx::query("UPDATE api_keys SET expires_at = now() - interval '31 days' WHERE id = $1")
        .bind(&expired)
        .execute(&pool)
        .await
        .unwrap();
    assert_eq!(store.delete_ended_keys(30, 1).await.unwrap(), 1);
    assert_eq!(store.delete_ended_keys(30, 100).await.unwrap(), 1);
    let left: Vec<String> =
        sqlx::query_scalar("SELECT id FROM api_keys").fetch_all(&pool).await.unwrap();
    assert_eq!(left, [living]);
    // Those that are kept have a bound, so that a loop of creating and revoking fills no disk.
    sqlx::query(
        "INSERT INTO api_keys (id, user_id, name, secret_hash, scopes, revoked_at)
         SELECT 'k' || lpad(n::text, 7, '0'), $1, 'k', decode(repeat('00', 32), 'hex'), '{}', now() FROM generate_series(1, 10000) AS n",
    )
    .bind(ada.get())
    .execute(&pool)
    .await
    .unwrap();
    let secret = ApiKeySecret::generate().unwrap();
    let scopes = [linnet_domain::Scope::UrlsRead].into_iter().collect();
    let new = NewKey {
        user_id: ada,
        name: "k",
        scopes,
        expires_at: None,
        maker: None,
        most_living: Some(50),
    };
    let refused = store.create_key(&secret, &new).await.unwrap().unwrap_err();
    assert_eq!(refused, linnet_store::KeyRefusal::TooManyKept);
}
