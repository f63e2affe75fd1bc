//! Connection pools.

use std::time::Duration;

use log::LevelFilter;
use sqlx::{
    ConnectOptions as _, Connection as _,
    postgres::{PgConnectOptions, PgPoolOptions},
};

use linnet_postgres::{
    HostPool, PostgresHosts, PostgresSettings, ReplicaReads, SessionParameter, connect_query,
    pooled_options, verify_pooled,
};

use super::{SHARDS, StoreError};

/// A connection that was idle for longer is tested before use. Other connections are not, because the round trip would
/// double the cost of a short statement.
const TEST_AFTER_IDLE: Duration = Duration::from_secs(1);
const IDLE_TIMEOUT: Duration = Duration::from_mins(5);
const MAX_LIFETIME: Duration = Duration::from_mins(30);
/// Size of the pending list of the GIN index for `search`, in kB. The transaction that fills the list merges it into
/// the index. With PostgreSQL's default of 4 MB the merge takes half a second of a core, and redirects wait for it.
const WORKER_PENDING_KB: u64 = 256;
/// The same for `admin generate`, whose merges are larger and fewer: many of their entries go into the same pages.
const GENERATE_PENDING_KB: u64 = 16 * 1024;

/// The use of a pool, which determines its share of `postgres.max_connections`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PoolRole {
    /// A server thread of the resolve listener. All of them share a third.
    Resolve {
        /// The number of server threads.
        server_threads: usize,
    },
    /// A server thread of the API listener. All of them share the rest.
    Api {
        /// The number of server threads.
        server_threads: usize,
    },
    /// Background tasks: two connections.
    Background,
    /// `admin generate`: as many connections, with settings for many links.
    Generate,
    /// The outbox relay, on a thread of its own: one connection.
    Outbox,
    /// The worker process, background tasks included.
    Worker {
        /// Consumers of clicks. Each needs a connection per shard.
        consumers: u32,
        /// Connections for jobs.
        jobs: u32,
    },
}

const BACKGROUND_CONNECTIONS: u32 = 2;
const OUTBOX_CONNECTIONS: u32 = 1;
/// Connections of a shortener that its server threads do not use.
const RESERVED_CONNECTIONS: u32 = BACKGROUND_CONNECTIONS + OUTBOX_CONNECTIONS;

impl PoolRole {
    /// The maximum number of server threads of each listener for which there are enough connections.
    pub fn max_server_threads(settings: &PostgresSettings) -> usize {
        let resolve = settings.max_connections.saturating_sub(RESERVED_CONNECTIONS) / 3;
        usize::try_from(resolve).unwrap_or(usize::MAX).max(1)
    }

    fn connections(self, max: u32) -> u32 {
        let shared = max.saturating_sub(RESERVED_CONNECTIONS);
        let resolve = shared / 3;
        let (share, server_threads) = match self {
            Self::Background | Self::Generate => return BACKGROUND_CONNECTIONS,
            Self::Outbox => return OUTBOX_CONNECTIONS,
            Self::Worker { consumers, jobs } => {
                let shards = u32::try_from(SHARDS.len()).unwrap_or(u32::MAX);
                return BACKGROUND_CONNECTIONS + consumers * shards + jobs;
            }
            Self::Resolve { server_threads } => (resolve, server_threads),
            Self::Api { server_threads } => (shared - resolve, server_threads),
        };
        (share / u32::try_from(server_threads).unwrap_or(u32::MAX).max(1)).max(1)
    }
}

/// A pool that connects on first use, so that a process can start while the database is unavailable.
pub(crate) fn open(
    settings: &PostgresSettings,
    role: PoolRole,
    hosts: &PostgresHosts,
) -> Result<HostPool, StoreError> {
    let options = settings.connect_options()?.into_iter();
    let options: Vec<_> = options.map(|options| session_options(options, settings, role)).collect();
    let mut pool = pool_options(settings, role);
    if settings.is_pooled() {
        let parameters = session_parameters(settings, role);
        pool = pool.after_connect(move |connection, _| {
            let parameters = parameters.clone();
            Box::pin(async move { verify_pooled(connection, &parameters).await })
        });
    }
    Ok(hosts.pool(pool, options))
}

/// The connections of the API to the replica, if there is one. Other roles only read what they also change.
pub(crate) fn open_replica(
    settings: &PostgresSettings,
    role: PoolRole,
    hosts: &PostgresHosts,
) -> Result<Option<ReplicaReads>, StoreError> {
    let Some(options) = settings.replica_options()? else { return Ok(None) };
    if !matches!(role, PoolRole::Api { .. }) {
        return Ok(None);
    }
    let options = session_options(options, settings, role);
    Ok(hosts.replica_reads(pool_options(settings, role), options))
}

fn pool_options(settings: &PostgresSettings, role: PoolRole) -> PgPoolOptions {
    PgPoolOptions::new()
        .max_connections(role.connections(settings.max_connections))
        .acquire_timeout(settings.acquire_timeout())
        .idle_timeout(IDLE_TIMEOUT)
        .max_lifetime(MAX_LIFETIME)
        .test_before_acquire(false)
        .before_acquire(|connection, meta| {
            Box::pin(async move {
                if meta.idle_for > TEST_AFTER_IDLE {
                    connection.ping().await?;
                }
                Ok(true)
            })
        })
}

pub(crate) fn session_options(
    options: PgConnectOptions,
    settings: &PostgresSettings,
    role: PoolRole,
) -> PgConnectOptions {
    let slow = Duration::from_millis(settings.slow_statement_ms);
    let options = options
        .application_name("linnet-shortener")
        .log_statements(LevelFilter::Off)
        .log_slow_statements(LevelFilter::Warn, slow);
    if settings.is_pooled() {
        pooled_options(options)
    } else {
        options.options(session_parameters(settings, role))
    }
}

/// The parameters of each session of a pool.
pub(crate) fn session_parameters(
    settings: &PostgresSettings,
    role: PoolRole,
) -> Vec<SessionParameter> {
    let quotas = settings.quotas;
    let mut parameters = vec![
        ("statement_timeout", settings.statement_timeout_ms),
        ("lock_timeout", settings.lock_timeout_ms),
        ("idle_in_transaction_session_timeout", settings.idle_in_transaction_timeout_ms),
        ("linnet.hold_codes_days", settings.hold_codes_days.into()),
        ("linnet.limit_settle_ms", settings.limit_settle_ms.into()),
        ("linnet.links_per_user", quotas.links.into()),
        ("linnet.events_per_user", quotas.events.into()),
        ("linnet.idempotency_keys_per_user", quotas.idempotency_keys.into()),
        ("linnet.links_bytes_per_user", quotas.link_bytes),
        ("linnet.events_bytes_per_user", quotas.event_bytes),
        ("linnet.idempotency_keys_bytes_per_user", quotas.idempotency_key_bytes),
    ];
    match role {
        PoolRole::Worker { .. } => parameters.push(("gin_pending_list_limit", WORKER_PENDING_KB)),
        PoolRole::Generate => parameters.push(("gin_pending_list_limit", GENERATE_PENDING_KB)),
        _ => {}
    }
    parameters
}

/// The statements by which a pooler in transaction mode sets the parameters of its server connections for the processes
/// of a role. All roles of one process have the same.
pub fn pooler_query(settings: &PostgresSettings, role: PoolRole) -> String {
    connect_query(&session_parameters(settings, role))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_pools_together_stay_within_max_connections() {
        for max in [PostgresSettings::MIN_CONNECTIONS, 20, 100] {
            let settings = PostgresSettings { max_connections: max, ..Default::default() };
            for server_threads in [1, PoolRole::max_server_threads(&settings)] {
                let resolve = PoolRole::Resolve { server_threads }.connections(max);
                let api = PoolRole::Api { server_threads }.connections(max);
                let server_threads = u32::try_from(server_threads).unwrap();
                let own = PoolRole::Background.connections(max) + PoolRole::Outbox.connections(max);
                let all = own + server_threads * (resolve + api);
                assert!(all <= max, "{all} of {max} for {server_threads} server_threads");
            }
        }
    }
}
