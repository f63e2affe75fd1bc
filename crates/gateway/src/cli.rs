//! The command line.

use std::{path::PathBuf, process::ExitCode, time::Duration};

use bytes::Bytes;
use clap::{Parser, Subcommand};
use http::{Request, Uri};
use http_body_util::Empty;
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use linnet_platform::{
    EXIT_BAD_CONFIGURATION, EXIT_TASK_DIED, lifecycle::Lifecycle, listener::Address, settings::load,
};
use linnet_telemetry::Telemetry;

use crate::{
    Application, StartError,
    config::Settings,
    release::{RELEASE, SERVICE},
    upstream::{Connector, authority_of},
};

/// Longest wait of `healthcheck`, in all.
const HEALTHCHECK_TIMEOUT: Duration = Duration::from_secs(3);

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
            Err(reason) => {
                eprintln!("linnet-gateway: {reason}");
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

fn healthcheck(admin: &Address) -> Result<(), String> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| error.to_string())?;
    runtime.block_on(async {
        tokio::time::timeout(HEALTHCHECK_TIMEOUT, ask_readiness(admin))
            .await
            .map_err(|_| format!("{admin} did not answer in time"))?
    })
}

async fn ask_readiness(admin: &Address) -> Result<(), String> {
    let connector = Connector::new([admin.clone()].into(), HEALTHCHECK_TIMEOUT);
    let client: Client<_, Empty<Bytes>> = Client::builder(TokioExecutor::new()).build(connector);
    let uri = Uri::builder()
        .scheme("http")
        .authority(authority_of(0).map_err(|error| error.to_string())?)
        .path_and_query("/readyz")
        .build()
        .map_err(|error| error.to_string())?;
    let mut request = Request::new(Empty::new());
    *request.uri_mut() = uri;
    let response = client.request(request).await.map_err(|error| format!("{admin}: {error}"))?;
    if response.status().is_success() {
        Ok(())
    } else {
        Err(format!("{admin} is not ready: {}", response.status()))
    }
}
