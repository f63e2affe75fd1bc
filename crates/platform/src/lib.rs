//! What every Linnet process needs to run, and nothing that only one of them knows.
//!
//! * [`cli`]: the frame of a program's command line.
//! * [`settings`]: layered configuration, every problem reported at once.
//! * [`listener`]: TCP or unix-socket listeners that can be retired without losing a connection.
//! * [`lifecycle`]: signals, draining, and background tasks whose death ends the process.
//! * [`memory`]: keeps resident memory close to what is used.
//! * [`healthcheck`]: asks a running process whether it is ready.
//! * [`redis_client`]: a multiplexed Redis connection that doubles as a circuit breaker.
//! * [`invalidation_bus`]: messages that keep caches true, with a stated bound on staleness.
//! * [`server`]: what every HTTP server of a process has in common.
//! * [`testing`]: what the tests of more than one process need.

pub mod cli;
pub mod healthcheck;
pub mod invalidation_bus;
pub mod lifecycle;
pub mod listener;
pub mod memory;
pub mod redis_client;
pub mod server;
pub mod settings;
pub mod testing;

/// `EX_USAGE` of `sysexits.h`: the configuration is wrong, restarting will not help.
pub const EXIT_BAD_CONFIGURATION: u8 = 64;
/// `EX_SOFTWARE` of `sysexits.h`: a background task or a listener died.
pub const EXIT_TASK_DIED: u8 = 70;
