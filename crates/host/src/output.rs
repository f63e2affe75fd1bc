//! Lines for people, on the standard output and the standard error.
//!
//! Both may have lost their reader: an SSH session disconnects, and journald may end. `println!` would panic then, and a
//! return to the old release would end before it has moved the requests.

use std::{
    fmt,
    io::{self, Write},
};

/// Prints a line, formatted as by `format!`, and ignores that no process reads it.
macro_rules! say {
    ($($argument:tt)*) => { $crate::output::line(format_args!($($argument)*)) };
}
pub(crate) use say;

/// Prints a line on the standard output.
pub(crate) fn line(text: fmt::Arguments<'_>) {
    write(io::stdout().lock(), text);
}

/// Prints an error on the standard error.
pub(crate) fn error(error: &dyn fmt::Display) {
    write(io::stderr().lock(), format_args!("error: {error}"));
}

fn write(mut target: impl Write, text: fmt::Arguments<'_>) {
    let _ = writeln!(target, "{text}");
}
