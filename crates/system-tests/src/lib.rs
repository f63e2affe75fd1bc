//! Starts a whole installation for a test: real PostgreSQL, Redis, nginx, shorteners and gateways.
//!
//! [`Stack::builder`] configures an installation. Dropping the [`Stack`] stops it.
//!
//! * `scripts/service` starts the servers, as for `make run`. The binaries come from the folder where
//!   this test was built, or from `LINNET_BIN_DIR`.
//! * Each stack has its own database, Redis and folder, so tests run in parallel. The database is
//!   created in the server of `DATABASE_URL`; if that is not set, the stack starts a server.
//! * Waits poll a condition until a deadline and name the condition when it fails.
//! * A failed test prints the last log lines of every process.
//! * Processes stay in the test's process group, so that a test runner can end all of them.
//! * [`expected`] contains the metric names and messages that several tests compare.

pub mod certificates;
pub mod client;
pub mod events;
pub mod expected;
pub mod http2;
pub mod https;
pub mod kill_cycles;
pub mod load;
pub mod memory_group;
pub mod metrics;
pub mod pebble;
pub mod process;
pub mod raw;
pub mod redis_proxy;
pub mod services;
pub mod stack;
pub mod wait;

pub use client::{Client, Response};
pub use events::{Event, EventStream};
pub use load::{Load, OutcomeCounts};
pub use memory_group::MemoryGroup;
pub use metrics::Metrics;
pub use process::{Process, Signal};
pub use stack::{
    Builder, CONTAINER_LIMITS, CONTAINER_NGINX, CONTAINER_NGINX_TLS, CONTAINER_SETTINGS,
    HttpsServer, MemoryLimits, Postgres, Stack,
};
pub use wait::{eventually, within};
