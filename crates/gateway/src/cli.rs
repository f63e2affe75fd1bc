//! The command line.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use linnet_platform::{
    cli::{Options, Program},
    healthcheck::healthcheck,
};

use crate::{
    Application,
    config::Settings,
    release::{RELEASE, SERVICE},
};

const PROGRAM: Program = Program("linnet-gateway");

/// Linnet's gateway: authenticates, limits and routes API requests.
#[derive(Debug, Parser)]
#[command(name = PROGRAM.0, version = RELEASE)]
struct Arguments {
    #[command(flatten)]
    options: Options,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Default, Clone, Copy, Subcommand)]
enum Command {
    /// Serves (the default).
    #[default]
    Serve,
    /// Asks the running gateway's admin listener whether it is ready; exits with 0 or 1.
    Healthcheck,
}

/// Runs the program.
pub fn main() -> ExitCode {
    let Arguments { options, command } = Arguments::parse();
    PROGRAM.run(&options, |settings: Settings| match command.unwrap_or_default() {
        Command::Serve => serve(settings),
        Command::Healthcheck => PROGRAM.end(healthcheck(&settings.gateway.admin_listen)),
    })
}

fn serve(settings: Settings) -> ExitCode {
    let telemetry = settings.telemetry.clone();
    PROGRAM.serve(SERVICE, &telemetry, async |telemetry, lifecycle| {
        Application::build(settings, telemetry, lifecycle)?.run().await
    })
}
