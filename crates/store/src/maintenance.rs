//! Tasks of the upkeep: who runs one now, and when each ran.
//!
//! Whoever runs a task holds an advisory lock, in a session of its own that does nothing else. A lock
//! of a session needs no open transaction, so no time-out of statements or of idle transactions ends
//! it, and it ends with the process, however that ends. A machine that vanishes says nothing: then
//! the server's probes of the connection find out, and `idle_session_timeout` at the latest.

use std::time::Duration;

use chrono::{DateTime, Utc};
use sqlx::{ConnectOptions, Connection, PgConnection, PgExecutor};

use super::{Store, StoreError};

/// Longest wait for the session, and for each small statement here.
const SESSION_TIMEOUT: Duration = Duration::from_secs(5);
/// How long the session may be idle beyond the longest run.
const IDLE_MARGIN: Duration = Duration::from_secs(30);
/// An error's text is cut here, in characters.
const MAX_ERROR: usize = 1_000;

/// What is known of a task's runs, by the server's clock.
#[derive(Debug, Clone)]
pub struct TaskRecord {
    /// The task.
    pub task: String,
    /// When the last run that succeeded began.
    pub succeeded_at: Option<DateTime<Utc>>,
    /// How long ago that was; `None` also when the clock says that it is to come.
    pub since_success: Option<Duration>,
    /// How long ago the last run ended, or began if it has not ended.
    pub since_attempt: Option<Duration>,
    /// Runs that began since the last success and did not end well.
    pub failures: u32,
}

/// Who runs a task.
#[derive(Debug, Clone)]
pub struct TaskHolder {
    /// The process of PostgreSQL that holds the lock.
    pub session: i32,
    /// The client's address; `None` for a unix socket.
    pub address: Option<String>,
    /// When the session began, which is about when the run did.
    pub since: DateTime<Utc>,
}

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TaskOutcome {
    /// All is done.
    Succeeded,
    /// Something went wrong.
    Failed,
    /// It took too long.
    TimedOut,
    /// The process stops; no failure.
    Stopped,
}

impl TaskOutcome {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Succeeded, Self::Failed, Self::TimedOut, Self::Stopped];

    /// What it is called in the table and in metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::TimedOut => "timed_out",
            Self::Stopped => "stopped",
        }
    }
}

/// The session in which a task's lock is held; dropped, it ends, and the lock with it.
#[derive(Debug)]
pub struct TaskSession {
    connection: PgConnection,
    task: &'static str,
}

/// A row of `maintenance_runs` with its ages in seconds.
struct RecordRow {
    task: String,
    succeeded_at: Option<DateTime<Utc>>,
    since_success: Option<f64>,
    since_attempt: Option<f64>,
    failures: i32,
}

impl From<RecordRow> for TaskRecord {
    fn from(row: RecordRow) -> Self {
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
    /// What is known of all tasks; one that never ran is not among them.
    pub async fn task_records(&self) -> Result<Vec<TaskRecord>, StoreError> {
        in_time(records(&self.pool, None)).await
    }

    /// Opens a session for the lock of a task that runs for `longest` at most.
    pub async fn task_session(
        &self,
        task: &'static str,
        longest: Duration,
    ) -> Result<TaskSession, StoreError> {
        let timeout = SESSION_TIMEOUT.as_millis().to_string();
        let idle = (longest + IDLE_MARGIN).as_millis().to_string();
        // The later value wins over that of the pool. Three probes, ten seconds apart, find a client
        // gone.
        let options = (*self.pool.connect_options())
            .clone()
            .application_name("linnet-maintenance")
            .options([
                ("statement_timeout", timeout.as_str()),
                ("lock_timeout", timeout.as_str()),
                ("idle_session_timeout", idle.as_str()),
                ("tcp_keepalives_idle", "30"),
                ("tcp_keepalives_interval", "10"),
                ("tcp_keepalives_count", "3"),
            ]);
        let connection = in_time(async { Ok(options.connect().await?) }).await?;
        Ok(TaskSession { connection, task })
    }
}

impl TaskSession {
    /// Takes the task's lock; false when somebody else has it.
    pub async fn try_lock(&mut self) -> Result<bool, StoreError> {
        let query = sqlx::query_scalar!(
            r#"SELECT pg_try_advisory_lock(hashtextextended('linnet.upkeep.' || $1::text, 0)) AS "locked!""#,
            self.task
        );
        in_time(async { Ok(query.fetch_one(&mut self.connection).await?) }).await
    }

    /// Who has the task's lock, if anybody has.
    pub async fn holder(&mut self) -> Result<Option<TaskHolder>, StoreError> {
        let query = sqlx::query_as!(
            TaskHolder,
            r#"SELECT session.pid AS "session!", host(client_addr) AS address,
                      backend_start AS "since!"
                 FROM pg_locks AS held JOIN pg_stat_activity AS session ON session.pid = held.pid
                WHERE locktype = 'advisory' AND granted AND objsubid = 1
                  AND held.database = (SELECT oid FROM pg_database WHERE datname = current_database())
                  AND (classid::bigint << 32) | objid::bigint
                      = hashtextextended('linnet.upkeep.' || $1::text, 0)
                LIMIT 1"#,
            self.task
        );
        in_time(async { Ok(query.fetch_optional(&mut self.connection).await?) }).await
    }

    /// What is known of the task's runs.
    pub async fn record(&mut self) -> Result<Option<TaskRecord>, StoreError> {
        let records = in_time(records(&mut self.connection, Some(self.task))).await?;
        Ok(records.into_iter().next())
    }

    /// Notes that a run begins. It counts as a failure until [`Self::finish`] says otherwise, so a task
    /// that takes its process down is not begun again and again.
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

    /// Notes how the run ended.
    pub async fn finish(
        &mut self,
        outcome: TaskOutcome,
        error: Option<&str>,
    ) -> Result<(), StoreError> {
        let error = error.map(|text| text.chars().take(MAX_ERROR).collect::<String>());
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

    /// Gives the lock back and ends the session. Should either fail, the session is dropped, and the
    /// server takes the lock back by itself.
    pub async fn close(mut self) {
        let closed = in_time(async {
            // At once: the end of a session takes a moment to be seen.
            sqlx::query!("SELECT pg_advisory_unlock_all()").execute(&mut self.connection).await?;
            self.connection.close().await?;
            Ok(())
        });
        if let Err(error) = closed.await {
            tracing::debug!(
                error = &error as &dyn std::error::Error,
                "a lock ends with its session"
            );
        }
    }
}

async fn records(
    executor: impl PgExecutor<'_>,
    task: Option<&str>,
) -> Result<Vec<TaskRecord>, StoreError> {
    let rows = sqlx::query_as!(
        RecordRow,
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

async fn in_time<T>(work: impl Future<Output = Result<T, StoreError>>) -> Result<T, StoreError> {
    match tokio::time::timeout(SESSION_TIMEOUT, work).await {
        Ok(outcome) => outcome,
        Err(elapsed) => Err(StoreError::Unavailable(sqlx::Error::Io(elapsed.into()))),
    }
}
