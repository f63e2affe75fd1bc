//! How many exports run at a time.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Exports of one process. Each keeps a connection, a transaction and much of a core busy.
const MAX_EXPORTS: usize = 2;

/// The exports of a process.
#[derive(Debug, Clone)]
pub struct Exports(Arc<Semaphore>);

impl Default for Exports {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(MAX_EXPORTS)))
    }
}

impl Exports {
    /// Those of one worker, which keeps one of its connections for other requests.
    pub fn of_worker(&self, connections: u32) -> ExportSlots {
        let connections = usize::try_from(connections).unwrap_or(usize::MAX);
        let own = connections.saturating_sub(1).clamp(1, MAX_EXPORTS);
        ExportSlots { process: Arc::clone(&self.0), worker: Arc::new(Semaphore::new(own)) }
    }
}

/// One worker's exports.
#[derive(Debug, Clone)]
pub struct ExportSlots {
    process: Arc<Semaphore>,
    worker: Arc<Semaphore>,
}

/// Permission for one export, until it is dropped.
#[derive(Debug)]
pub(super) struct ExportSlot {
    _worker: OwnedSemaphorePermit,
    _process: OwnedSemaphorePermit,
}

impl ExportSlots {
    /// `None` when too many run already.
    pub(super) fn take(&self) -> Option<ExportSlot> {
        Some(ExportSlot {
            _worker: Arc::clone(&self.worker).try_acquire_owned().ok()?,
            _process: Arc::clone(&self.process).try_acquire_owned().ok()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_of_a_process_and_one_connection_stays_free() {
        let exports = Exports::default();
        let (wide, narrow) = (exports.of_worker(6), exports.of_worker(2));
        let first = narrow.take();
        assert!(first.is_some());
        assert!(narrow.take().is_none(), "its other connection stays free");
        let second = wide.take();
        assert!(second.is_some());
        assert!(wide.take().is_none(), "the process has two");
        drop(second);
        assert!(wide.take().is_some());
        drop(first);
        assert!(narrow.take().is_some());
    }
}
