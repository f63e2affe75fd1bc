//! Program `linnet-host`: deploys releases on the server and rolls them back.
//!
//! Invariants:
//! * Every deployment runs in one systemd unit, whose name is the lock. Clients start it and follow it; none can end it by
//!   disconnecting.
//! * A decision is written before it is carried out, so that `resume` and `rollback` work after any crash.
//! * Decisions ([`verdict`], [`plan`]) are pure functions.

pub mod analysis;
pub mod apply;
pub mod attempt;
pub mod canary;
pub mod certificate;
pub mod checks;
pub mod cli;
pub mod color;
pub mod command;
pub mod compose;
pub mod config;
pub mod counters;
pub mod deploy;
pub mod docker;
pub mod drift;
pub mod error;
pub mod files;
pub mod fisher;
pub mod http;
pub mod installation;
pub mod metrics;
pub mod nginx_check;
pub(crate) mod output;
pub mod paths;
pub mod plan;
pub mod pods;
pub mod prepare;
pub mod probe;
pub mod record;
pub mod report;
pub mod restore;
pub mod revert;
pub mod settings;
pub mod state;
pub mod stop;
pub mod tidy;
pub mod unit;
pub mod verbs;
pub mod verdict;
