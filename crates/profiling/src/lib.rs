//! Records a process's CPU samples, or its allocations with the feature `heap`, for `make profile`.
//!
//! Invariants:
//! * Only a program built with the feature `profiling` contains this crate.
//! * A recording lasts from [`start`] until its guard is dropped, which writes the file.
//! * Nothing is recorded unless [`OUT`] is set, so every command of the program stays usable.

use std::{env, path::PathBuf};

#[cfg(not(feature = "heap"))]
mod cpu;
#[cfg(feature = "heap")]
mod heap;

#[cfg(not(feature = "heap"))]
pub use cpu::Recording;
#[cfg(feature = "heap")]
pub use heap::{HeapAllocator, Recording};

/// Environment variable that names the file to write.
pub const OUT: &str = "LINNET_PROFILE_OUT";

/// Starts a recording. Returns `None` if [`OUT`] is not set or the recording cannot start.
///
/// Call it first in `main`, and drop the result last.
pub fn start() -> Option<Recording> {
    Recording::start(PathBuf::from(env::var_os(OUT)?))
}
