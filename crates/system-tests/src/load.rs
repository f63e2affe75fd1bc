//! Sends requests in the background while a test does something else.

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

/// The number of requests by outcome.
pub type OutcomeCounts = BTreeMap<String, usize>;

/// Background tasks that send requests.
#[derive(Debug)]
pub struct Load {
    stop: Arc<AtomicBool>,
    done: Arc<AtomicUsize>,
    tasks: Vec<JoinHandle<OutcomeCounts>>,
}

impl Load {
    /// Repeats `request` in `tasks` tasks until [`Load::finish`]. `request` gets a number that is unique
    /// within the load and returns its outcome as text.
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
                    let mut counts = OutcomeCounts::new();
                    while !stop.load(Ordering::Relaxed) {
                        let outcome = request(next.fetch_add(1, Ordering::Relaxed)).await;
                        *counts.entry(outcome).or_default() += 1;
                        done.fetch_add(1, Ordering::Relaxed);
                    }
                    counts
                })
            })
            .collect();
        Self { stop, done, tasks }
    }

    /// Waits until `count` more requests are done.
    pub async fn wait_for_requests(&self, count: usize) {
        let goal = self.done.load(Ordering::Relaxed) + count;
        let what = format!("{count} more requests");
        within(Duration::from_secs(30), &what, || async {
            self.done.load(Ordering::Relaxed) >= goal
        })
        .await;
    }

    /// Stops the tasks and returns the outcomes of all requests.
    pub async fn finish(self) -> OutcomeCounts {
        self.stop.store(true, Ordering::Relaxed);
        let mut sums = OutcomeCounts::new();
        for task in self.tasks {
            for (outcome, count) in task.await.expect("a load task") {
                *sums.entry(outcome).or_default() += count;
            }
        }
        sums
    }
}
