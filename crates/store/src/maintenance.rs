//! Locks and records of maintenance tasks.
//!
//! * The process that runs a task holds an advisory lock in a database session that does nothing else. It leads past a
//!   pooler, if there is one.
//! * A session lock needs no open transaction, so no timeout of statements or idle transactions releases it. It ends
//!   with the session, and so with the process.
//! * If a machine disappears, the server's keep-alive probes end the session, or at the latest `idle_session_timeout`.

use std::{io, time::Duration};

use chrono::{DateTime, Utc};
use linnet_postgres::{HostPool, connect_session};
use sqlx::{ConnectOptions, Connection, PgConnection, PgExecutor, postgres::PgConnectOptions};

use super::{Store, StoreError, pooler::holds_lock};

/// Timeout of connecting, and of each statement in the session.
const SESSION_TIMEOUT: Duration = Duration::from_secs(5);
/// Idle time of the session beyond the longest run.
const IDLE_MARGIN: Duration = Duration::from_secs(30);
/// The longest stored error, in characters.
const MAX_ERROR_CHARS: usize = 1_000;

/// The record of a task's runs, by the clock of the database server.
#[derive(Debug, Clone)]
pub struct TaskRecord {
    /// The name of the task.
    pub task: String,
    /// When the last successful run began.
    pub succeeded_at: Option<DateTime<Utc>>,
    /// The time since then; also `None` if `succeeded_at` is later than the server's current time.
    pub since_success: Option<Duration>,
    /// The time since the last run ended, or began if it has not ended.
    pub since_attempt: Option<Duration>,
    /// Runs since the last success that failed or have not ended.
    pub failures: u32,
}

/// The session that holds a task's lock.
#[derive(Debug, Clone)]
pub struct TaskHolder {
    /// The process id of the PostgreSQL backend.
    pub session: i32,
    /// The client's address; `None` for a unix socket.
    pub address: Option<String>,
    /// When the session began, shortly before the run.
    pub since: DateTime<Utc>,
}

/// The outcome of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TaskOutcome {
    /// The run succeeded.
    Succeeded,
    /// The run failed.
    Failed,
    /// The run exceeded its timeout.
    TimedOut,
    /// The process stopped during the run. This is not a failure.
    Stopped,
}

impl TaskOutcome {
    /// All outcomes.
    pub const ALL: [Self; 4] = [Self::Succeeded, Self::Failed, Self::TimedOut, Self::Stopped];

    /// The name in the database and in metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::TimedOut => "timed_out",
            Self::Stopped => "stopped",
        }
    }
}

/// The session for a task's lock. Dropping it ends the session and releases the lock.
#[derive(Debug)]
pub struct TaskSession {
    connection: PgConnection,
    task: &'static str,
    /// Where the work runs, if that is through a pooler.
    pooled: Option<HostPool>,
}

/// A row of `maintenance_runs` with its ages in seconds.
struct TaskRecordRow {
    task: String,
    succeeded_at: Option<DateTime<Utc>>,
    since_success: Option<f64>,
    since_attempt: Option<f64>,
    failures: i32,
}

impl From<TaskRecordRow> for TaskRecord {
    fn from(row: TaskRecordRow) -> Self {
        let age = |seconds: Option<f64>| Duration::try_from_secs_f64(seconds?).ok();
        Self {
            task: row.task,
            succeeded_at: row.succeeded_at,
            since_success: age(row.since_success),
            since_attempt: age(row.since_attempt),
            failures: row.failures.try_into().unwrap_or(0),
        }
    }
}

impl Store {
    /// The records of all tasks that have ever run.
    pub async fn task_records(&self) -> Result<Vec<TaskRecord>, StoreError> {
        in_time(records(&self.pool, None)).await
    }

    /// Opens a session for the lock of a task whose runs take at most `longest`.
    pub async fn task_session(
        &self,
        task: &'static str,
        longest: Duration,
    ) -> Result<TaskSession, StoreError> {
        let timeout = SESSION_TIMEOUT.as_millis().to_string();
        let idle = (longest + IDLE_MARGIN).as_millis().to_string();
        // These values replace the pool's. Three lost probes, ten seconds apart, end the session.
        let of_session = |options: PgConnectOptions| {
            options.application_name("linnet-maintenance").disable_statement_logging().options([
                ("statement_timeout", timeout.as_str()),
                ("lock_timeout", timeout.as_str()),
                ("idle_session_timeout", idle.as_str()),
                ("tcp_keepalives_idle", "30"),
                ("tcp_keepalives_interval", "10"),
                ("tcp_keepalives_count", "3"),
            ])
        };
        let connection = match &self.direct {
            Some(direct) => direct
                .connect(SESSION_TIMEOUT, of_session)
                .await
                .map_err(|error| StoreError::Unavailable(io::Error::other(error).into()))?,
            None => {
                let options = (*self.pool.current().await?.connect_options()).clone();
                in_time(async { Ok(connect_session(&of_session(options)).await?) }).await?
            }
        };
        let pooled = self.direct.as_ref().map(|_| self.pool.clone());
        Ok(TaskSession { connection, task, pooled })
    }
}

impl TaskSession {
    /// Tries to take the task's lock. Returns whether it was free.
    pub async fn try_lock(&mut self) -> Result<bool, StoreError> {
        let query = sqlx::query_scalar!(
            r#"SELECT pg_try_advisory_lock(hashtextextended('linnet.maintenance.' || $1::text, 0)) AS "locked!""#,
            self.task
        );
        let is_free = in_time(async { Ok(query.fetch_one(&mut self.connection).await?) }).await?;
        if is_free && let Some(pooled) = self.pooled.clone() {
            in_time(self.verify_server_of(&pooled)).await?;
        }
        Ok(is_free)
    }

    /// Checks that the pooler leads to the server that granted the lock. The lock protects nothing on another one, such
    /// as a primary that was replaced.
    async fn verify_server_of(&mut self, pooled: &HostPool) -> Result<(), StoreError> {
        let key = "SELECT pg_backend_pid(), hashtextextended('linnet.maintenance.' || $1::text, 0)";
        let (session, key): (i32, i64) =
            sqlx::query_as(key).bind(self.task).fetch_one(&mut self.connection).await?;
        if holds_lock(pooled, session, key).await? {
            return Ok(());
        }
        let reason = "the pooler leads to another server than postgres.direct_url";
        Err(StoreError::Unavailable(io::Error::other(reason).into()))
    }

    /// The session that holds the task's lock, if any.
    pub async fn holder(&mut self) -> Result<Option<TaskHolder>, StoreError> {
        let query = sqlx::query_as!(
            TaskHolder,
            r#"SELECT session.pid AS "session!", host(client_addr) AS address,
                      backend_start AS "since!"
                 FROM pg_locks AS held JOIN pg_stat_activity AS session ON session.pid = held.pid
                WHERE locktype = 'advisory' AND granted AND objsubid = 1
                  AND held.database = (SELECT oid FROM pg_database WHERE datname = current_database())
                  AND (classid::bigint << 32) | objid::bigint
                      = hashtextextended('linnet.maintenance.' || $1::text, 0)
                LIMIT 1"#,
            self.task
        );
        in_time(async { Ok(query.fetch_optional(&mut self.connection).await?) }).await
    }

    /// The record of the task's runs; `None` if it has never run.
    pub async fn record(&mut self) -> Result<Option<TaskRecord>, StoreError> {
        let records = in_time(records(&mut self.connection, Some(self.task))).await?;
        Ok(records.into_iter().next())
    }

    /// Records that a run begins. The run counts as a failure until [`Self::finish`], so that a task that crashes its
    /// process is retried with the delays of a failing task.
    pub async fn begin(&mut self) -> Result<(), StoreError> {
        let query = sqlx::query!(
            "INSERT INTO maintenance_runs AS held (task, started_at, failures)
             VALUES ($1, clock_timestamp(), 1)
             ON CONFLICT (task) DO UPDATE SET
                 started_at = EXCLUDED.started_at, finished_at = NULL, outcome = NULL,
                 error = NULL, failures = held.failures + 1",
            self.task
        );
        in_time(async { Ok(query.execute(&mut self.connection).await?) }).await?;
        Ok(())
    }

    /// Records the outcome of the run.
    pub async fn finish(
        &mut self,
        outcome: TaskOutcome,
        error: Option<&str>,
    ) -> Result<(), StoreError> {
        let error = error.map(|text| text.chars().take(MAX_ERROR_CHARS).collect::<String>());
        let query = sqlx::query!(
            "UPDATE maintenance_runs SET
                 finished_at = clock_timestamp(), outcome = $2, error = $3,
                 succeeded_at = CASE WHEN $2 = 'succeeded' THEN started_at ELSE succeeded_at END,
                 failures = CASE $2 WHEN 'succeeded' THEN 0 WHEN 'stopped' THEN failures - 1
                                    ELSE failures END
              WHERE task = $1",
            self.task,
            outcome.name(),
            error
        );
        in_time(async { Ok(query.execute(&mut self.connection).await?) }).await?;
        Ok(())
    }

    /// Releases the lock and ends the session. If that fails, the session is dropped, and the server releases the lock.
    pub async fn close(mut self) {
        let closed = in_time(async {
            // The server detects the end of a session with a delay, so the lock is released first.
            sqlx::query!("SELECT pg_advisory_unlock_all()").execute(&mut self.connection).await?;
            self.connection.close().await?;
            Ok(())
        });
        if let Err(error) = closed.await {
            tracing::debug!(
                error = &error as &dyn std::error::Error,
                "lock not released; the server releases it with the session"
            );
        }
    }
}

async fn records(
    executor: impl PgExecutor<'_>,
    task: Option<&str>,
) -> Result<Vec<TaskRecord>, StoreError> {
    let rows = sqlx::query_as!(
        TaskRecordRow,
        r#"SELECT task, succeeded_at, failures,
                  extract(epoch FROM clock_timestamp() - succeeded_at)::float8 AS since_success,
                  extract(epoch FROM clock_timestamp()
                                     - GREATEST(started_at, finished_at))::float8 AS since_attempt
             FROM maintenance_runs WHERE $1::text IS NULL OR task = $1"#,
        task
    );
    let rows = rows.fetch_all(executor).await?;
    Ok(rows.into_iter().map(TaskRecord::from).collect())
}

/// Limits the work to [`SESSION_TIMEOUT`].
async fn in_time<T>(work: impl Future<Output = Result<T, StoreError>>) -> Result<T, StoreError> {
    match tokio::time::timeout(SESSION_TIMEOUT, work).await {
        Ok(outcome) => outcome,
        Err(elapsed) => Err(StoreError::Unavailable(sqlx::Error::Io(elapsed.into()))),
    }
}
