//! What has its time: partitions made ahead, old clicks, keys and links that go.
//!
//! * A task may run anywhere and at any time, and be cut off anywhere: each of its batches is a
//!   transaction, and what is done is found done. `admin run-task` runs one now.
//! * Every worker keeps the time ([`Scheduler`]), and one of them runs a task: it holds the task's lock in
//!   PostgreSQL, and a table says when a task ran, by the server's clock. So workers that come and go
//!   neither repeat nor forget anything.
//! * A worker runs one task at a time: upkeep takes a connection or two and never all of the machine.
//! * A run has an end: its task's time-out. One that failed is tried again, later each time; the other
//!   tasks go on.
//!
//! A new task is one entry of [`TASKS`] and a function in `tasks`.

mod batches;
mod metrics;
mod report;
mod run;
mod schedule;
mod scheduler;
mod settings;
mod tasks;
mod uploads;

use linnet_platform::clock::Clock;
use linnet_store::Store;

pub use metrics::MaintenanceMetrics;
pub use report::Report;
pub use run::RunError;
pub use scheduler::Scheduler;
pub use settings::{LinkSettings, MaintenanceSettings};
pub use tasks::{TASKS, Task};

/// What tasks work with.
#[derive(Debug, Clone)]
pub struct MaintenanceContext {
    /// The database; statements may take as long as those of a worker.
    pub store: Store,
    /// How long things are kept.
    pub settings: MaintenanceSettings,
    /// Tells how old files are.
    pub clock: Clock,
}
