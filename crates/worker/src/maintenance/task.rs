//! The definition of a maintenance task: name, interval, time limit and function.

use std::time::Duration;

use futures::future::BoxFuture;

use super::{MaintenanceContext, Report, RunError};

/// A maintenance task.
#[derive(Debug, Clone)]
pub struct Task {
    /// Its name in `maintenance_runs`, in metrics and on the command line.
    pub name: &'static str,
    /// Its description in `--help`.
    pub about: &'static str,
    /// Interval between the starts of two successful runs.
    pub every: Duration,
    /// Time limit of a run.
    pub timeout: Duration,
    pub(super) work: TaskWork,
}

/// The function of a task.
pub(super) type TaskWork =
    for<'a> fn(&'a MaintenanceContext) -> BoxFuture<'a, Result<Report, RunError>>;
