//! Preflight: checks an installation before the process serves, and reports every problem at once.

use std::{
    fmt::Display,
    fs::{self, OpenOptions},
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use linnet_jobs::UploadStore;
use linnet_tls::TlsFault;
use secrecy::ExposeSecret as _;
use sqlx::{Connection as _, error::DatabaseError};
use tokio::time::{Instant, sleep, timeout};

use crate::Settings;
use linnet_platform::redis_connection::connect;
use linnet_store::{
    NoPrimary, PoolerError, PoolerFault, PostgresSettings, tls_fault, verify_pooler,
};

/// Maximum wait for a server that was started together with this process.
pub const STARTUP_TIMEOUT: Duration = Duration::from_secs(20);
const RETRY_EVERY: Duration = Duration::from_millis(200);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// PostgreSQL's `invalid_password` and `invalid_authorization_specification`.
const REFUSED: [&str; 2] = ["28P01", "28000"];

/// The problems that were found, at least one.
#[derive(Debug, thiserror::Error)]
#[error("this installation has {} problem(s){}", .0.len(), lines(.0))]
pub struct PreflightError(Vec<Problem>);

/// One problem.
#[derive(Debug, thiserror::Error)]
enum Problem {
    #[error("{key}: {} is not writable: {source}", .folder.display())]
    Folder { key: &'static str, folder: PathBuf, source: io::Error },
    #[error("{key}: {reason}")]
    Postgres { key: &'static str, reason: NoPrimary },
    #[error("postgres.url: {}", pooler_reason(.0))]
    Pooler(#[from] PoolerError),
    #[error("redis.url: {}", with_reason(TlsFault::find(.0), .0))]
    Redis(#[from] redis::RedisError),
    /// A Redis that expects no TLS waits for more bytes instead of refusing the handshake.
    #[error("redis.url: {0}; check whether the server uses TLS, as rediss:// requires")]
    RedisHandshake(redis::RedisError),
    #[error(
        "redis.url: the maxmemory-policy `{0}` evicts queued clicks and jobs; \
         set volatile-lru or noeviction"
    )]
    Evicts(String),
}

/// The reason in words, with the error in brackets.
fn with_reason(fault: Option<TlsFault>, error: &impl Display) -> String {
    fault.map_or_else(|| error.to_string(), |fault| format!("{fault} ({error})"))
}

fn pooler_reason(error: &PoolerError) -> String {
    let fault = match error {
        PoolerError::Database(error) => PoolerFault::find(error),
        PoolerError::OtherServer | PoolerError::Timeout(_) => None,
    };
    fault.map_or_else(|| error.to_string(), |fault| fault.to_string())
}

fn lines(problems: &[Problem]) -> String {
    problems.iter().fold(String::new(), |text, problem| text + "\n  " + &problem.to_string())
}

/// Checks that directories are writable and that PostgreSQL and Redis accept connections. Waits up to
/// [`STARTUP_TIMEOUT`] for servers that are starting.
pub async fn preflight(settings: &Settings) -> Result<(), PreflightError> {
    let mut problems: Vec<Problem> = folders(settings)
        .into_iter()
        .filter_map(|(key, folder)| {
            let folder = folder.to_owned();
            try_folder(&folder).err().map(|source| Problem::Folder { key, folder, source })
        })
        .collect();
    let (postgres, redis) = futures::join!(
        retry_while_passing(|| try_postgres(&settings.postgres), Problem::may_pass),
        retry_while_passing(|| try_redis(settings), Problem::may_pass),
    );
    problems.extend([postgres.err(), redis.err()].into_iter().flatten());
    if problems.is_empty() { Ok(()) } else { Err(PreflightError(problems)) }
}

/// The folders that the settings use, with their keys.
fn folders(settings: &Settings) -> Vec<(&'static str, &Path)> {
    let spool = ("clicks.spool_dir", settings.clicks.spool_dir.as_path());
    match settings.jobs.upload_store {
        UploadStore::Directory => vec![spool, ("jobs.upload_dir", &settings.jobs.upload_dir)],
        UploadStore::Postgres => vec![spool],
    }
}

impl Problem {
    /// Whether the problem may end without a change by the operator.
    fn may_pass(&self) -> bool {
        match self {
            Self::Postgres { reason, .. } => {
                reason.failures().iter().any(|host| may_pass(&host.error))
            }
            Self::Pooler(PoolerError::Database(error)) => may_pass(error),
            Self::Pooler(PoolerError::Timeout(_)) | Self::RedisHandshake(_) => true,
            Self::Redis(error) => {
                error.kind() != redis::ErrorKind::AuthenticationFailed
                    && TlsFault::find(error).is_none()
            }
            Self::Folder { .. } | Self::Evicts(_) | Self::Pooler(PoolerError::OtherServer) => false,
        }
    }
}

fn may_pass(error: &sqlx::Error) -> bool {
    let code = error.as_database_error().and_then(DatabaseError::code);
    // For example 57P03 while PostgreSQL starts, or a database that is not created yet.
    let is_refused = code.is_some_and(|code| REFUSED.contains(&code.as_ref()));
    !is_refused && tls_fault(error).is_none() && PoolerFault::find(error).is_none()
}

async fn retry_while_passing<F: Future<Output = Result<(), Problem>>>(
    attempt: impl Fn() -> F,
    may_pass: impl Fn(&Problem) -> bool,
) -> Result<(), Problem> {
    let deadline = Instant::now() + STARTUP_TIMEOUT;
    loop {
        match attempt().await {
            Err(problem) if may_pass(&problem) && Instant::now() < deadline => {
                sleep(RETRY_EVERY).await;
            }
            result => return result,
        }
    }
}

fn try_folder(folder: &Path) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    let probe = folder.join(format!(".preflight-{}", std::process::id()));
    OpenOptions::new().write(true).create(true).truncate(true).open(&probe)?;
    fs::remove_file(probe)
}

async fn try_postgres(settings: &PostgresSettings) -> Result<(), Problem> {
    let key = if settings.is_pooled() { "postgres.direct_url" } else { "postgres.url" };
    let connected = settings.connect(CONNECT_TIMEOUT, |options| options).await;
    let mut session = connected.map_err(|reason| Problem::Postgres { key, reason })?;
    if settings.is_pooled() {
        verify_pooler(settings, &mut session, CONNECT_TIMEOUT).await?;
    }
    // A server that was reached is one that works: the farewell has no result.
    let _ = timeout(CONNECT_TIMEOUT, session.close()).await;
    Ok(())
}

async fn try_redis(settings: &Settings) -> Result<(), Problem> {
    let has_tls = settings.redis.url.expose_secret().starts_with("rediss");
    let connected = connect(&settings.redis, CONNECT_TIMEOUT).await;
    let mut redis = connected.map_err(|error| {
        if has_tls && error.is_timeout() { Problem::RedisHandshake(error) } else { error.into() }
    })?;
    let memory: String = redis::cmd("INFO").arg("memory").query_async(&mut redis).await?;
    let policy = memory.lines().find_map(|line| line.strip_prefix("maxmemory_policy:"));
    match policy.map(str::trim) {
        Some(policy) if policy.starts_with("allkeys") => Err(Problem::Evicts(policy.to_owned())),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_that_is_not_writable_is_found() {
        let dir = tempfile::tempdir().unwrap();
        assert!(try_folder(&dir.path().join("a/b")).is_ok());
        assert_eq!(fs::read_dir(dir.path().join("a/b")).unwrap().count(), 0);
        let file = dir.path().join("file");
        fs::write(&file, "").unwrap();
        assert!(try_folder(&file.join("below")).is_err());
    }

    #[test]
    fn uploads_in_the_database_need_no_directory() {
        let mut settings = Settings::default();
        let keys = |settings: &Settings| -> Vec<&str> {
            folders(settings).into_iter().map(|folder| folder.0).collect()
        };
        assert_eq!(keys(&settings), ["clicks.spool_dir", "jobs.upload_dir"]);
        settings.jobs.upload_store = UploadStore::Postgres;
        assert_eq!(keys(&settings), ["clicks.spool_dir"]);
    }

    #[test]
    fn all_problems_are_reported_at_once() {
        let problem = |key| Problem::Folder {
            key,
            folder: "/nowhere".into(),
            source: io::Error::from(io::ErrorKind::PermissionDenied),
        };
        let error = PreflightError(vec![problem("a"), problem("b")]).to_string();
        assert!(error.starts_with("this installation has 2 problem(s)\n  a: /nowhere"), "{error}");
        assert!(error.contains("\n  b: /nowhere is not writable"), "{error}");
    }
}
