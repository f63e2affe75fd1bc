//! Linnet's shortener: the API, the command line, and the start-up that puts the crates together.
//!
//! * [`http`]: the API and the internal routes.
//! * [`admin`]: what the operator does from the command line.
//! * [`preflight`]: finds what is wrong with an installation before anything serves.
//! * [`config`]: every setting that the program reads.
//! * [`startup`]: builds the process from the crates that do the work, and stops it in order.

pub mod admin;
pub mod cli;
pub mod config;
pub mod http;
pub mod preflight;
mod readiness;
pub mod release;
mod server_threads;
pub mod startup;
mod thread_resources;
