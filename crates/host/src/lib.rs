//! Program `linnet-host`: deploys releases on the server and rolls them back.
//!
//! Invariants:
//! * Every deployment runs in one systemd unit, whose name is the lock. Clients start it and follow it; none can end it by
//!   disconnecting.
//! * What was decided is written before it is done, so that `resume` and `rollback` work after any crash.
//! * Decisions ([`verdict`], [`plan`]) are pure functions.

mod canary;
mod checks;
pub mod cli;
mod color;
mod command;
mod config;
mod counters;
mod deploy;
mod docker;
mod error;
mod files;
mod fisher;
mod http;
mod installation;
mod metrics;
mod paths;
mod plan;
mod prepare;
mod probe;
mod record;
mod report;
mod state;
mod verbs;
mod verdict;
