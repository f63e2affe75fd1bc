//! The command line.

use std::{path::PathBuf, process::ExitCode};

use clap::{Parser, Subcommand};
use linnet_platform::{
    EXIT_BAD_CONFIGURATION, EXIT_TASK_DIED, healthcheck::healthcheck, lifecycle::Lifecycle,
    settings::load,
};
use linnet_telemetry::Telemetry;

use crate::{
    Application, StartError,
    config::Settings,
    release::{RELEASE, SERVICE},
};

/// Linnet's gateway: authenticates, limits and routes API requests.
#[derive(Debug, Parser)]
#[command(name = "linnet-gateway", version = RELEASE)]
struct Arguments {
    /// A TOML file with settings; `LINNET__SECTION__KEY` variables win over it.
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Checks the configuration, reports every problem, and exits (64 if there is any).
    #[arg(long, global = true)]
    check_config: bool,
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
#[expect(clippy::print_stderr, reason = "this is the program's face before there is a log")]
pub fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let settings: Settings = match load(arguments.config.as_deref()) {
        Ok(settings) => settings,
        Err(error) => {
            eprintln!("linnet-gateway: {error}");
            return ExitCode::from(EXIT_BAD_CONFIGURATION);
        }
    };
    if arguments.check_config {
        return ExitCode::SUCCESS;
    }
    match arguments.command.unwrap_or_default() {
        Command::Serve => serve(settings),
        Command::Healthcheck => match healthcheck(&settings.gateway.admin_listen) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("linnet-gateway: {error}");
                ExitCode::FAILURE
            }
        },
    }
}

#[expect(clippy::print_stderr, reason = "without telemetry there is no log")]
fn serve(settings: Settings) -> ExitCode {
    let telemetry = match Telemetry::init(&settings.telemetry, SERVICE) {
        Ok(telemetry) => telemetry,
        Err(error) => {
            eprintln!("linnet-gateway: {error}");
            return ExitCode::FAILURE;
        }
    };
    let outcome = actix_web::rt::System::new().block_on(async {
        let lifecycle = Lifecycle::new();
        lifecycle.watch_signals()?;
        Application::build(settings, &telemetry, lifecycle)?.run().await
    });
    let code = match &outcome {
        Ok(()) => {
            tracing::info!("stopped");
            ExitCode::SUCCESS
        }
        Err(error) => {
            tracing::error!(error = error as &dyn std::error::Error, "the gateway failed");
            match error {
                StartError::TaskDied => ExitCode::from(EXIT_TASK_DIED),
                _ => ExitCode::FAILURE,
            }
        }
    };
    telemetry.shutdown();
    code
}
