//! The command line that all programs share: options, exit codes, and running a service.

use std::{error::Error, fmt::Display, path::PathBuf, process::ExitCode};

use actix_web::rt::System;
use clap::Args;
use linnet_telemetry::{
    ServiceInfo, Telemetry, TelemetrySettings, control_group_limit, error_chain,
};

use crate::{
    environment::withhold_postgres_options,
    exit_code,
    lifecycle::Lifecycle,
    memory_budget::MemoryBudget,
    server::StartError,
    settings::{Problems, Settings, load},
};

/// The options of every program.
#[derive(Debug, Args)]
pub struct ProgramOptions {
    /// A TOML file with settings. Variables `LINNET__SECTION__KEY` override it.
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Validates the configuration, reports every problem, and exits (with 64 if there is a problem).
    #[arg(long, global = true)]
    check_config: bool,
}

/// A program. Its name is the prefix of its messages on standard error.
#[derive(Debug, Clone, Copy)]
pub struct Program(pub &'static str);

impl Program {
    /// Loads the settings and runs `command` with them; with `--check-config` it only loads them.
    pub fn run<T: Settings>(
        self,
        options: &ProgramOptions,
        command: impl FnOnce(T) -> ExitCode,
    ) -> ExitCode {
        if let Err(error) = withhold_postgres_options() {
            self.report(&error);
            return ExitCode::FAILURE;
        }
        match load(options.config.as_deref()) {
            Ok(_) if options.check_config => ExitCode::SUCCESS,
            Ok(settings) => command(settings),
            Err(error) => {
                self.report(&error);
                ExitCode::from(exit_code::BAD_CONFIGURATION)
            }
        }
    }

    /// Reports the error of a command, if any, and returns the exit code.
    pub fn end<E: Error + 'static>(self, result: Result<(), E>) -> ExitCode {
        match result {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                self.report(&error);
                ExitCode::FAILURE
            }
        }
    }

    /// Runs a service only if its budget fits the memory limit of its control group; otherwise reports a problem with
    /// `key` and exits with 64. `set_limit` is the limit from the settings, in bytes: if it is above 0, the settings
    /// were already checked against it. Without a limit there is no check.
    pub fn within_memory(
        self,
        budget: &MemoryBudget,
        key: &str,
        set_limit: u64,
        serve: impl FnOnce() -> ExitCode,
    ) -> ExitCode {
        let mut problems = Problems::default();
        if set_limit == 0
            && let Some(limit) = control_group_limit()
        {
            budget.check(key, limit, &mut problems);
        }
        match problems.into_result() {
            Ok(()) => serve(),
            Err(error) => {
                self.report(&error);
                ExitCode::from(exit_code::BAD_CONFIGURATION)
            }
        }
    }

    /// Prints the result of a command.
    #[expect(clippy::print_stdout, reason = "the command's output")]
    pub fn print(self, output: &impl Display) -> ExitCode {
        println!("{output}");
        ExitCode::SUCCESS
    }

    /// Runs a service with its telemetry until it ends or a signal stops it.
    pub fn serve(
        self,
        service: ServiceInfo,
        telemetry: &TelemetrySettings,
        run: impl AsyncFnOnce(&Telemetry, Lifecycle) -> Result<(), StartError>,
    ) -> ExitCode {
        let telemetry = match Telemetry::init(telemetry, service) {
            Ok(telemetry) => telemetry,
            Err(error) => return self.end(Err(error)),
        };
        let result = block_on(async {
            let lifecycle = Lifecycle::new();
            lifecycle.watch_signals()?;
            run(&telemetry, lifecycle).await
        });
        let code = match &result {
            Ok(()) => {
                tracing::info!("process stopped");
                ExitCode::SUCCESS
            }
            Err(error) => {
                tracing::error!(
                    service = service.name,
                    error = error as &dyn Error,
                    "process failed"
                );
                if matches!(error, StartError::TaskEnded) {
                    ExitCode::from(exit_code::TASK_ENDED)
                } else {
                    ExitCode::FAILURE
                }
            }
        };
        telemetry.shutdown();
        code
    }

    #[expect(clippy::print_stderr, reason = "the log does not exist yet, or the command has none")]
    fn report(self, error: &(dyn Error + 'static)) {
        eprintln!("{}: {}", self.0, error_chain(error));
    }
}

/// Runs a future on a new actix runtime.
pub fn block_on<F: Future>(future: F) -> F::Output {
    System::new().block_on(future)
}
