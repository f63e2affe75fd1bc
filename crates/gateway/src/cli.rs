//! The command line.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use linnet_platform::{
    cli::{Program, ProgramOptions},
    healthcheck::healthcheck,
};

use crate::{
    Application,
    config::{MEMORY_KEY, Settings},
    release::{RELEASE, SERVICE},
};

const PROGRAM: Program = Program("linnet-gateway");

/// Serves Linnet's API: authenticates, rate-limits and routes requests to shorteners.
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
    /// Serves the API and the web pages (the default).
    #[default]
    Serve,
    /// Checks that the admin listener of a running gateway reports ready; exits with 0 or 1.
    Healthcheck,
    /// Prints the most memory that the settings allow, term by term.
    Budget,
}

/// Parses the command line and runs the command.
pub fn main() -> ExitCode {
    let Arguments { options, command } = Arguments::parse();
    PROGRAM.run(&options, |settings: Settings| match command.unwrap_or_default() {
        Command::Serve => {
            let (budget, limit) = (settings.memory_budget(), settings.gateway.memory_bytes);
            PROGRAM.within_memory(&budget, MEMORY_KEY, limit, || serve(settings))
        }
        Command::Budget => PROGRAM.print(&settings.memory_budget()),
        Command::Healthcheck => PROGRAM.end(healthcheck(&settings.gateway.admin_listen)),
    })
}

fn serve(settings: Settings) -> ExitCode {
    let telemetry = settings.telemetry.clone();
    PROGRAM.serve(SERVICE, &telemetry, async |telemetry, lifecycle| {
        Application::build(settings, telemetry, lifecycle)?.run().await
    })
}
