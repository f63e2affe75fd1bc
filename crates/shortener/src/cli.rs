//! The command line.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use linnet_admin::AdminCommand;
use linnet_platform::{
    cli::{Program, ProgramOptions, block_on},
    healthcheck::healthcheck,
};

use crate::{
    config::{MEMORY_KEYS, Settings, preflight},
    release::{RELEASE, SERVICE, WORKER},
    startup,
};

const PROGRAM: Program = Program("linnet-shortener");

/// Linnet's shortener: stores links and resolves them.
#[derive(Debug, Parser)]
#[command(name = PROGRAM.0, version = RELEASE)]
struct Arguments {
    #[command(flatten)]
    options: ProgramOptions,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Default, Subcommand)]
enum Command {
    /// Serves the resolve listener and the API (default).
    #[default]
    Serve,
    /// Writes clicks to the database, and runs bulk jobs and maintenance. Any number of workers may run.
    Worker,
    /// Checks that directories are writable and that PostgreSQL and Redis accept connections. Reports every
    /// problem, and exits with 0 or 1.
    Preflight,
    /// Migrates the database schema to this release.
    Migrate,
    /// Prints the statements by which a pooler must set the parameters of its server connections: `connect_query` of
    /// PgBouncer.
    PoolerQuery {
        /// Prints those for workers instead.
        #[arg(long)]
        worker: bool,
    },
    /// Commands for operators.
    #[command(subcommand)]
    Admin(AdminCommand),
    /// Prints the most memory that the settings allow, term by term.
    Budget {
        /// Prints the memory of the worker instead.
        #[arg(long)]
        worker: bool,
    },
    /// Checks that the running shortener is ready, through its admin listener. Exits with 0 or 1.
    Healthcheck {
        /// Checks the worker instead.
        #[arg(long)]
        worker: bool,
    },
}

/// Runs the program.
pub fn main() -> ExitCode {
    let Arguments { options, command } = Arguments::parse();
    PROGRAM.run(&options, |settings: Settings| match command.unwrap_or_default() {
        Command::Serve => {
            let (budget, limit) = (settings.memory_budget(), settings.shortener.memory_bytes);
            PROGRAM.within_memory(&budget, MEMORY_KEYS[0], limit, || serve(settings))
        }
        Command::Worker => {
            let (budget, limit) = (settings.worker_memory_budget(), settings.worker.memory_bytes);
            PROGRAM.within_memory(&budget, MEMORY_KEYS[1], limit, || work(&settings))
        }
        Command::Budget { worker: false } => PROGRAM.print(&settings.memory_budget()),
        Command::Budget { worker: true } => PROGRAM.print(&settings.worker_memory_budget()),
        Command::Preflight => PROGRAM.end(block_on(preflight::preflight(&settings))),
        Command::Migrate => PROGRAM.end(block_on(linnet_store::migrate(&settings.postgres))),
        Command::PoolerQuery { worker } => PROGRAM.print(&settings.pooler_query(worker)),
        Command::Admin(command) => PROGRAM.end(block_on(linnet_admin::run(&settings, command))),
        Command::Healthcheck { worker: false } => {
            PROGRAM.end(healthcheck(&settings.shortener.admin_listen))
        }
        Command::Healthcheck { worker: true } => {
            PROGRAM.end(healthcheck(&settings.worker.admin_listen))
        }
    })
}

fn serve(settings: Settings) -> ExitCode {
    let telemetry = settings.telemetry.clone();
    PROGRAM.serve(SERVICE, &telemetry, async |telemetry, lifecycle| {
        startup::serve(settings, telemetry, lifecycle).await
    })
}

fn work(settings: &Settings) -> ExitCode {
    let telemetry = settings.telemetry.clone();
    PROGRAM.serve(WORKER, &telemetry, async |telemetry, lifecycle| {
        linnet_worker::run(settings.worker_config(WORKER)?, telemetry, lifecycle).await
    })
}
