//! What every Linnet process needs to run, and nothing that only one of them knows.
//!
//! * [`cli`]: the frame of a program's command line.
//! * [`settings`]: layered configuration, every problem reported at once.
//! * [`listener`]: TCP or unix-socket listeners that can be retired without losing a connection.
//! * [`lifecycle`]: signals, draining, and background tasks whose death ends the process.
//! * [`memory`]: keeps resident memory close to what is used.
//! * [`problem`]: the RFC 9457 error body, the one way an error leaves a process.
//! * [`healthcheck`]: asks a running process whether it is ready.
//! * [`identity`]: who the gateway says is calling, as headers between the two processes.
//! * [`redis_link`]: a multiplexed Redis connection that doubles as a circuit breaker.
//! * [`change_feed`]: news of changed links and keys, with a stated bound on staleness.
//! * [`testing`]: what the tests of more than one process need.

pub mod change_feed;
pub mod cli;
pub mod healthcheck;
pub mod identity;
pub mod lifecycle;
pub mod listener;
pub mod memory;
pub mod problem;
pub mod redis_link;
pub mod settings;
pub mod testing;

/// `EX_USAGE` of `sysexits.h`: the configuration is wrong, restarting will not help.
pub const EXIT_BAD_CONFIGURATION: u8 = 64;
/// `EX_SOFTWARE` of `sysexits.h`: a background task or a listener died.
pub const EXIT_TASK_DIED: u8 = 70;
