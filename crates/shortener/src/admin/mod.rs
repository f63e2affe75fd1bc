//! What the operator does from the command line, with the service running or not.

mod create_key;
mod erase_user;
mod generate;
mod import;
mod jobs;
mod run_task;
mod terminal;

use std::path::PathBuf;

use clap::{Args, Subcommand};

use crate::config::Settings;
use linnet_clicks::ingest::IngestError;
use linnet_domain::{JobId, JobState, OnConflict, UserId};
use linnet_import::source::SourceError;
use linnet_store::{PoolRole, Store, StoreError, connect_lazy};
use linnet_worker::maintenance::RunError;

/// The subcommands of `admin`.
#[derive(Debug, Subcommand)]
pub enum AdminCommand {
    /// Makes an API key and prints it; the user is made when no user has the address.
    CreateKey(CreateKey),
    /// Deletes a user with everything that is left of it: links, history, clicks, roll-ups.
    EraseUser(EraseUser),
    /// Loads users, links and events from CSV files, with the ids that they have there.
    Import(Import),
    /// Lists, shows, cancels and replays bulk jobs.
    #[command(subcommand)]
    Jobs(Jobs),
    /// Makes links and clicks of the last days, to try the service with. They cannot be told from real
    /// ones afterwards, but by their owner.
    Generate(Generate),
    /// Runs a task of the upkeep now, in this process, and says what it did. Workers run each by
    /// themselves in time.
    RunTask(RunTask),
}

/// Arguments of `admin create-key`.
#[derive(Debug, Args)]
pub struct CreateKey {
    /// The user's name, if the user is new.
    #[arg(long)]
    pub username: String,
    /// The user's e-mail address.
    #[arg(long)]
    pub email: String,
    /// What the key allows, comma-separated.
    #[arg(long, default_value = "admin", value_delimiter = ',')]
    pub scopes: Vec<String>,
    /// What to call the key.
    #[arg(long, default_value = "made on the command line")]
    pub name: String,
}

/// Arguments of `admin erase-user`.
#[derive(Debug, Args)]
pub struct EraseUser {
    /// The user's number.
    #[arg(long)]
    pub id: UserId,
}

/// Arguments of `admin import`.
#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("files").required(true).multiple(true).args(["users", "urls", "events"]))]
pub struct Import {
    /// `username,email` and, if you like, `id,created_at`: CSV, or JSON by the name's ending (.json for
    /// an array, .ndjson or .jsonl for an object a line).
    #[arg(long, value_name = "FILE")]
    pub users: Option<PathBuf>,
    /// `original_url` and, if you like, any of `id,user_id,short_code,title,is_active,redirect_status,
    /// expires_at,max_clicks,created_at,updated_at`.
    #[arg(long, value_name = "FILE")]
    pub urls: Option<PathBuf>,
    /// `id,event_type,timestamp` and, if you like, `url_id,user_id,details`.
    #[arg(long, value_name = "FILE")]
    pub events: Option<PathBuf>,
    /// What becomes of rows whose id, code or address is taken: fail (report them), skip or update.
    #[arg(long, value_name = "WHAT", default_value = "fail", value_parser = on_conflict)]
    pub on_conflict: OnConflict,
    /// Finds out what would come of it, and writes nothing.
    #[arg(long)]
    pub dry_run: bool,
}

fn on_conflict(text: &str) -> Result<OnConflict, String> {
    OnConflict::parse(text).ok_or_else(|| "must be fail, skip or update".to_owned())
}

/// The subcommands of `admin jobs`.
#[derive(Debug, Subcommand)]
pub enum Jobs {
    /// Lists jobs, by id.
    List(ListJobs),
    /// Shows a job.
    Show {
        /// The job's number.
        id: JobId,
    },
    /// Cancels a job that waits or runs. What was written until then stays.
    Cancel {
        /// The job's number.
        id: JobId,
    },
    /// Puts a job of the dead-letter queue back into its queue, to go on where it had come to.
    Replay {
        /// The job's number.
        id: JobId,
    },
}

/// Arguments of `admin jobs list`.
#[derive(Debug, Args)]
pub struct ListJobs {
    /// Only those in this state: queued, running, succeeded, failed or cancelled.
    #[arg(long, value_parser = job_state)]
    pub state: Option<JobState>,
    /// Only the dead-letter queue.
    #[arg(long)]
    pub dead: bool,
    /// How many, at most.
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(i64).range(1..))]
    pub limit: i64,
}

fn job_state(text: &str) -> Result<JobState, String> {
    let message = "must be queued, running, succeeded, failed or cancelled";
    JobState::parse(text).ok_or_else(|| message.to_owned())
}

/// Arguments of `admin generate`.
#[derive(Debug, Args)]
pub struct Generate {
    /// Links to make, with drawn codes.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=4_000_000))]
    pub links: u32,
    /// Clicks on them: the link of rank k gets a share of 1/k.
    #[arg(long, value_name = "M", value_parser = clap::value_parser!(u64).range(..=1_000_000_000_000))]
    pub clicks: u64,
    /// Days that the clicks are spread over, up to the hour that runs.
    #[arg(long, value_name = "D", value_parser = clap::value_parser!(u32).range(1..=3_650))]
    pub days: u32,
    /// The same seed draws the same clicks. Codes are drawn anew.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// The links' owner; made when no user has the address.
    #[arg(long, value_name = "EMAIL", default_value = "generated@example.com")]
    pub user: String,
    /// Leaves the clicks in the stream, for workers to write. At most 7 days then.
    #[arg(long)]
    pub to_stream: bool,
}

/// Arguments of `admin run-task`.
#[derive(Debug, Args)]
pub struct RunTask {
    /// The task.
    #[arg(value_parser = run_task::task_names())]
    pub name: String,
    /// Longest wait for a run that is under way elsewhere, in seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 60,
          value_parser = clap::value_parser!(u64).range(..=3_600))]
    pub wait: u64,
}

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    /// An argument is not valid.
    #[error("--{argument}: {message}")]
    Argument {
        /// Which.
        argument: &'static str,
        /// Why.
        message: String,
    },
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The system has no randomness to give.
    #[error("the system has no randomness to give")]
    Random(#[from] rand::rngs::SysError),
    /// A file cannot be read.
    #[error("cannot read {file}")]
    File {
        /// Which.
        file: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A file does not hold rows of this kind.
    #[error("{file}: {reason}")]
    Rows {
        /// Which.
        file: PathBuf,
        /// Why.
        reason: SourceError,
    },
    /// There is no such job.
    #[error("there is no job {0}")]
    NoJob(JobId),
    /// The job is in a state in which that cannot be done.
    #[error("job {id} is {state}")]
    JobState {
        /// Which.
        id: JobId,
        /// Its state.
        state: &'static str,
    },
    /// Redis.
    #[error("a Redis command failed")]
    Redis(#[from] redis::RedisError),
    /// Clicks cannot be written.
    #[error(transparent)]
    Clicks(#[from] IngestError),
    /// A task was not done.
    #[error(transparent)]
    Task(#[from] RunError),
    /// Some rows were not imported; each has been reported.
    #[error("{0} row(s) were not imported")]
    BadRows(u64),
}

/// Runs a command.
pub async fn run(settings: &Settings, command: AdminCommand) -> Result<(), AdminError> {
    let postgres = match command {
        // They do what workers do, or wait for them.
        AdminCommand::EraseUser(_) | AdminCommand::Generate(_) | AdminCommand::RunTask(_) => {
            settings.worker_postgres()
        }
        _ => settings.postgres.clone(),
    };
    let store = Store::new(connect_lazy(&postgres, PoolRole::Background)?);
    let outcome = match command {
        AdminCommand::CreateKey(arguments) => create_key::run(&store, &arguments).await,
        AdminCommand::EraseUser(arguments) => erase_user::run(&store, &arguments).await,
        AdminCommand::Import(arguments) => import::run(settings, &store, &arguments).await,
        AdminCommand::Jobs(command) => jobs::run(settings, &store, &command).await,
        AdminCommand::Generate(arguments) => generate::run(settings, &store, &arguments).await,
        AdminCommand::RunTask(arguments) => run_task::run(settings, &store, &arguments).await,
    };
    store.close().await;
    outcome
}
