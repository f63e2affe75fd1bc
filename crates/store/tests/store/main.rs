//! Tests of the store with PostgreSQL. `DATABASE_URL` is the server, and each test has its own database.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking, also in its helpers"
)]
#![expect(clippy::disallowed_methods, reason = "tests do not drop a transaction that begins")]

mod bans;
mod byte_quotas;
mod clicks;
mod erase;
mod events;
mod export;
mod grouped;
mod held_codes;
mod idempotency;
mod import;
mod job_bounds;
mod job_turns;
mod jobs;
mod keys;
mod limits;
mod links;
mod outbox;
mod quotas;
mod search;
mod stats;
mod support;
mod timeouts;
mod transactions;
mod uploads;
mod visitors;
