//! Commands for operators. They do not need a running service.

mod create_key;
mod erase_user;
mod generate;
mod import;
mod jobs;
mod run_task;
mod takedowns;
mod terminal;

use std::{
    path::PathBuf,
    time::{Duration, Instant},
};

use clap::{Args, Subcommand};

use linnet_clicks::ingest::IngestError;
use linnet_domain::{JobId, JobState, OnConflict, UserId};
use linnet_import::source::SourceError;
use linnet_platform::backoff::jittered;
use linnet_settings::{Settings, preflight::STARTUP_TIMEOUT};
use linnet_store::{PoolRole, PostgresHosts, RowQuotas, Store, StoreError};
use linnet_worker::maintenance::RunError;

/// Time between two attempts while the database is unavailable.
const RETRY_EVERY: Duration = Duration::from_millis(500);

/// The subcommands of `admin`.
#[derive(Debug, Subcommand)]
pub enum AdminCommand {
    /// Creates an API key and prints it. Creates the user if no user has the e-mail address.
    CreateKey(CreateKey),
    /// Deletes a user and all its data: links, history, clicks, roll-ups.
    EraseUser(EraseUser),
    /// Imports users, links and events from files, with the ids in the files.
    Import(Import),
    /// Lists, shows, cancels and replays bulk jobs.
    #[command(subcommand)]
    Jobs(Jobs),
    /// Generates links and clicks of the last days, to try the service. Only their owner distinguishes
    /// them from real ones.
    Generate(Generate),
    /// Runs a maintenance task now, in this process, and prints its result. Workers also run every task on
    /// its schedule.
    RunTask(RunTask),
    /// Takes a link down. It stays inactive until `restore-link` or the API ends the takedown. If it is
    /// deleted, its code is banned.
    TakeDown {
        /// The link's short code.
        code: String,
        /// Why; the owner of a link can read it.
        #[arg(long)]
        reason: Option<String>,
    },
    /// Ends a takedown. The link is active again unless its owner has deactivated it.
    RestoreLink {
        /// The link's short code.
        code: String,
    },
    /// Bans a host with its subdomains from targets, and takes down the links to it.
    BanHost {
        /// The host name or address.
        host: String,
        /// Why; the owner of a link can read it.
        #[arg(long)]
        reason: Option<String>,
    },
    /// Ends the ban of a host. The links to it stay taken down.
    UnbanHost {
        /// The host name or address.
        host: String,
    },
    /// Bans a short code: no new link gets it.
    BanCode {
        /// The short code.
        code: String,
        /// Why; the owner of a link can read it.
        #[arg(long)]
        reason: Option<String>,
    },
    /// Frees a short code that is banned, or held for the owner of a deleted link.
    ReleaseCode {
        /// The short code.
        code: String,
    },
}

/// Arguments of `admin create-key`.
#[derive(Debug, Args)]
pub struct CreateKey {
    /// The name of a new user.
    #[arg(long)]
    pub username: String,
    /// The user's e-mail address.
    #[arg(long)]
    pub email: String,
    /// Scopes of the key, comma-separated.
    #[arg(long, default_value = "admin", value_delimiter = ',')]
    pub scopes: Vec<String>,
    /// Name of the key.
    #[arg(long, default_value = "created on the command line")]
    pub name: String,
}

/// Arguments of `admin erase-user`.
#[derive(Debug, Args)]
pub struct EraseUser {
    /// The user's id.
    #[arg(long)]
    pub id: UserId,
}

/// Arguments of `admin import`.
#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("files").required(true).multiple(true).args(["users", "urls", "events"]))]
pub struct Import {
    /// Columns `username,email`; optional `id,created_at`. CSV, a JSON array, or NDJSON, recognized as for a bulk import
    /// whose format is not named: a name that ends in .csv or .tsv is CSV, otherwise the first character decides.
    #[arg(long, value_name = "FILE")]
    pub users: Option<PathBuf>,
    /// Column `original_url`; optional `id,user_id,short_code,title,is_active,redirect_status,expires_at,
    /// max_clicks,created_at,updated_at`.
    #[arg(long, value_name = "FILE")]
    pub urls: Option<PathBuf>,
    /// Columns `id,event_type,timestamp`; optional `url_id,user_id,details`.
    #[arg(long, value_name = "FILE")]
    pub events: Option<PathBuf>,
    /// For rows whose id, code or e-mail address is taken: fail (report them), skip or update.
    #[arg(long, value_name = "WHAT", default_value = "fail", value_parser = on_conflict)]
    pub on_conflict: OnConflict,
    /// Validates the files and reports the result without writing anything.
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
        /// The job's id.
        id: JobId,
    },
    /// Cancels a queued or running job. Rows that are written stay.
    Cancel {
        /// The job's id.
        id: JobId,
    },
    /// Returns a job from the dead-letter queue to its queue. It continues where it stopped.
    Replay {
        /// The job's id.
        id: JobId,
    },
}

/// Arguments of `admin jobs list`.
#[derive(Debug, Args)]
pub struct ListJobs {
    /// Only jobs in this state: queued, running, succeeded, failed or cancelled.
    #[arg(long, value_parser = job_state)]
    pub state: Option<JobState>,
    /// Only the dead-letter queue.
    #[arg(long)]
    pub dead: bool,
    /// The maximum number of jobs in the list.
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
    /// Number of links, with generated codes.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=4_000_000))]
    pub links: u32,
    /// Number of clicks, spread by Zipf's law: the link of rank k gets a share of 1/k.
    #[arg(long, value_name = "M", value_parser = clap::value_parser!(u64).range(..=1_000_000_000_000))]
    pub clicks: u64,
    /// Days over which the clicks are spread, up to the current hour.
    #[arg(long, value_name = "D", value_parser = clap::value_parser!(u32).range(1..=3_650))]
    pub days: u32,
    /// Seed of the clicks. Codes are different in each run.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Owner of the links. Created if no user has the e-mail address.
    #[arg(long, value_name = "EMAIL", default_value = "generated@example.com")]
    pub user: String,
    /// Adds the clicks to the stream for workers to write. Allows at most 7 days.
    #[arg(long)]
    pub to_stream: bool,
}

/// Arguments of `admin run-task`.
#[derive(Debug, Args)]
pub struct RunTask {
    /// Name of the task.
    #[arg(value_parser = run_task::task_names())]
    pub name: String,
    /// Longest wait while another process runs the task, in seconds.
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
        /// The name of the argument.
        argument: &'static str,
        /// The reason.
        message: String,
    },
    /// A database error.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The random number generator of the operating system failed.
    #[error("the operating system returned no random numbers")]
    Random(#[from] rand::rngs::SysError),
    /// A file cannot be read.
    #[error("cannot read {file}")]
    File {
        /// The file.
        file: PathBuf,
        /// The reason.
        source: std::io::Error,
    },
    /// A file has no rows of this kind.
    #[error("{file}: {reason}")]
    Rows {
        /// The file.
        file: PathBuf,
        /// The reason.
        reason: SourceError,
    },
    /// No job has this id.
    #[error("no job has the id {0}")]
    NoJob(JobId),
    /// The state of the job does not allow the change.
    #[error("job {id} is {state}")]
    JobState {
        /// The job.
        id: JobId,
        /// Its state.
        state: &'static str,
    },
    /// A Redis error.
    #[error("a Redis command failed")]
    Redis(#[from] redis::RedisError),
    /// Clicks could not be written.
    #[error(transparent)]
    Clicks(#[from] IngestError),
    /// A task failed.
    #[error(transparent)]
    Task(#[from] RunError),
    /// PostgreSQL did not confirm the commit of some rows, because it failed or another server took its place.
    #[error(
        "{file}: the rows before line {from} are imported; PostgreSQL did not confirm whether the next ones are, up to \
         line {to}. Repeat the command with --on-conflict=skip if each row has an id or a code. Otherwise look for these \
         rows, and remove the imported ones from the file"
    )]
    UnconfirmedRows {
        /// The file.
        file: PathBuf,
        /// The first line that may be imported.
        from: u64,
        /// The last one.
        to: u64,
        /// The error of the commit.
        source: StoreError,
    },
    /// Some rows were not imported; each has been reported.
    #[error("{0} row(s) were not imported")]
    BadRows(u64),
}

/// Runs a command.
pub async fn run(settings: &Settings, command: AdminCommand) -> Result<(), AdminError> {
    let mut postgres = match command {
        // These commands do the work of a worker or wait for one, so they need its longer timeouts.
        AdminCommand::EraseUser(_) | AdminCommand::Generate(_) | AdminCommand::RunTask(_) => {
            settings.worker_postgres()
        }
        _ => settings.postgres.clone(),
    };
    // An operator may exceed the quotas of users; a task counts for them.
    if !matches!(command, AdminCommand::RunTask(_)) {
        postgres.quotas = RowQuotas::default();
    }
    let role = match command {
        AdminCommand::Generate(_) => PoolRole::Generate,
        _ => PoolRole::Background,
    };
    // Commands are long and few, so they need no pooler, whose sessions have the timeouts of a shortener.
    let mut postgres = postgres.direct();
    // Unlike a request, a command may wait for a primary, and for a connection to a busy server.
    let wait_ms = u64::try_from(STARTUP_TIMEOUT.as_millis()).unwrap_or(u64::MAX);
    postgres.acquire_timeout_ms = postgres.acquire_timeout_ms.max(wait_ms);
    let (hosts, observe) = PostgresHosts::new(&postgres).map_err(StoreError::from)?;
    let observer = tokio::spawn(observe);
    let store = Store::connect(&postgres, role, &hosts)?;
    let result = async {
        wait_for_database(&store).await?;
        match command {
            // It begins each transaction again at another primary.
            AdminCommand::Import(arguments) => import::run(settings, &store, &arguments).await,
            command => {
                store.on_one_primary(Box::pin(run_on_one_primary(settings, &store, command))).await
            }
        }
    };
    let result = result.await;
    store.close().await;
    observer.abort();
    result
}

/// Waits for a database that starts, or whose primary is being replaced, as long as a process that starts does.
async fn wait_for_database(store: &Store) -> Result<(), StoreError> {
    let deadline = Instant::now() + STARTUP_TIMEOUT;
    loop {
        let error = match store.on_one_primary(store.ping()).await {
            Err(error @ StoreError::Unavailable(_)) => error,
            result => return result,
        };
        if Instant::now() >= deadline {
            return Err(error);
        }
        tokio::time::sleep(jittered(RETRY_EVERY)).await;
    }
}

async fn run_on_one_primary(
    settings: &Settings,
    store: &Store,
    command: AdminCommand,
) -> Result<(), AdminError> {
    match command {
        AdminCommand::CreateKey(arguments) => create_key::run(settings, store, &arguments).await,
        AdminCommand::EraseUser(arguments) => erase_user::run(store, &arguments).await,
        AdminCommand::Import(arguments) => import::run(settings, store, &arguments).await,
        AdminCommand::Jobs(command) => jobs::run(settings, store, &command).await,
        AdminCommand::Generate(arguments) => generate::run(settings, store, &arguments).await,
        AdminCommand::RunTask(arguments) => run_task::run(settings, store, &arguments).await,
        command @ (AdminCommand::TakeDown { .. }
        | AdminCommand::RestoreLink { .. }
        | AdminCommand::BanHost { .. }
        | AdminCommand::UnbanHost { .. }
        | AdminCommand::BanCode { .. }
        | AdminCommand::ReleaseCode { .. }) => takedowns::run(store, &command).await,
    }
}
