//! Linnet's shortener: links in PostgreSQL, resolved through two caches.
//!
//! * [`domain`]: what links, users, keys and events are; no I/O.
//! * [`store`]: what PostgreSQL keeps.
//! * [`cache`]: L1 in the process, L2 in Redis, and how both hear of changes.
//! * [`clicks`]: from the redirect to the stream.
//! * [`ingest`]: from the stream into PostgreSQL, in the worker process.
//! * [`jobs`]: bulk work, from the upload to the last row.
//! * [`upkeep`]: what has its time, in the worker process or on demand.
//! * [`http`]: the public, the api and the internal routes.
//! * [`import`]: rows from files.
//! * [`admin`]: what the operator does from the command line.
//! * [`preflight`]: what is wrong with an installation, before anything serves.
//! * [`startup`]: puts it all together.

pub mod admin;
pub mod cache;
pub mod cli;
pub mod clicks;
pub mod config;
pub mod domain;
pub mod formula;
pub mod http;
pub mod import;
pub mod ingest;
pub mod jobs;
pub mod preflight;
mod readiness;
mod recording;
pub mod release;
pub mod startup;
pub mod store;
pub mod upkeep;
mod workers;
