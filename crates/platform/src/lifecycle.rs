//! How a process stops, and why.
//!
//! 1. `SIGTERM` or `SIGINT` turns the process unready and retires its listeners' paths; it goes on
//!    serving for `shutdown.drain_ms`, closing every connection after its answer.
//! 2. It stops accepting; running requests get `shutdown.grace_s`; streams are told by
//!    [`Lifecycle::stopping`].
//! 3. A second signal ends the process at once.
//!
//! A background task that ends before that takes the process down with
//! [`EXIT_TASK_DIED`](crate::EXIT_TASK_DIED): a half-working process is worse than a restarted one.

use std::{
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::{
    signal::unix::{SignalKind, signal},
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;

/// Shared handle; clones are the same lifecycle.
#[derive(Debug, Clone, Default)]
pub struct Lifecycle(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    draining: CancellationToken,
    /// Beside the token: the redirect path asks on every request, and a token takes a lock.
    is_draining: AtomicBool,
    stopping: CancellationToken,
    task_died: AtomicBool,
}

impl Lifecycle {
    /// A lifecycle that nothing has ended yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether the process is on its way out; answers then carry `Connection: close`.
    #[inline]
    pub fn is_draining(&self) -> bool {
        self.0.is_draining.load(Ordering::Relaxed)
    }

    /// Cancelled when accepting ends; long-lived streams end on it.
    pub fn stopping(&self) -> CancellationToken {
        self.0.stopping.clone()
    }

    /// Cancelled when draining begins.
    pub fn draining(&self) -> CancellationToken {
        self.0.draining.clone()
    }

    /// Begins the stop, as a signal would.
    pub fn begin_drain(&self) {
        self.0.is_draining.store(true, Ordering::Relaxed);
        self.0.draining.cancel();
    }

    /// Whether a background task ended before it should have.
    pub fn task_died(&self) -> bool {
        self.0.task_died.load(Ordering::Relaxed)
    }

    /// Listens for signals. Call once, in the process's main runtime.
    pub fn watch_signals(&self) -> std::io::Result<()> {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let lifecycle = self.clone();
        tokio::spawn(async move {
            let mut next = async || {
                tokio::select! {
                    _ = terminate.recv() => "SIGTERM",
                    _ = interrupt.recv() => "SIGINT",
                }
            };
            let name = next().await;
            tracing::info!(signal = name, "stopping");
            lifecycle.begin_drain();
            let name = next().await;
            tracing::warn!(signal = name, "second signal: stopping at once");
            std::process::exit(130);
        });
        Ok(())
    }

    /// Runs a task that must live as long as the process. If it ends or panics before draining, the
    /// process drains and exits with an error.
    pub fn own<F>(&self, name: &'static str, task: F) -> JoinHandle<()>
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let handle = tokio::spawn(task);
        self.watch(name, handle)
    }

    /// [`Lifecycle::own`] for a task that was spawned already.
    pub fn watch(&self, name: &'static str, handle: JoinHandle<()>) -> JoinHandle<()> {
        let lifecycle = self.clone();
        tokio::spawn(async move {
            let end = handle.await;
            if lifecycle.is_draining() {
                return;
            }
            let reason = end.err().map_or_else(|| "it returned".to_owned(), |e| e.to_string());
            tracing::error!(task = name, reason, "a background task died: stopping");
            lifecycle.0.task_died.store(true, Ordering::Relaxed);
            lifecycle.begin_drain();
        })
    }

    /// Waits for the drain to begin, lets it last, then lets accepting end.
    pub async fn run_until_stopping(&self, drain: Duration, retire: impl FnOnce()) {
        self.0.draining.cancelled().await;
        retire();
        tokio::time::sleep(drain).await;
        self.0.stopping.cancel();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_task_that_dies_drains_the_process() {
        let lifecycle = Lifecycle::new();
        lifecycle.own("short-lived", async {});
        tokio::time::timeout(Duration::from_secs(5), lifecycle.draining().cancelled())
            .await
            .expect("the death is noticed");
        assert!(lifecycle.task_died());
    }

    #[tokio::test]
    async fn a_task_that_ends_while_draining_is_no_failure() {
        let lifecycle = Lifecycle::new();
        let token = lifecycle.draining();
        let watcher = lifecycle.own("drains", async move { token.cancelled().await });
        lifecycle.begin_drain();
        watcher.await.unwrap();
        assert!(!lifecycle.task_died());
    }
}
