//! Keeps variables of the caller's environment away from libraries that read them.

use std::{io, os::unix::process::CommandExt as _, process::Command};

/// The PostgreSQL driver adds these options to those of the settings, and has no way to leave them out.
const WITHHELD: &str = "PGOPTIONS";

/// Replaces the program by itself without `PGOPTIONS`, if it is set. The process id stays the same. Call it before threads
/// start.
pub(crate) fn withhold_postgres_options() -> io::Result<()> {
    if std::env::var_os(WITHHELD).is_none() {
        return Ok(());
    }
    let mut arguments = std::env::args_os();
    let mut program = Command::new(std::env::current_exe()?);
    if let Some(name) = arguments.next() {
        program.arg0(name);
    }
    // It returns only if it fails.
    Err(program.args(arguments).env_remove(WITHHELD).exec())
}
