//! Samples the stack of the running thread at regular intervals of the process's CPU time.
//!
//! The file has one line per stack, as flame graph tools read it: `thread;outermost function;…;innermost function count`.

use std::{fmt::Write as _, fs, path::PathBuf};

use pprof::{Frames, ProfilerGuard, ProfilerGuardBuilder};

/// Samples a second of CPU time. It is a prime number, so that samples do not coincide with periodic work.
const SAMPLES_PER_SECOND: i32 = 499;

/// A recording. Dropping it writes the file.
#[must_use = "dropping the recording ends it"]
pub struct Recording {
    guard: ProfilerGuard<'static>,
    out: PathBuf,
}

impl Recording {
    pub(crate) fn start(out: PathBuf) -> Option<Self> {
        // Unwinding out of the vDSO crashes where its unwind tables are wrong.
        let builder =
            ProfilerGuardBuilder::default().frequency(SAMPLES_PER_SECOND).blocklist(&["vdso"]);
        match builder.build() {
            Ok(guard) => Some(Self { guard, out }),
            Err(error) => {
                eprintln!("cannot sample the CPU: {error}");
                None
            }
        }
    }
}

impl Drop for Recording {
    fn drop(&mut self) {
        let report = match self.guard.report().build() {
            Ok(report) => report,
            Err(error) => return eprintln!("cannot read the samples: {error}"),
        };
        let stacks: String =
            report.data.iter().map(|(frames, count)| folded_stack(frames, *count)).collect();
        if let Err(error) = fs::write(&self.out, stacks) {
            eprintln!("cannot write {}: {error}", self.out.display());
        }
    }
}

fn folded_stack(frames: &Frames, count: isize) -> String {
    let mut line = frames.thread_name_or_id();
    // Innermost first, and each frame with the functions inlined into it.
    for symbol in frames.frames.iter().rev().flat_map(|inlined| inlined.iter().rev()) {
        // A semicolon separates functions.
        let _ = write!(line, ";{}", symbol.name().replace(';', ":"));
    }
    let _ = writeln!(line, " {count}");
    line
}
