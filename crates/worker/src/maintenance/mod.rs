//! Maintenance: periodic tasks that create partitions and delete expired data.
//!
//! - A task can run anywhere, at any time, and be interrupted anywhere: each of its batches is a transaction, and a repeated
//!   run finds finished work done.
//! - Every worker has a [`Scheduler`]. A run holds the task's advisory lock in PostgreSQL, and `maintenance_runs` records
//!   runs by the server's clock. Workers can therefore start and stop at any time without repeated or missed runs.
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
