//! A whole Linnet in a test: real PostgreSQL, Redis, nginx, shorteners and gateways, started by
//! [`Stack::builder`] and stopped when the [`Stack`] is dropped.
//!
//! * The servers come from `scripts/service`, the binaries from the folder where this test was built
//!   (or from `LINNET_BIN_DIR`): what is tested is what `make run` runs.
//! * Every stack has a database, a Redis and a folder of its own, so tests run in parallel. With
//!   `DATABASE_URL` set, the database is made in that server; otherwise the stack starts a server.
//! * Every wait has a deadline and says what it waited for; nothing sleeps and hopes.
//! * A test that fails prints the end of every process's log.
//! * Children belong to the test's process group, so a test runner that ends the group ends them.

pub mod client;
pub mod events;
pub mod load;
pub mod metrics;
pub mod process;
pub mod raw;
pub mod redis_proxy;
pub mod services;
pub mod stack;
pub mod wait;

pub use client::{Answer, Client};
pub use events::{Event, EventStream};
pub use load::{Load, Tally};
pub use metrics::Metrics;
pub use process::{Process, Signal};
pub use stack::{Builder, Postgres, Stack};
pub use wait::{eventually, within};
