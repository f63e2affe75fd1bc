//! The backup sidecar: pushes WAL into the repository, backs up on a schedule, restores, and tests restores.
//!
//! pgBackRest does the work. This crate decides when, with which limits, and what a failure means.
//!
//! Invariants:
//! - A WAL segment leaves the archive folder only after pgBackRest has stored it.
//! - Of all processes that share the state folder, one pushes and one runs a job.
//! - Every child process has a timeout.
//! - A restore test never writes to the repository.
//! - A restore changes nothing before the repository has been opened and holds a fitting backup.

mod archive;
mod config;
mod error;
mod info;
mod instance;
mod jobs;
mod lock;
mod log;
mod metrics;
mod process;
mod push;
mod repository;
mod resolve_check;
mod restore;
mod restore_test;
mod schedule;
mod server;
mod settings;
mod sidecar;
mod state;
mod status;
mod time;
mod tool;

use std::process::ExitCode;

pub use error::BackupError;
use settings::Settings;

const USAGE: &str = "usage: linnet-backup COMMAND

  run                    pushes WAL, backs up and tests restores until it is stopped
  backup [--full]        backs up now: differential, or full if there is no full backup
  restore-test           restores into a scratch folder and checks the result
  restore [--to TIME] [--timeline N]
                         restores into PostgreSQL's folder; TIME such as 2026-11-27T12:00:00Z
  check [--to TIME]      opens the repository and checks that a restore is possible
  drain                  pushes the WAL segments that wait, for at most 10 min
  status                 prints the backups and what waits
  healthcheck            exits with 0 if `run` responds";

/// Runs the command line and returns its exit code: 0, 1 (failed) or 64 (wrong usage or settings).
pub fn run(arguments: &[String]) -> ExitCode {
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match dispatch(&words) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(error.exit_code())
        }
    }
}

fn dispatch(words: &[&str]) -> Result<(), BackupError> {
    if let ["help" | "--help" | "-h"] = words {
        println!("{USAGE}");
        return Ok(());
    }
    let settings = Settings::from_environment()?;
    match words {
        ["healthcheck"] => server::healthcheck(&settings),
        ["run"] => sidecar::run(&settings),
        ["backup"] => jobs::backup_now(&settings, false),
        ["backup", "--full"] => jobs::backup_now(&settings, true),
        ["restore-test"] => jobs::restore_test_now(&settings),
        ["restore", options @ ..] => restore::run(&settings, &restore::Target::parse(options)?),
        ["check", options @ ..] => restore::check(&settings, &restore::Target::parse(options)?),
        ["drain"] => push::drain(&settings),
        ["status"] => status::print(&settings),
        _ => Err(BackupError::Usage(USAGE.to_owned())),
    }
}
