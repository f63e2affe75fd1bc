//! The worker process: click ingestion, job lanes, maintenance.
//!
//! - [`run`] starts all parts and stops them in order. The process is the subcommand `worker` of `linnet-shortener`.
//! - [`maintenance`] has the periodic tasks, which an operator can also run by hand.

mod append_only_file;
pub mod maintenance;
mod process;
mod readiness;
mod settings;

pub use process::{WorkerConfig, run};
pub use settings::WorkerSettings;
