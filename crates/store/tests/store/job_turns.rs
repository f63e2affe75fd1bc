//! Owners take turns: many jobs of one owner do not delay another owner's job.

use linnet_domain::{JobId, Lane, UserId, Visibility};
use linnet_store::{AttemptEnd, CreatedJob, JobClaim, JobLimits, ReportLimits, Store};
use sqlx::PgPool;

use crate::{
    jobs::{ALL_REPORTS, LEASE, LIMITS, REPORTS, claim, new_job, progress},
    support::create_user,
};

const PER_USER: i64 = 2;

/// The queue of one lane in Redis: notices in the order of their arrival.
#[derive(Default)]
struct Notices(Vec<JobId>);

impl Notices {
    /// Creates a job, and publishes its notice if it is announced.
    async fn create(&mut self, store: &Store, user_id: Option<UserId>, is_large: bool) -> JobId {
        let new = linnet_domain::NewJob { is_large, ..new_job(user_id) };
        let limits = JobLimits { running_per_user: PER_USER, ..LIMITS };
        let CreatedJob { job, is_announced } =
            store.create_job(&new, limits).await.unwrap().expect("room for a job");
        if is_announced {
            self.0.push(job.id);
        }
        job.id
    }

    async fn dispatch(&mut self, store: &Store) {
        self.0.extend(store.due_jobs(PER_USER, LEASE).await.unwrap().into_iter().map(|(id, _)| id));
    }

    /// Runs the job of the oldest notice to its end, as a worker with one lane does. `None` without a notice.
    async fn run_next(&mut self, store: &Store) -> Option<JobId> {
        if self.0.is_empty() {
            return None;
        }
        let id = self.0.remove(0);
        match store.claim_job(id, "worker", LEASE, PER_USER).await.unwrap() {
            JobClaim::Claimed(run) => {
                let error = linnet_domain::JobError { code: String::new(), message: String::new() };
                assert!(store.end_attempt(&run, AttemptEnd::Refused, &error).await.unwrap());
            }
            other => panic!("job {id}: {other:?}"),
        }
        self.dispatch(store).await;
        Some(id)
    }
}

#[sqlx::test(migrations = "../../migrations")]
async fn must_26_hundred_queued_jobs_of_one_user_do_not_delay_one_of_another(pool: PgPool) {
    let store = Store::new(pool.clone());
    let ada = create_user(&store, "ada").await.id;
    let mut notices = Notices::default();
    let mut hers = Vec::new();
    for _ in 0..100 {
        hers.push(notices.create(&store, Some(ada), false).await);
    }
    // All jobs without an owner count as the jobs of one more user.
    let mut others = Vec::new();
    for name in ["bob", "eve"] {
        let user = create_user(&store, name).await.id;
        others.push(notices.create(&store, Some(user), false).await);
    }
    others.push(notices.create(&store, None, false).await);
    let mut order = Vec::new();
    while let Some(id) = notices.run_next(&store).await {
        order.push(id);
    }
    assert_eq!(order.len(), 103, "every job runs");
    for id in others {
        let place = order.iter().position(|other| *other == id).unwrap();
        assert!(place < 6, "job {id} ran as number {place}");
        order.remove(place);
    }
    assert_eq!(order, hers, "her own jobs run in order");
}

#[sqlx::test(migrations = "../../migrations")]
async fn must_26_owners_take_turns_after_redis_has_lost_all_notices(pool: PgPool) {
    let store = Store::new(pool.clone());
    let mut of_user = Vec::new();
    for name in ["ada", "bob", "eve"] {
        let user = create_user(&store, name).await.id;
        let mut ids = Vec::new();
        for _ in 0..20 {
            ids.push(Notices::default().create(&store, Some(user), false).await);
        }
        of_user.push(ids);
    }
    sqlx::query("UPDATE jobs SET announced_at = NULL").execute(&pool).await.unwrap();
    let mut notices = Notices::default();
    notices.dispatch(&store).await;
    let mut turns = Vec::new();
    for place in 0..2 {
        turns.extend(of_user.iter().map(|ids| ids[place]));
    }
    assert_eq!(notices.0, turns);
    let mut count = 0;
    while notices.run_next(&store).await.is_some() {
        count += 1;
    }
    assert_eq!(count, 60, "every job runs");
}

#[sqlx::test(migrations = "../../migrations")]
async fn must_26_dead_jobs_that_are_replayed_take_turns_with_new_ones(pool: PgPool) {
    let store = Store::new(pool.clone());
    let ada = create_user(&store, "ada").await.id;
    let bob = create_user(&store, "bob").await.id;
    let mut ids = Vec::new();
    for _ in 0..20 {
        ids.push(Notices::default().create(&store, Some(ada), false).await);
    }
    sqlx::query("UPDATE jobs SET state = 'failed', dead_at = now(), announced_at = NULL")
        .execute(&pool)
        .await
        .unwrap();
    for id in &ids {
        store.replay_job(*id, Visibility::Owner(ada), None, LIMITS).await.unwrap();
    }
    let mut notices = Notices::default();
    notices.dispatch(&store).await;
    assert_eq!(notices.0, ids[..2]);
    let his = notices.create(&store, Some(bob), false).await;
    assert_eq!(notices.0[2], his);
}

#[sqlx::test(migrations = "../../migrations")]
async fn small_job_is_announced_while_large_jobs_of_its_owner_wait_for_their_lane(pool: PgPool) {
    let store = Store::new(pool);
    let ada = create_user(&store, "ada").await.id;
    let mut notices = Notices::default();
    for _ in 0..10 {
        notices.create(&store, Some(ada), true).await;
    }
    assert_eq!(notices.0.len(), 2);
    let small = notices.create(&store, Some(ada), false).await;
    assert_eq!(notices.0.last(), Some(&small), "the lane of small jobs may have no other job");
    // Running jobs count in both lanes.
    claim(&store, notices.0[0], "w", LEASE).await;
    claim(&store, small, "w", LEASE).await;
    notices.dispatch(&store).await;
    let waiting = notices.create(&store, Some(ada), false).await;
    assert!(!notices.0.contains(&waiting), "two of her jobs run");
    let due = store.due_jobs(4, LEASE).await.unwrap();
    assert!(due.contains(&(waiting, Lane::Small)), "{due:?}");
}

#[sqlx::test(migrations = "../../migrations")]
async fn must_26_stored_row_errors_of_all_jobs_of_a_user_are_limited_in_bytes(pool: PgPool) {
    let store = Store::new(pool.clone());
    let ada = create_user(&store, "ada").await.id;
    let bob = create_user(&store, "bob").await.id;
    // A report of `progress` has 64 bytes and its text: "original_url", "invalid", "is bad" and "cell".
    let limits = ReportLimits { bytes_per_user: 3 * 93, ..REPORTS };
    let mut stored = Vec::new();
    for (user_id, lines) in [
        (Some(ada), vec![2, 3]),
        (Some(ada), vec![2, 3]),
        (Some(ada), vec![2]),
        (Some(bob), vec![2, 3]),
        (None, vec![2, 3, 4, 5]),
        (None, vec![2]),
    ] {
        let id = store.create_job(&new_job(user_id), LIMITS).await.unwrap().unwrap().job.id;
        let run = claim(&store, id, "w", LEASE).await;
        let chunk = store.begin_chunk(&run, limits).await.unwrap().unwrap();
        chunk.commit(progress(100, 0, &lines, true), LEASE).await.unwrap();
        let job = store.find_job(id, Visibility::All).await.unwrap().unwrap();
        assert_eq!(job.rows_failed, i64::try_from(lines.len()).unwrap(), "each bad row is counted");
        stored.push(store.job_reports(id, ALL_REPORTS).await.unwrap().reports.len());
    }
    assert_eq!(stored, [2, 1, 0, 2, 3, 0]);
    // The reports of a deleted job no longer count.
    sqlx::query("DELETE FROM jobs WHERE user_id = $1")
        .bind(ada.get())
        .execute(&pool)
        .await
        .unwrap();
    let id = store.create_job(&new_job(Some(ada)), LIMITS).await.unwrap().unwrap().job.id;
    let run = claim(&store, id, "w", LEASE).await;
    let chunk = store.begin_chunk(&run, limits).await.unwrap().unwrap();
    chunk.commit(progress(100, 0, &[2, 3, 4, 5], true), LEASE).await.unwrap();
    assert_eq!(store.job_reports(id, ALL_REPORTS).await.unwrap().reports.len(), 3);
}
