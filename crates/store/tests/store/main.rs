//! The store against a real PostgreSQL: each test has a database of its own (`DATABASE_URL` names the
//! server; `make test` starts one).
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking, also in its helpers"
)]

mod clicks;
mod erase;
mod events;
mod export;
mod idempotency;
mod import;
mod jobs;
mod keys;
mod limits;
mod links;
mod outbox;
mod stats;
mod support;
