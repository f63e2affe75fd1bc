//! The command line.

use std::{path::PathBuf, process::ExitCode};

use clap::{Parser, Subcommand};
use linnet_platform::{
    EXIT_BAD_CONFIGURATION, EXIT_TASK_DIED, healthcheck::healthcheck, lifecycle::Lifecycle,
};
use linnet_telemetry::Telemetry;

use crate::{
    admin::{self, AdminCommand},
    config::Settings,
    release::{RELEASE, SERVICE},
    startup::{self, StartError},
    store,
};

/// Linnet's shortener: keeps links and resolves them.
#[derive(Debug, Parser)]
#[command(name = "linnet-shortener", version = RELEASE)]
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

#[derive(Debug, Default, Subcommand)]
enum Command {
    /// Serves (the default).
    #[default]
    Serve,
    /// Brings the database's schema up to this release.
    Migrate,
    /// What the operator does by hand.
    #[command(subcommand)]
    Admin(AdminCommand),
    /// Asks the running shortener's admin listener whether it is ready; exits with 0 or 1.
    Healthcheck,
}

/// Runs the program.
#[expect(clippy::print_stderr, reason = "this is the program's face before there is a log")]
pub fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let settings = match Settings::load(arguments.config.as_deref()) {
        Ok(settings) => settings,
        Err(error) => {
            eprintln!("linnet-shortener: {error}");
            return ExitCode::from(EXIT_BAD_CONFIGURATION);
        }
    };
    if arguments.check_config {
        return ExitCode::SUCCESS;
    }
    let outcome: Result<(), Box<dyn std::error::Error>> = match arguments
        .command
        .unwrap_or_default()
    {
        Command::Serve => return serve(settings),
        Command::Migrate => block_on(store::migrate(&settings.postgres)).map_err(Into::into),
        Command::Admin(command) => block_on(admin::run(&settings, command)).map_err(Into::into),
        Command::Healthcheck => healthcheck(&settings.shortener.admin_listen).map_err(Into::into),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprint!("linnet-shortener: {error}");
            let mut source = error.source();
            while let Some(cause) = source {
                eprint!(": {cause}");
                source = cause.source();
            }
            eprintln!();
            ExitCode::FAILURE
        }
    }
}

fn block_on<F: Future>(future: F) -> F::Output {
    actix_web::rt::System::new().block_on(future)
}

#[expect(clippy::print_stderr, reason = "without telemetry there is no log")]
fn serve(settings: Settings) -> ExitCode {
    let telemetry = match Telemetry::init(&settings.telemetry, SERVICE) {
        Ok(telemetry) => telemetry,
        Err(error) => {
            eprintln!("linnet-shortener: {error}");
            return ExitCode::FAILURE;
        }
    };
    let outcome = block_on(async {
        let lifecycle = Lifecycle::new();
        lifecycle.watch_signals()?;
        startup::serve(settings, &telemetry, lifecycle).await
    });
    let code = match &outcome {
        Ok(()) => {
            tracing::info!("stopped");
            ExitCode::SUCCESS
        }
        Err(error) => {
            tracing::error!(error = error as &dyn std::error::Error, "the shortener failed");
            match error {
                StartError::TaskDied => ExitCode::from(EXIT_TASK_DIED),
                _ => ExitCode::FAILURE,
            }
        }
    };
    telemetry.shutdown();
    code
}
