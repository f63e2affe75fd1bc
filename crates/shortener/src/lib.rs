//! Linnet's shortener: the API, the command line, and the startup that connects the crates.
//!
//! * [`http`]: the API and the internal routes.
//! * [`config`]: the settings that the program reads.
//! * [`startup`]: builds the process from the crates that do the work, and stops it in order.

pub mod cli;
pub mod http;
mod readiness;
pub mod release;
mod server_threads;
pub mod startup;
mod thread_resources;

pub use linnet_settings as config;
