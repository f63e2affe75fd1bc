//! Jobs as they go on, for those who watch them.
//!
//! One task of the process looks at all jobs that somebody watches, in one query, and only while
//! somebody does. What a watcher is told is what the database holds, so it does not matter which
//! process runs a job, nor which one the watcher comes back to.

use std::{
    collections::{HashMap, hash_map::Entry},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::sync::{Notify, watch};

use linnet_domain::{Job, JobId};
use linnet_store::Store;

/// Those who may watch at a time, in one process.
const MAX_WATCHERS: usize = 2_000;
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// Time between two looks while the database is away.
const RETRY_EVERY: Duration = Duration::from_secs(1);

/// A job as it was last seen; `None` when it is gone.
type Seen = Option<Arc<Job>>;

#[derive(Default)]
struct Inner {
    watched: Mutex<HashMap<JobId, (usize, watch::Sender<Seen>)>>,
    came: Notify,
}

/// The process's watchers; clones share them.
#[derive(Clone, Default)]
pub struct JobWatch(Arc<Inner>);

/// One watcher's end; dropped, it watches no more.
pub struct Watched {
    hub: JobWatch,
    id: JobId,
    /// The job, whenever it has changed.
    pub job: watch::Receiver<Seen>,
}

impl Drop for Watched {
    fn drop(&mut self) {
        if let Entry::Occupied(mut entry) = self.hub.lock().entry(self.id) {
            entry.get_mut().0 -= 1;
            if entry.get().0 == 0 {
                entry.remove();
            }
        }
    }
}

impl JobWatch {
    /// Watches a job from what was just seen of it; `None` when too many watch already.
    pub fn watch(&self, job: Job) -> Option<Watched> {
        let id = job.id;
        let mut watched = self.lock();
        let count: usize = watched.values().map(|(count, _)| *count).sum();
        if count >= MAX_WATCHERS {
            return None;
        }
        let entry =
            watched.entry(id).or_insert_with(|| (0, watch::Sender::new(Some(Arc::new(job)))));
        entry.0 += 1;
        // What others have seen may be older than what this one has: it looks at once.
        let mut job = entry.1.subscribe();
        job.mark_changed();
        drop(watched);
        self.0.came.notify_one();
        Some(Watched { hub: self.clone(), id, job })
    }

    /// Looks while somebody watches. Never ends.
    pub(crate) async fn follow(self, store: Store) {
        loop {
            let ids: Vec<JobId> = self.lock().keys().copied().collect();
            if ids.is_empty() {
                self.0.came.notified().await;
                continue;
            }
            match store.find_jobs(&ids).await {
                Ok(jobs) => {
                    self.show(&ids, jobs);
                    tokio::time::sleep(LOOK_EVERY).await;
                }
                Err(error) => {
                    tracing::debug!(%error, "watched jobs wait for the database");
                    tokio::time::sleep(RETRY_EVERY).await;
                }
            }
        }
    }

    fn show(&self, ids: &[JobId], jobs: Vec<Job>) {
        let mut jobs: HashMap<JobId, Arc<Job>> =
            jobs.into_iter().map(|job| (job.id, Arc::new(job))).collect();
        let watched = self.lock();
        for id in ids {
            let Some((_, sender)) = watched.get(id) else { continue };
            let job = jobs.remove(id);
            sender.send_if_modified(|seen| {
                let event = |job: &Seen| job.as_ref().map(|job| job.last_event);
                let is_new = event(seen) != event(&job);
                if is_new {
                    *seen = job;
                }
                is_new
            });
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<JobId, (usize, watch::Sender<Seen>)>> {
        // The map is whole whatever panicked while it was held.
        self.0.watched.lock().unwrap_or_else(PoisonError::into_inner)
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

    fn seen(watched: &mut Watched) -> Option<i64> {
        watched.job.borrow_and_update().as_ref().map(|job| job.last_event)
    }

    #[test]
    fn watchers_are_told_of_what_is_new_to_them() {
        let watch = JobWatch::default();
        let mut first = watch.watch(job(1, 5)).unwrap();
        assert!(first.job.has_changed().unwrap(), "what it came with is looked at, too");
        assert_eq!(seen(&mut first), Some(5));
        watch.show(&[id(1)], vec![job(1, 5)]);
        assert!(!first.job.has_changed().unwrap());
        watch.show(&[id(1)], vec![job(1, 6)]);
        assert_eq!(seen(&mut first), Some(6));
        let mut second = watch.watch(job(1, 7)).unwrap();
        assert!(second.job.has_changed().unwrap());
        watch.show(&[id(1), id(2)], vec![job(2, 1), job(1, 7)]);
        assert_eq!((seen(&mut first), seen(&mut second)), (Some(7), Some(7)));
        watch.show(&[id(1)], vec![]);
        assert_eq!((seen(&mut first), seen(&mut second)), (None, None), "it is gone");
    }

    #[test]
    fn only_what_is_watched_is_asked_for_and_watchers_are_bounded() {
        let watch = JobWatch::default();
        let ids = |watch: &JobWatch| watch.lock().keys().copied().collect::<Vec<_>>();
        let two = [watch.watch(job(1, 1)), watch.watch(job(1, 1))];
        let [first, second] = two;
        drop(first);
        assert_eq!(ids(&watch), [id(1)]);
        drop(second);
        assert!(ids(&watch).is_empty());
        let all: Vec<_> = (0..MAX_WATCHERS).map(|_| watch.watch(job(1, 1)).unwrap()).collect();
        assert!(watch.watch(job(2, 1)).is_none());
        drop(all);
        assert!(watch.watch(job(2, 1)).is_some());
    }
}
