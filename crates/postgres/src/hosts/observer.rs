//! Observes each host through a connection of its own.

use std::{io, time::Duration};

use linnet_platform::backoff::jittered;
use sqlx::{
    ConnectOptions, Connection as _, PgConnection, Row as _, postgres::PgConnectOptions,
    postgres::PgRow,
};
use tokio::time::{sleep, timeout};

use super::{ObservedHosts, election::Observation};

/// Interval between two observations of a host.
const EVERY: Duration = Duration::from_millis(500);
/// Longest wait for a connection, and for a response. A host that needs longer does not respond.
const TIMEOUT: Duration = Duration::from_secs(2);
/// Shortest interval between two observations, also if they are urgent.
const AT_LEAST: Duration = Duration::from_millis(50);

/// In the simple protocol, which works through poolers without any state of the session. Some managed servers do not
/// have the functions for the timeline; they have one writer behind one name.
const STATE: &str =
    "SELECT NOT (pg_is_in_recovery() OR current_setting('transaction_read_only')::boolean),
    CASE WHEN pg_is_in_recovery()
         THEN COALESCE((SELECT received_tli FROM pg_stat_wal_receiver),
                       (SELECT timeline_id FROM pg_control_checkpoint()))::bigint
         ELSE ('x' || left(pg_walfile_name(pg_current_wal_insert_lsn()), 8))::bit(32)::bigint END,
    (extract(epoch FROM pg_postmaster_start_time()) * 1e6)::bigint,
    (CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn()
          ELSE pg_current_wal_flush_lsn() END - '0/0'::pg_lsn)::bigint";
const STATE_WITHOUT_TIMELINE: &str =
    "SELECT NOT (pg_is_in_recovery() OR current_setting('transaction_read_only')::boolean),
    0::bigint, (extract(epoch FROM pg_postmaster_start_time()) * 1e6)::bigint, 0::bigint";

/// Observes all hosts, for ever.
pub(super) async fn observe_all(hosts: &ObservedHosts, options: &[PgConnectOptions]) {
    let observers = options.iter().enumerate().map(|(host, options)| {
        let options = options.clone().application_name("linnet-observer");
        observe_host(hosts, host, options.disable_statement_logging())
    });
    futures::future::join_all(observers).await;
}

async fn observe_host(hosts: &ObservedHosts, host: usize, options: PgConnectOptions) {
    loop {
        let error = match in_time(PgConnection::connect_with(&options)).await {
            Ok(connection) => follow(hosts, host, connection).await,
            Err(error) => error,
        };
        hosts.observe(host, Err(&error));
        wait(hosts).await;
    }
}

/// `SQLSTATE` codes of servers that have no functions for the timeline, or do not allow them: `undefined_function`,
/// `insufficient_privilege`, `feature_not_supported`.
const WITHOUT_TIMELINE: [&str; 3] = ["42883", "42501", "0A000"];

/// Reports the state of a host until its connection breaks, or the server refuses the query. Returns why.
async fn follow(hosts: &ObservedHosts, host: usize, mut connection: PgConnection) -> sqlx::Error {
    let mut state = STATE;
    loop {
        match in_time(sqlx::raw_sql(state).fetch_one(&mut connection))
            .await
            .and_then(|row| read(&row))
        {
            Ok(observation) => hosts.observe(host, Ok(observation)),
            Err(sqlx::Error::Database(error))
                if state == STATE
                    && error.code().is_some_and(|code| WITHOUT_TIMELINE.contains(&&*code)) =>
            {
                tracing::info!(%error, "timeline of PostgreSQL unknown");
                state = STATE_WITHOUT_TIMELINE;
                continue;
            }
            Err(error) => {
                // The connection is dropped: a farewell could wait for a host that does not respond.
                return error;
            }
        }
        wait(hosts).await;
    }
}

fn read(row: &PgRow) -> Result<Observation, sqlx::Error> {
    Ok(Observation {
        accepts_writes: row.try_get(0)?,
        timeline: row.try_get(1)?,
        started_us: row.try_get(2)?,
        // A standby that has replayed nothing yet has none.
        position: row.try_get::<Option<i64>, _>(3)?.unwrap_or(0),
    })
}

async fn wait(hosts: &ObservedHosts) {
    let urgent = hosts.hurry.notified();
    sleep(AT_LEAST).await;
    let _ = timeout(jittered(EVERY), urgent).await;
}

async fn in_time<T>(work: impl Future<Output = Result<T, sqlx::Error>>) -> Result<T, sqlx::Error> {
    match timeout(TIMEOUT, work).await {
        Ok(result) => result,
        Err(_) => Err(sqlx::Error::Io(io::Error::from(io::ErrorKind::TimedOut))),
    }
}
