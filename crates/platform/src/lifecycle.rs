//! Stops a process in order: drain, then grace period, then exit.
//!
//! 1. `SIGTERM` or `SIGINT` makes the process unready and retires its listeners' paths. For `shutdown.drain_ms` it still
//!    accepts connections, and closes each after its response.
//! 2. It stops accepting. Running requests may take `shutdown.grace_s`, and streams end on [`Lifecycle::stopping`].
//! 3. A second signal ends the process at once, with exit code 130.
//!
//! A critical task that ends before the drain also starts the drain, and the process exits with
//! [`TASK_ENDED`](crate::exit_code::TASK_ENDED): a restart is safer than a process that works only in part.

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

/// A handle on the process's lifecycle; clones share it.
#[derive(Debug, Clone, Default)]
pub struct Lifecycle(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    draining: CancellationToken,
    /// The state of `draining` for redirects, which read it on every request. Reading the token takes a lock.
    is_draining: AtomicBool,
    stopping: CancellationToken,
    task_ended: AtomicBool,
}

impl Lifecycle {
    /// The lifecycle of a running process.
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether the process is draining; responses then carry `Connection: close`.
    #[inline]
    pub fn is_draining(&self) -> bool {
        self.0.is_draining.load(Ordering::Relaxed)
    }

    /// Cancelled when the grace period begins; long-lived streams end on it.
    pub fn stopping(&self) -> CancellationToken {
        self.0.stopping.clone()
    }

    /// Cancelled when the drain begins.
    pub fn draining(&self) -> CancellationToken {
        self.0.draining.clone()
    }

    /// Begins the drain, like a signal.
    pub fn begin_drain(&self) {
        self.0.is_draining.store(true, Ordering::Relaxed);
        self.0.draining.cancel();
    }

    /// Whether a critical task has ended before the drain.
    pub fn task_ended(&self) -> bool {
        self.0.task_ended.load(Ordering::Relaxed)
    }

    /// Handles signals. Call it once, in the process's main runtime.
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
            tracing::info!(signal = name, "drain started");
            lifecycle.begin_drain();
            let name = next().await;
            tracing::warn!(signal = name, "second signal received; exiting at once");
            std::process::exit(130);
        });
        Ok(())
    }

    /// Spawns a critical task. If it returns or panics before the drain, the process drains and exits with an error.
    pub fn spawn_critical<F>(&self, name: &'static str, task: F) -> JoinHandle<()>
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let handle = tokio::spawn(task);
        self.watch_critical(name, handle)
    }

    /// The same as [`Lifecycle::spawn_critical`], for a task that is already spawned.
    pub fn watch_critical(&self, name: &'static str, handle: JoinHandle<()>) -> JoinHandle<()> {
        let lifecycle = self.clone();
        tokio::spawn(async move {
            let end = handle.await;
            if lifecycle.is_draining() {
                return;
            }
            let reason = end.err().map_or_else(|| "returned".to_owned(), |error| error.to_string());
            tracing::error!(task = name, reason, "critical task ended; drain started");
            lifecycle.0.task_ended.store(true, Ordering::Relaxed);
            lifecycle.begin_drain();
        })
    }

    /// The same as [`Lifecycle::spawn_critical`], on a thread and runtime of its own, which no other task can delay. The
    /// thread ends with the process.
    pub fn spawn_critical_thread<F, Fut>(&self, name: &'static str, task: F) -> std::io::Result<()>
    where
        F: FnOnce() -> Fut + Send + 'static,
        Fut: Future<Output = ()>,
    {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (end, ended) = tokio::sync::oneshot::channel::<()>();
        std::thread::Builder::new().name(name.to_owned()).spawn(move || {
            runtime.block_on(task());
            // A panic drops the sender too.
            drop(end);
        })?;
        self.spawn_critical(name, async {
            let _ = ended.await;
        });
        Ok(())
    }

    /// Waits for the drain, calls `retire`, waits for `drain`, and then begins the grace period.
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
    async fn a_critical_task_that_ends_drains_the_process() {
        let lifecycle = Lifecycle::new();
        lifecycle.spawn_critical("short-lived", async {});
        tokio::time::timeout(Duration::from_secs(5), lifecycle.draining().cancelled())
            .await
            .expect("the drain begins");
        assert!(lifecycle.task_ended());
    }

    #[tokio::test]
    async fn a_critical_thread_that_panics_drains_the_process() {
        let lifecycle = Lifecycle::new();
        lifecycle.spawn_critical_thread("short-lived", || async { panic!("expected") }).unwrap();
        tokio::time::timeout(Duration::from_secs(5), lifecycle.draining().cancelled())
            .await
            .expect("the drain begins");
        assert!(lifecycle.task_ended());
    }

    #[tokio::test]
    async fn a_critical_task_may_end_during_the_drain() {
        let lifecycle = Lifecycle::new();
        let token = lifecycle.draining();
        let watcher = lifecycle.spawn_critical("drains", async move { token.cancelled().await });
        lifecycle.begin_drain();
        watcher.await.unwrap();
        assert!(!lifecycle.task_ended());
    }
}
