//! The worker process: click ingestion, job lanes, maintenance.
//!
//! * [`run`] starts everything and stops it in order; the program is a subcommand of
//!   `linnet-shortener`.
//! * [`maintenance`]: periodic tasks, which an operator can also run one at a time.

pub mod maintenance;
mod process;
mod readiness;

pub use process::{WorkerConfig, run};
