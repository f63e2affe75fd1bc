//! The command line.

use std::process::ExitCode;

use chrono::Utc;
use clap::{Parser, Subcommand};
use linnet_platform::{
    cli::{Program, ProgramOptions},
    healthcheck::healthcheck,
};

use crate::{
    release::{RELEASE, SERVICE},
    settings::Settings,
    sidecar,
    status::status,
};

const PROGRAM: Program = Program("linnet-acme");

/// Orders and renews the TLS certificate of a Linnet installation.
#[derive(Debug, Parser)]
#[command(name = PROGRAM.0, version = RELEASE)]
struct Arguments {
    #[command(flatten)]
    options: ProgramOptions,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Default, Clone, Copy, Subcommand)]
enum Command {
    /// Orders and renews until it is stopped (the default).
    #[default]
    Run,
    /// Prints the certificate, its renewal and the last failure; exits with 1 unless a valid one with all names is served.
    Status,
    /// Checks that the admin listener of the running process reports ready; exits with 0 or 1.
    Healthcheck,
}

/// Parses the command line and runs the command.
pub fn main() -> ExitCode {
    let Arguments { options, command } = Arguments::parse();
    PROGRAM.run(&options, |settings: Settings| match command.unwrap_or_default() {
        Command::Run => {
            let telemetry = settings.telemetry.clone();
            PROGRAM.serve(SERVICE, &telemetry, async |telemetry, lifecycle| {
                sidecar::run(settings, telemetry, lifecycle).await
            })
        }
        Command::Status => print_status(&settings),
        Command::Healthcheck => PROGRAM.end(healthcheck(&settings.acme.admin_listen)),
    })
}

#[expect(clippy::print_stdout, reason = "the command's output")]
fn print_status(settings: &Settings) -> ExitCode {
    match status(&settings.acme, Utc::now()) {
        Ok((text, is_good)) => {
            print!("{text}");
            if is_good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(error) => PROGRAM.end(Err(error)),
    }
}
