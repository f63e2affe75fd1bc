//! The exit codes that supervisors distinguish.

/// `EX_USAGE` of `sysexits.h`: the configuration is not valid, and a restart does not help.
pub const BAD_CONFIGURATION: u8 = 64;
/// `EX_SOFTWARE` of `sysexits.h`: a critical background task ended.
pub const TASK_ENDED: u8 = 70;
