//! The frame of a program's command line: what comes before and after the command itself.

use std::{error::Error, iter, path::PathBuf, process::ExitCode};

use actix_web::rt::System;
use clap::Args;
use linnet_telemetry::{ServiceInfo, Telemetry, TelemetrySettings};

use crate::{
    EXIT_BAD_CONFIGURATION, EXIT_TASK_DIED,
    lifecycle::Lifecycle,
    server::StartError,
    settings::{Settings, load},
};

/// The options of every program.
#[derive(Debug, Args)]
pub struct Options {
    /// A TOML file with settings; `LINNET__SECTION__KEY` variables win over it.
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Checks the configuration, reports every problem, and exits (64 if there is any).
    #[arg(long, global = true)]
    check_config: bool,
}

/// A program, by its name: what it says before there is a log begins with that.
#[derive(Debug, Clone, Copy)]
pub struct Program(pub &'static str);

impl Program {
    /// Loads the settings and runs `command` with them, unless they are only to be checked.
    pub fn run<T: Settings>(
        self,
        options: &Options,
        command: impl FnOnce(T) -> ExitCode,
    ) -> ExitCode {
        match load(options.config.as_deref()) {
            Ok(_) if options.check_config => ExitCode::SUCCESS,
            Ok(settings) => command(settings),
            Err(error) => {
                self.complain(&error);
                ExitCode::from(EXIT_BAD_CONFIGURATION)
            }
        }
    }

    /// The end of a command that does one thing and says itself what came of it.
    pub fn end<E: Error + 'static>(self, outcome: Result<(), E>) -> ExitCode {
        match outcome {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                self.complain(&error);
                ExitCode::FAILURE
            }
        }
    }

    /// Runs a service, with its telemetry, until it ends or a signal ends it.
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
        let outcome = block_on(async {
            let lifecycle = Lifecycle::new();
            lifecycle.watch_signals()?;
            run(&telemetry, lifecycle).await
        });
        let code = match &outcome {
            Ok(()) => {
                tracing::info!("stopped");
                ExitCode::SUCCESS
            }
            Err(error) => {
                tracing::error!(error = error as &dyn Error, "the {} failed", service.name);
                if matches!(error, StartError::TaskDied) {
                    ExitCode::from(EXIT_TASK_DIED)
                } else {
                    ExitCode::FAILURE
                }
            }
        };
        telemetry.shutdown();
        code
    }

    #[expect(clippy::print_stderr, reason = "this is the program's face before there is a log")]
    fn complain(self, error: &(dyn Error + 'static)) {
        eprintln!("{}: {}", self.0, with_causes(error));
    }
}

/// Runs a future on an actix runtime of its own.
pub fn block_on<F: Future>(future: F) -> F::Output {
    System::new().block_on(future)
}

fn with_causes(error: &(dyn Error + 'static)) -> String {
    let chain = iter::successors(Some(error), |&error| error.source());
    chain.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{healthcheck::HealthcheckError, listener::Address};

    #[test]
    fn an_error_is_told_with_its_causes() {
        let address = Address::Unix("/run/admin.sock".into());
        let error = HealthcheckError::NoAnswer(address, std::std::io::Error::other("nobody is there"));
        assert_eq!(with_causes(&error), "unix:/run/admin.sock did not answer: nobody is there");
    }
}
