//! What the person at the terminal is told.

use std::{io::IsTerminal, time::Instant};

/// A line on standard error that is rewritten on a terminal, and one line at the end.
pub(super) struct Progress {
    name: &'static str,
    done: &'static str,
    size: u64,
    rows: u64,
    began: Instant,
    on_terminal: bool,
}

impl Progress {
    /// `done` says what has become of the rows; `size` is the position at the end.
    pub(super) fn new(name: &'static str, done: &'static str, size: u64) -> Self {
        let on_terminal = std::io::stderr().is_terminal();
        Self { name, done, size, rows: 0, began: Instant::now(), on_terminal }
    }

    #[expect(clippy::print_stderr, reason = "progress is for the person at the terminal")]
    pub(super) fn add(&mut self, rows: u64, position: u64) {
        self.rows += rows;
        if self.on_terminal {
            let percent = (position * 100).checked_div(self.size).unwrap_or(100);
            eprint!("\r{}: {percent:3} %, {} rows", self.name, self.rows);
        }
    }

    #[expect(clippy::print_stderr, reason = "progress is for the person at the terminal")]
    pub(super) fn finish(self) {
        let lead = if self.on_terminal { "\r" } else { "" };
        let seconds = self.began.elapsed().as_secs_f64();
        eprintln!("{lead}{}: {} rows {} in {seconds:.1} s", self.name, self.rows, self.done);
    }
}

#[expect(clippy::print_stderr, reason = "the report is for the person at the terminal")]
pub(super) fn say(line: &str) {
    eprintln!("{line}");
}
