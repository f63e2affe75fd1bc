//! Delivers updates of jobs to their subscribers.
//!
//! One task of the process polls all watched jobs with one query, and only while a subscription exists. Updates come from
//! PostgreSQL, so any process can serve the updates of any job.

use std::{
    collections::{HashMap, hash_map::Entry},
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use linnet_platform::lock::MutexExt as _;
use tokio::sync::{Notify, watch};

use linnet_domain::{Job, JobId};
use linnet_store::Store;

/// The maximum number of subscriptions of one process.
const MAX_SUBSCRIPTIONS: usize = 2_000;
const POLL_EVERY: Duration = Duration::from_millis(100);
/// Time between two polls while PostgreSQL is unreachable.
const RETRY_EVERY: Duration = Duration::from_secs(1);

/// The latest state of a job; `None` if it is deleted.
type JobSnapshot = Option<Arc<Job>>;

struct WatchedJob {
    subscriptions: usize,
    sender: watch::Sender<JobSnapshot>,
}

#[derive(Default)]
struct Shared {
    watched: Mutex<HashMap<JobId, WatchedJob>>,
    subscribed: Notify,
}

/// The watched jobs of the process; clones share them.
#[derive(Clone, Default)]
pub struct JobUpdates(Arc<Shared>);

/// A subscription to a job. It ends when it is dropped.
pub struct JobSubscription {
    updates: JobUpdates,
    id: JobId,
    /// The job, after each change.
    pub job: watch::Receiver<JobSnapshot>,
}

impl Drop for JobSubscription {
    fn drop(&mut self) {
        if let Entry::Occupied(mut job) = self.updates.watched().entry(self.id) {
            job.get_mut().subscriptions -= 1;
            if job.get().subscriptions == 0 {
                job.remove();
            }
        }
    }
}

impl JobUpdates {
    /// Subscribes to a job, whose current state is `job`; `None` if the process has too many subscriptions.
    pub fn subscribe(&self, job: Job) -> Option<JobSubscription> {
        let id = job.id;
        let mut watched = self.watched();
        let count: usize = watched.values().map(|job| job.subscriptions).sum();
        if count >= MAX_SUBSCRIPTIONS {
            return None;
        }
        let entry = watched.entry(id).or_insert_with(|| WatchedJob {
            subscriptions: 0,
            sender: watch::Sender::new(Some(Arc::new(job))),
        });
        entry.subscriptions += 1;
        // The snapshot of other subscribers may be older than `job`, so the first poll counts as a change.
        let mut job = entry.sender.subscribe();
        job.mark_changed();
        drop(watched);
        self.0.subscribed.notify_one();
        Some(JobSubscription { updates: self.clone(), id, job })
    }

    /// Polls watched jobs. Never returns.
    pub(crate) async fn run(self, store: Store) {
        loop {
            let ids: Vec<JobId> = self.watched().keys().copied().collect();
            if ids.is_empty() {
                self.0.subscribed.notified().await;
                continue;
            }
            match store.find_jobs(&ids).await {
                Ok(jobs) => {
                    self.deliver(&ids, jobs);
                    tokio::time::sleep(POLL_EVERY).await;
                }
                Err(error) => {
                    tracing::debug!(%error, "watched jobs not read; retrying");
                    tokio::time::sleep(RETRY_EVERY).await;
                }
            }
        }
    }

    fn deliver(&self, ids: &[JobId], jobs: Vec<Job>) {
        let mut jobs: HashMap<JobId, Arc<Job>> =
            jobs.into_iter().map(|job| (job.id, Arc::new(job))).collect();
        let watched = self.watched();
        for id in ids {
            let Some(watched_job) = watched.get(id) else { continue };
            let job = jobs.remove(id);
            watched_job.sender.send_if_modified(|latest| {
                let event = |job: &JobSnapshot| job.as_ref().map(|job| job.last_event);
                let is_new = event(latest) != event(&job);
                if is_new {
                    *latest = job;
                }
                is_new
            });
        }
    }

    fn watched(&self) -> MutexGuard<'_, HashMap<JobId, WatchedJob>> {
        self.0.watched.lock_ignoring_poison()
    }
}

#[cfg(test)]
mod tests {
    use chrono::DateTime;

    use super::*;
    use linnet_domain::{JobKind, JobState, OnConflict, RowFormat};

    fn id(number: i64) -> JobId {
        JobId::new(number).unwrap()
    }

    fn job(number: i64, last_event: i64) -> Job {
        Job {
            id: id(number),
            kind: JobKind::ImportUrls,
            state: JobState::Running,
            is_dead: false,
            user_id: None,
            format: RowFormat::Csv,
            on_conflict: OnConflict::Fail,
            dry_run: false,
            bytes: 0,
            bytes_done: 0,
            rows_read: 0,
            rows_written: 0,
            rows_skipped: 0,
            rows_failed: 0,
            unknown_columns: vec![],
            attempts: 0,
            error: None,
            created_at: DateTime::UNIX_EPOCH,
            started_at: None,
            finished_at: None,
            last_event,
        }
    }

    fn latest(subscription: &mut JobSubscription) -> Option<i64> {
        subscription.job.borrow_and_update().as_ref().map(|job| job.last_event)
    }

    #[test]
    fn subscribers_receive_each_new_event_once() {
        let updates = JobUpdates::default();
        let mut first = updates.subscribe(job(1, 5)).unwrap();
        assert!(first.job.has_changed().unwrap(), "the first state counts as a change");
        assert_eq!(latest(&mut first), Some(5));
        updates.deliver(&[id(1)], vec![job(1, 5)]);
        assert!(!first.job.has_changed().unwrap());
        updates.deliver(&[id(1)], vec![job(1, 6)]);
        assert_eq!(latest(&mut first), Some(6));
        let mut second = updates.subscribe(job(1, 7)).unwrap();
        assert!(second.job.has_changed().unwrap());
        updates.deliver(&[id(1), id(2)], vec![job(2, 1), job(1, 7)]);
        assert_eq!((latest(&mut first), latest(&mut second)), (Some(7), Some(7)));
        updates.deliver(&[id(1)], vec![]);
        assert_eq!((latest(&mut first), latest(&mut second)), (None, None), "the job is deleted");
    }

    #[test]
    fn only_watched_jobs_are_polled_and_subscriptions_are_bounded() {
        let updates = JobUpdates::default();
        let ids = |updates: &JobUpdates| updates.watched().keys().copied().collect::<Vec<_>>();
        let two = [updates.subscribe(job(1, 1)), updates.subscribe(job(1, 1))];
        let [first, second] = two;
        drop(first);
        assert_eq!(ids(&updates), [id(1)]);
        drop(second);
        assert!(ids(&updates).is_empty());
        let all: Vec<_> =
            (0..MAX_SUBSCRIPTIONS).map(|_| updates.subscribe(job(1, 1)).unwrap()).collect();
        assert!(updates.subscribe(job(2, 1)).is_none());
        drop(all);
        assert!(updates.subscribe(job(2, 1)).is_some());
    }
}
