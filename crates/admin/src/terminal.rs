//! Progress and messages on the terminal.

use std::{io::IsTerminal, time::Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// A progress bar on standard error, if that is a terminal, and one line at the end.
pub(super) struct Progress {
    name: &'static str,
    done: &'static str,
    rows: u64,
    began: Instant,
    bar: ProgressBar,
}

impl Progress {
    /// `done` is the participle of the last line ("imported"); `size` is the position at the end.
    pub(super) fn new(name: &'static str, done: &'static str, size: u64) -> Self {
        let target = if std::io::stderr().is_terminal() {
            ProgressDrawTarget::stderr()
        } else {
            ProgressDrawTarget::hidden()
        };
        let bar = ProgressBar::with_draw_target(Some(size), target);
        let line = "{prefix}: [{bar:40}] {percent:>3} %, {msg} rows, {eta} left";
        if let Ok(style) = ProgressStyle::with_template(line) {
            bar.set_style(style.progress_chars("=> "));
        }
        bar.set_prefix(name);
        Self { name, done, rows: 0, began: Instant::now(), bar }
    }

    pub(super) fn add(&mut self, rows: u64, position: u64) {
        self.rows += rows;
        self.bar.set_message(self.rows.to_string());
        self.bar.set_position(position);
    }

    /// Hides the bar while `write` prints.
    pub(super) fn suspend(&self, write: impl FnOnce()) {
        self.bar.suspend(write);
    }

    pub(super) fn finish(self) {
        self.bar.finish_and_clear();
        let seconds = self.began.elapsed().as_secs_f64();
        say(&format!("{}: {} rows {} in {seconds:.1} s", self.name, self.rows, self.done));
    }
}

#[expect(clippy::print_stderr, reason = "the report is for the person at the terminal")]
pub(super) fn say(line: &str) {
    eprintln!("{line}");
}
