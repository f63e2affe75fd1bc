//! Maintenance: periodic tasks that create partitions and delete expired data.
//!
//! - Any process can run a task at any time, and a run can be interrupted at any point: each batch is a transaction, and the
//!   next run continues with what is left.
//! - Every worker has a [`Scheduler`]. A run holds the task's advisory lock in PostgreSQL and is recorded in
//!   `maintenance_runs` with PostgreSQL's time. Workers can therefore start and stop at any time without repeated or missed
//!   runs.
//! - A worker runs one task at a time, so maintenance uses at most two database connections.
//! - Each run has a time limit. A failed run is retried with a growing delay, while other tasks continue.
//!
//! To add a task, write a function and an entry of [`TASKS`] in `tasks`.

mod batches;
mod context;
mod error;
mod metrics;
mod report;
mod run;
mod schedule;
mod scheduler;
mod settings;
mod task;
mod tasks;
mod uploads;

pub use context::MaintenanceContext;
pub use error::RunError;
pub use metrics::MaintenanceMetrics;
pub use report::Report;
pub use scheduler::Scheduler;
pub use settings::{LinkSettings, MaintenanceSettings};
pub use task::Task;
pub use tasks::TASKS;
