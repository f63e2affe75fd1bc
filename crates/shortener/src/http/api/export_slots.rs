//! Limits concurrent exports.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The maximum number of concurrent exports of one process. Each uses a connection, a transaction and much of a core.
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
    /// The slots of one server thread, which keeps one of its connections for other requests.
    pub fn of_thread(&self, connections: u32) -> ExportSlots {
        let connections = usize::try_from(connections).unwrap_or(usize::MAX);
        let own = connections.saturating_sub(1).clamp(1, MAX_EXPORTS);
        ExportSlots { process: Arc::clone(&self.0), thread: Arc::new(Semaphore::new(own)) }
    }
}

/// The exports of one server thread.
#[derive(Debug, Clone)]
pub struct ExportSlots {
    process: Arc<Semaphore>,
    thread: Arc<Semaphore>,
}

/// Permission for one export, until it is dropped.
#[derive(Debug)]
pub(super) struct ExportSlot {
    _thread: OwnedSemaphorePermit,
    _process: OwnedSemaphorePermit,
}

impl ExportSlots {
    /// Takes a slot; `None` when all are in use.
    pub(super) fn take(&self) -> Option<ExportSlot> {
        Some(ExportSlot {
            _thread: Arc::clone(&self.thread).try_acquire_owned().ok()?,
            _process: Arc::clone(&self.process).try_acquire_owned().ok()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exports_are_limited_by_process_and_leave_a_connection_free() {
        let exports = Exports::default();
        let (wide, narrow) = (exports.of_thread(6), exports.of_thread(2));
        let first = narrow.take();
        assert!(first.is_some());
        assert!(narrow.take().is_none(), "the last connection is for other requests");
        let second = wide.take();
        assert!(second.is_some());
        assert!(wide.take().is_none(), "the limit of the process");
        drop(second);
        assert!(wide.take().is_some());
        drop(first);
        assert!(narrow.take().is_some());
    }
}
