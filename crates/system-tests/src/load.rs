//! Requests in the background while a test does something else.

use std::{
    collections::BTreeMap,
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::task::JoinHandle;

use crate::wait::within;

/// What became of the requests: how often each outcome came.
pub type Tally = BTreeMap<String, usize>;

/// Running requests.
#[derive(Debug)]
pub struct Load {
    stop: Arc<AtomicBool>,
    done: Arc<AtomicUsize>,
    tasks: Vec<JoinHandle<Tally>>,
}

impl Load {
    /// Repeats `request` in `tasks` tasks until [`Load::finish`]. It gets a number that no other
    /// call gets, and returns its outcome in words.
    pub fn start<F, Fut>(tasks: usize, request: F) -> Self
    where
        F: Fn(usize) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = String> + Send,
    {
        let (stop, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let request = Arc::new(request);
        let next = Arc::new(AtomicUsize::new(0));
        let tasks = (0..tasks)
            .map(|_| {
                let (stop, done, request, next) =
                    (stop.clone(), done.clone(), request.clone(), next.clone());
                tokio::spawn(async move {
                    let mut tally = Tally::new();
                    while !stop.load(Ordering::Relaxed) {
                        let outcome = request(next.fetch_add(1, Ordering::Relaxed)).await;
                        *tally.entry(outcome).or_default() += 1;
                        done.fetch_add(1, Ordering::Relaxed);
                    }
                    tally
                })
            })
            .collect();
        Self { stop, done, tasks }
    }

    /// Waits until so many more requests are done.
    pub async fn more(&self, count: usize) {
        let goal = self.done.load(Ordering::Relaxed) + count;
        let what = format!("{count} more requests");
        within(Duration::from_secs(30), &what, || async {
            self.done.load(Ordering::Relaxed) >= goal
        })
        .await;
    }

    /// Ends it and tells the outcomes.
    pub async fn finish(self) -> Tally {
        self.stop.store(true, Ordering::Relaxed);
        let mut all = Tally::new();
        for task in self.tasks {
            for (outcome, count) in task.await.expect("a load task") {
                *all.entry(outcome).or_default() += count;
            }
        }
        all
    }
}
