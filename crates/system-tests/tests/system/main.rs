//! Tests of the whole: every request goes through nginx unless a test says why not.
//!
//! One program, so that it is linked once; a module for each subject. Names that begin with
//! `must_NN_` show a promise that other shorteners broke.

mod api;
mod bad_input;
mod bulk;
mod clicks;
mod codes;
mod enumeration;
mod export;
mod faults;
mod freshness;
mod gateway;
mod generate;
mod idempotency;
mod identity;
mod import;
mod jobs;
mod lifecycle;
mod links;
mod live;
mod odd_bytes;
mod pipeline;
mod stampede;
mod stats;
mod targets;
mod trace;
mod upkeep;
