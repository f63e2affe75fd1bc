use std::{collections::HashSet, time::Duration};

use linnet_domain::{
    Job, JobError, JobId, JobKind, JobState, Lane, NewJob, OnConflict, RowCells, RowFormat,
    RowProblem, UploadName, UserId, Visibility,
};
use linnet_store::{
    AttemptEnd, ChunkProgress, JobChange, JobClaim, JobLimits, JobRun, ReportLimits, ReportRange,
    Store,
};
use sqlx::PgPool;

use crate::support::{count, create_user};

pub(crate) const LIMITS: JobLimits = JobLimits {
    kept_per_user: NO_LIMIT,
    all: 1_000,
    per_user: 1_000,
    bytes_per_user: i64::MAX,
    running_per_user: NO_LIMIT,
};
pub(crate) const LEASE: Duration = Duration::from_mins(10);
/// A lease that has expired.
const NO_LEASE: Duration = Duration::ZERO;
const NO_LIMIT: i64 = 1_000;
pub(crate) const ALL_REPORTS: ReportRange =
    ReportRange { after: 0, limit: 100, offset: 0, bytes: i64::MAX };
pub(crate) const REPORTS: ReportLimits = ReportLimits { per_job: 100, bytes_per_user: i64::MAX };

pub(crate) fn new_job(user_id: Option<UserId>) -> NewJob {
    NewJob {
        kind: JobKind::ImportUrls,
        user_id,
        key_id: None,
        by_admin: false,
        format: RowFormat::Csv,
        on_conflict: OnConflict::Fail,
        dry_run: false,
        upload: UploadName::File("file.rows".to_owned()),
        upload_bytes: 1_000,
        is_large: false,
        columns: vec!["original_url".to_owned()],
        unknown_columns: vec![],
        null_columns: vec!["title".to_owned()],
    }
}

async fn create(store: &Store, user_id: Option<UserId>) -> JobId {
    store.create_job(&new_job(user_id), LIMITS).await.unwrap().expect("room for a job").job.id
}

pub(crate) async fn claim(store: &Store, id: JobId, worker: &str, lease: Duration) -> Box<JobRun> {
    match store.claim_job(id, worker, lease, NO_LIMIT).await.unwrap() {
        JobClaim::Claimed(run) => run,
        other => panic!("not claimed: {other:?}"),
    }
}

async fn job(store: &Store, id: JobId) -> Job {
    store.find_job(id, Visibility::All).await.unwrap().expect("a job")
}

fn lanes(due: Vec<(JobId, Lane)>) -> HashSet<JobId> {
    due.into_iter().map(|(id, _)| id).collect()
}

/// Jobs are announced when they are created. This marks them as not announced.
async fn reset_announcements(pool: &PgPool) {
    sqlx::query("UPDATE jobs SET announced_at = NULL").execute(pool).await.unwrap();
}

pub(crate) fn progress(to: i64, written: i64, bad: &[i64], is_last: bool) -> ChunkProgress {
    let problem = || RowProblem {
        column: "original_url".to_owned(),
        code: "invalid".to_owned(),
        message: "is bad".to_owned(),
    };
    ChunkProgress {
        offset: to,
        line: to / 10,
        written,
        bad: bad
            .iter()
            .map(|line| (*line, vec![problem()], RowCells::from(&["cell"][..])))
            .collect(),
        is_last,
        ..ChunkProgress::default()
    }
}

async fn write_a_link(connection: &mut sqlx::PgConnection, code: &str) {
    sqlx::query("INSERT INTO urls (short_code, original_url) VALUES ($1, 'https://example.com/')")
        .bind(code)
        .execute(connection)
        .await
        .unwrap();
}

fn error() -> JobError {
    JobError { code: "internal".to_owned(), message: "went wrong".to_owned() }
}

#[sqlx::test(migrations = "../../migrations")]
async fn concurrent_claims_respect_the_limit_of_an_owner(pool: PgPool) {
    let store = Store::new(pool.clone());
    let ada = create_user(&store, "ada").await.id;
    let mut ids = Vec::new();
    for _ in 0..10 {
        ids.push(create(&store, Some(ada)).await);
    }
    let claims = ids.iter().map(|id| {
        let (store, id) = (store.clone(), *id);
        tokio::spawn(async move {
            store.claim_job(id, &format!("worker-{id}"), LEASE, 3).await.unwrap()
        })
    });
    let (mut running, mut later) = (0, 0);
    for claim in claims.collect::<Vec<_>>() {
        match claim.await.unwrap() {
            JobClaim::Claimed(_) => running += 1,
            JobClaim::NotYet => later += 1,
            JobClaim::NotClaimable => panic!("the job is queued"),
        }
    }
    assert_eq!((running, later), (3, 7));
    assert_eq!(count(&pool, "SELECT count(*) FROM jobs WHERE state = 'running'").await, 3);
    // Jobs without an owner count together, and not with those of a user.
    let without_owner = [create(&store, None).await, create(&store, None).await];
    let claimed = store.claim_job(without_owner[0], "w", LEASE, 1).await.unwrap();
    assert!(matches!(claimed, JobClaim::Claimed(_)), "{claimed:?}");
    let claimed = store.claim_job(without_owner[1], "w", LEASE, 1).await.unwrap();
    assert!(matches!(claimed, JobClaim::NotYet), "{claimed:?}");
    // Jobs above the limit are not due.
    let due = lanes(store.due_jobs(3, LEASE).await.unwrap());
    assert_eq!(due, HashSet::from([without_owner[1]]));
    let due = store.due_jobs(5, LEASE).await.unwrap();
    assert_eq!(due.len(), 2, "{due:?}");
    assert!(store.due_jobs(5, LEASE).await.unwrap().is_empty(), "each job is announced once");
}

#[sqlx::test(migrations = "../../migrations")]
async fn one_of_many_concurrent_claims_gets_the_job(pool: PgPool) {
    let store = Store::new(pool);
    let id = create(&store, None).await;
    let claims = (0..10).map(|n| {
        let store = store.clone();
        tokio::spawn(async move {
            store.claim_job(id, &format!("worker-{n}"), LEASE, NO_LIMIT).await.unwrap()
        })
    });
    let mut running = 0;
    for claim in claims.collect::<Vec<_>>() {
        running += i32::from(matches!(claim.await.unwrap(), JobClaim::Claimed(_)));
    }
    assert_eq!(running, 1);
    assert_eq!(job(&store, id).await.attempts, 1);
}

#[sqlx::test(migrations = "../../migrations")]
async fn a_job_with_an_expired_lease_is_reassigned_and_its_former_worker_writes_nothing(
    pool: PgPool,
) {
    let store = Store::new(pool.clone());
    let id = create(&store, None).await;
    let former = claim(&store, id, "former", NO_LEASE).await;
    assert_eq!((former.resume_offset, former.resume_line), (0, 0));
    let mut chunk =
        store.begin_chunk(&former, REPORTS).await.unwrap().expect("the job belongs to the worker");
    write_a_link(chunk.connection(), "first").await;
    chunk.commit(progress(100, 1, &[3], false), NO_LEASE).await.unwrap();

    assert_eq!(lanes(store.due_jobs(1, LEASE).await.unwrap()), HashSet::from([id]), "due at once");
    assert!(
        store.due_jobs(1, LEASE).await.unwrap().is_empty(),
        "not due again before the interval"
    );
    assert_eq!(
        store.due_jobs(1, Duration::ZERO).await.unwrap().len(),
        1,
        "due again after the interval"
    );
    let successor = claim(&store, id, "successor", LEASE).await;
    assert_eq!((successor.resume_offset, successor.resume_line, successor.attempts), (100, 10, 1));
    let taken = store.claim_job(id, "third", LEASE, NO_LIMIT).await.unwrap();
    assert!(matches!(taken, JobClaim::NotClaimable), "{taken:?}");

    assert!(store.begin_chunk(&former, REPORTS).await.unwrap().is_none());
    assert!(!store.renew_job_lease(&former, LEASE).await.unwrap());
    assert!(!store.end_attempt(&former, AttemptEnd::Dead, &error()).await.unwrap());
    store.release_job(&former).await.unwrap();
    let seen = job(&store, id).await;
    assert_eq!((seen.state, seen.rows_read, seen.is_dead), (JobState::Running, 2, false));

    // A chunk that began in time delays another claim until it commits, and then renews the lease.
    assert!(store.renew_job_lease(&successor, NO_LEASE).await.unwrap());
    let mut slow = store
        .begin_chunk(&successor, REPORTS)
        .await
        .unwrap()
        .expect("the job belongs to the worker");
    write_a_link(slow.connection(), "second").await;
    let waiting = tokio::spawn({
        let store = store.clone();
        async move { store.claim_job(id, "next", LEASE, NO_LIMIT).await.unwrap() }
    });
    slow.commit(progress(200, 1, &[], false), LEASE).await.unwrap();
    let claimed = waiting.await.unwrap();
    match claimed {
        JobClaim::NotClaimable => {
            assert!(store.begin_chunk(&successor, REPORTS).await.unwrap().is_some());
        }
        other => panic!("the commit renewed the lease: {other:?}"),
    }
    assert_eq!(count(&pool, "SELECT count(*) FROM urls").await, 2);
    assert_eq!(count(&pool, "SELECT count(*) FROM job_row_errors").await, 1);
}

#[sqlx::test(migrations = "../../migrations")]
async fn a_dropped_chunk_is_rolled_back(pool: PgPool) {
    let store = Store::new(pool.clone());
    let id = create(&store, None).await;
    let run = claim(&store, id, "w", LEASE).await;
    let mut chunk =
        store.begin_chunk(&run, REPORTS).await.unwrap().expect("the job belongs to the worker");
    assert_eq!(chunk.reached(), (0, 0));
    write_a_link(chunk.connection(), "gone").await;
    drop(chunk);
    let mut chunk =
        store.begin_chunk(&run, REPORTS).await.unwrap().expect("the job belongs to the worker");
    write_a_link(chunk.connection(), "gone").await;
    chunk.commit(progress(50, 1, &[], false), LEASE).await.unwrap();
    let chunk =
        store.begin_chunk(&run, REPORTS).await.unwrap().expect("the job belongs to the worker");
    assert_eq!(chunk.reached(), (50, 5));
    assert_eq!(count(&pool, "SELECT count(*) FROM urls").await, 1);
}

#[sqlx::test(migrations = "../../migrations")]
async fn bad_rows_have_consecutive_event_numbers_up_to_the_limit_of_reports(pool: PgPool) {
    let store = Store::new(pool);
    let id = create(&store, None).await;
    let run = claim(&store, id, "w", LEASE).await;
    let begun = job(&store, id).await.last_event;
    let four = ReportLimits { per_job: 4, ..REPORTS };
    let chunk =
        store.begin_chunk(&run, four).await.unwrap().expect("the job belongs to the worker");
    chunk.commit(progress(100, 0, &[2, 3, 4], false), LEASE).await.unwrap();
    let chunk =
        store.begin_chunk(&run, four).await.unwrap().expect("the job belongs to the worker");
    chunk.commit(progress(200, 0, &[5, 6, 7], true), LEASE).await.unwrap();
    let ended = job(&store, id).await;
    assert_eq!((ended.state, ended.rows_failed), (JobState::Succeeded, 6));
    let reports = store.job_reports(id, ALL_REPORTS).await.unwrap().reports;
    let reported: Vec<(i64, i64)> = reports.iter().map(|r| (r.event - begun, r.line)).collect();
    assert_eq!(reported, [(1, 2), (2, 3), (3, 4), (5, 5)], "the first chunk has number 4");
    assert_eq!(ended.last_event - begun, 6);
    assert!(store.job_has_succeeded(id).await.unwrap());
    assert!(!store.job_needs_upload(id).await.unwrap());
}

#[sqlx::test(migrations = "../../migrations")]
async fn a_failed_attempt_is_retried_or_dead_or_refused(pool: PgPool) {
    let store = Store::new(pool.clone());
    let id = create(&store, None).await;
    let run = claim(&store, id, "w", LEASE).await;
    assert!(store.end_attempt(&run, AttemptEnd::Retry(LEASE), &error()).await.unwrap());
    let waiting = job(&store, id).await;
    assert_eq!((waiting.state, waiting.attempts), (JobState::Queued, 1));
    assert_eq!(waiting.error, Some(error()));
    // The job waits for its retry.
    assert!(store.due_jobs(NO_LIMIT, LEASE).await.unwrap().is_empty());
    let claimed = store.claim_job(id, "w", LEASE, NO_LIMIT).await.unwrap();
    assert!(matches!(claimed, JobClaim::NotYet), "{claimed:?}");
    sqlx::query("UPDATE jobs SET run_after = now()").execute(&pool).await.unwrap();
    assert_eq!(store.due_jobs(NO_LIMIT, LEASE).await.unwrap().len(), 1);

    let run = claim(&store, id, "w", LEASE).await;
    assert_eq!(run.attempts, 2);
    let chunk =
        store.begin_chunk(&run, REPORTS).await.unwrap().expect("the job belongs to the worker");
    chunk.commit(progress(70, 7, &[], false), LEASE).await.unwrap();
    assert_eq!(job(&store, id).await.attempts, 0, "progress resets the attempts");
    assert!(store.end_attempt(&run, AttemptEnd::Dead, &error()).await.unwrap());
    let dead = job(&store, id).await;
    assert_eq!((dead.state, dead.is_dead, dead.rows_read), (JobState::Failed, true, 7));
    assert!(store.job_needs_upload(id).await.unwrap(), "a dead job may be replayed");
    assert!(store.due_jobs(NO_LIMIT, LEASE).await.unwrap().is_empty());

    let stranger = create_user(&store, "stranger").await.id;
    assert_eq!(
        store.replay_job(id, Visibility::Owner(stranger), None, LIMITS).await.unwrap(),
        JobChange::NotFound
    );
    let JobChange::Done(replayed) =
        store.replay_job(id, Visibility::All, None, LIMITS).await.unwrap()
    else {
        panic!("the job is dead")
    };
    assert_eq!((replayed.state, replayed.is_dead), (JobState::Queued, false));
    assert_eq!(store.due_jobs(1, LEASE).await.unwrap(), [(id, Lane::Small)]);
    assert_eq!((replayed.error, replayed.rows_read), (None, 7));
    assert!(matches!(
        store.replay_job(id, Visibility::All, None, LIMITS).await.unwrap(),
        JobChange::WrongState(_)
    ));
    let run = claim(&store, id, "w", LEASE).await;
    assert_eq!((run.resume_offset, run.attempts), (70, 1));
    assert!(store.end_attempt(&run, AttemptEnd::Refused, &error()).await.unwrap());
    let refused = job(&store, id).await;
    assert_eq!((refused.state, refused.is_dead), (JobState::Failed, false));
    assert!(!store.job_needs_upload(id).await.unwrap());
    assert!(matches!(
        store.replay_job(id, Visibility::All, None, LIMITS).await.unwrap(),
        JobChange::WrongState(_)
    ));
}

#[sqlx::test(migrations = "../../migrations")]
async fn must_16_only_the_owner_cancels_a_job_and_its_worker_loses_it(pool: PgPool) {
    let store = Store::new(pool.clone());
    let ada = create_user(&store, "ada").await.id;
    let bob = create_user(&store, "bob").await.id;
    let id = create(&store, Some(ada)).await;
    let run = claim(&store, id, "w", LEASE).await;
    assert_eq!(store.cancel_job(id, Visibility::Owner(bob)).await.unwrap(), JobChange::NotFound);
    assert_eq!(store.discard_job(id, Visibility::Owner(bob)).await.unwrap(), JobChange::NotFound);
    assert!(store.find_job(id, Visibility::Owner(bob)).await.unwrap().is_none());
    let discarded = store.discard_job(id, Visibility::Owner(ada)).await.unwrap();
    assert!(
        matches!(discarded, JobChange::WrongState(_)),
        "a running job cannot be discarded: {discarded:?}"
    );
    let JobChange::Done((cancelled, _)) =
        store.cancel_job(id, Visibility::Owner(ada)).await.unwrap()
    else {
        panic!("the job is hers")
    };
    assert_eq!(cancelled.state, JobState::Cancelled);
    assert!(store.begin_chunk(&run, REPORTS).await.unwrap().is_none());
    assert!(!store.end_attempt(&run, AttemptEnd::Dead, &error()).await.unwrap());
    let claimed = store.claim_job(id, "w", LEASE, NO_LIMIT).await.unwrap();
    assert!(matches!(claimed, JobClaim::NotClaimable), "{claimed:?}");
    assert!(matches!(
        store.cancel_job(id, Visibility::All).await.unwrap(),
        JobChange::WrongState(_)
    ));
    let discarded = store.discard_job(id, Visibility::Owner(ada)).await.unwrap();
    assert_eq!(discarded, JobChange::Done(UploadName::File("file.rows".to_owned())));
    assert_eq!(count(&pool, "SELECT count(*) FROM jobs").await, 0);
}

#[sqlx::test(migrations = "../../migrations")]
async fn a_released_job_is_due_at_once_and_the_attempt_does_not_count(pool: PgPool) {
    let store = Store::new(pool);
    let id = create(&store, None).await;
    let run = claim(&store, id, "w", LEASE).await;
    store.release_job(&run).await.unwrap();
    let seen = job(&store, id).await;
    assert_eq!((seen.state, seen.attempts), (JobState::Queued, 0));
    assert_eq!(store.due_jobs(NO_LIMIT, LEASE).await.unwrap().len(), 1);
    assert!(store.begin_chunk(&run, REPORTS).await.unwrap().is_none());
}

#[sqlx::test(migrations = "../../migrations")]
async fn lost_announcements_are_counted_and_reset(pool: PgPool) {
    let store = Store::new(pool.clone());
    let ids = [create(&store, None).await, create(&store, None).await];
    assert_eq!(
        store.count_unclaimed_announcements(LEASE).await.unwrap(),
        0,
        "the announcements are too young"
    );
    assert_eq!(store.count_unclaimed_announcements(Duration::ZERO).await.unwrap(), 2);
    assert!(store.due_jobs(NO_LIMIT, LEASE).await.unwrap().is_empty(), "the jobs are announced");
    assert_eq!(store.reset_announcements(Duration::ZERO).await.unwrap(), 2);
    assert_eq!(lanes(store.due_jobs(NO_LIMIT, LEASE).await.unwrap()), HashSet::from(ids));
    // With a limit of one, the oldest job is due.
    reset_announcements(&pool).await;
    assert_eq!(lanes(store.due_jobs(1, LEASE).await.unwrap()), HashSet::from([ids[0]]));
}
