//! Opens Redis connections: to the server that `redis.url` names, or to the master that its sentinels or nodes name.
//!
//! Invariant: a connection to a master is used only during the [`Term`] in which it was opened. Its user checks that
//! before it sends a command, and before it relies on the response.

use std::{io, sync::Arc, time::Duration};

use deadpool::{
    Runtime,
    managed::{Metrics, Object, Pool, PoolError, RecycleError, RecycleResult},
};
use linnet_tls::CaFile;
use redis::{
    AsyncConnectionConfig, Client, ErrorKind, RedisError, RedisResult, Role,
    aio::MultiplexedConnection,
};
use secrecy::ExposeSecret as _;

use crate::{
    redis_master::{MasterWatch, Term, Voter, Voters},
    redis_target::{RedisTarget, VoterTarget, client, read_ca_file},
    settings::RedisSettings,
};

/// Timeout for a response on a connection of a pool.
const POOL_RESPONSE_TIMEOUT: Duration = Duration::from_millis(500);

/// Where connections lead.
#[derive(Clone)]
pub(crate) enum RedisServer {
    /// The server that `redis.url` names.
    Fixed(Box<Client>),
    /// The master that a majority of sentinels, or of a cluster's nodes, names.
    Master(Arc<MasterSource>),
}

pub(crate) struct MasterSource {
    watch: Arc<MasterWatch>,
    target: VoterTarget,
    ca_file: Option<CaFile>,
}

/// A connection, and the term in which it may be used; `None` for a fixed server.
pub(crate) struct TermConnection {
    pub(crate) connection: MultiplexedConnection,
    pub(crate) term: Option<Arc<Term>>,
}

/// Whether a connection of this term may be used; always true for a fixed server.
#[inline]
pub(crate) fn may_use(term: Option<&Arc<Term>>) -> bool {
    term.is_none_or(|term| term.is_valid())
}

impl RedisServer {
    /// Also starts to ask the sentinels or nodes of the URL.
    pub(crate) fn new(settings: &RedisSettings) -> RedisResult<Self> {
        let ca_file = read_ca_file(settings.ca_file.as_deref())?;
        let target = RedisTarget::parse(settings.url.expose_secret());
        match target.map_err(io::Error::other)? {
            RedisTarget::Server(info) => {
                Ok(Self::Fixed(Box::new(client(*info, ca_file.as_ref())?)))
            }
            RedisTarget::Voters(target) => {
                let watch = settings.master.get_or_start(|| {
                    let credentials =
                        (settings.sentinel_username.as_str(), settings.sentinel_password());
                    let voters = target.voters.iter().map(|address| {
                        let client = client(target.voter(address, credentials)?, ca_file.as_ref())?;
                        Ok(Voter { client, address: address.clone() })
                    });
                    let voters = voters.collect::<RedisResult<_>>()?;
                    Ok(Voters { voters, kind: target.kind.clone() })
                })?;
                Ok(Self::Master(Arc::new(MasterSource { watch, target, ca_file })))
            }
        }
    }

    /// A client for the server. With voters it waits for a master that may be used, at most `wait` and the time for which
    /// a new master is not used.
    pub(crate) async fn client(&self, wait: Duration) -> RedisResult<(Client, Option<Arc<Term>>)> {
        match self {
            Self::Fixed(client) => Ok(((**client).clone(), None)),
            Self::Master(source) => {
                let term = source.watch.term(wait).await?;
                let info = source.target.master(&term.master)?;
                Ok((client(info, source.ca_file.as_ref())?, Some(term)))
            }
        }
    }

    /// Opens a connection. A server that voters name must have the role of a master.
    pub(crate) async fn open(
        &self,
        connect_timeout: Duration,
        response_timeout: Duration,
    ) -> RedisResult<TermConnection> {
        let (client, term) = self.client(connect_timeout).await?;
        let connection = open(&client, term.as_ref(), connect_timeout, response_timeout).await?;
        Ok(TermConnection { connection, term })
    }
}

/// Opens a connection of a [`RedisServer::client`].
pub(crate) async fn open(
    client: &Client,
    term: Option<&Arc<Term>>,
    connect_timeout: Duration,
    response_timeout: Duration,
) -> RedisResult<MultiplexedConnection> {
    let config = AsyncConnectionConfig::new()
        .set_connection_timeout(Some(connect_timeout))
        .set_response_timeout(Some(response_timeout));
    let mut connection = client.get_multiplexed_async_connection_with_config(&config).await?;
    if term.is_some() {
        check_role(&mut connection).await?;
    }
    Ok(connection)
}

/// Fails unless the server is a master. A server whose user may not ask is used: a replica refuses the first write.
async fn check_role(connection: &mut MultiplexedConnection) -> RedisResult<()> {
    match redis::cmd("ROLE").query_async(connection).await {
        Ok(Role::Primary { .. }) => Ok(()),
        Ok(_) => {
            let kind = ErrorKind::MasterNameNotFoundBySentinel;
            Err((kind, "the server that a majority names is not a master").into())
        }
        Err(error) if error.code() == Some("NOPERM") => Ok(()),
        Err(error) => Err(error),
    }
}

/// A connection with a response timeout of its own, for commands that take longer than
/// `redis.response_timeout_ms`: reads that block, and scripts over many keys.
pub async fn connect(
    settings: &RedisSettings,
    response_timeout: Duration,
) -> RedisResult<MultiplexedConnection> {
    Ok(connect_confirmed(settings, response_timeout).await?.0)
}

/// [`connect`] for a task that uses the connection for long, and checks the [`Confirmation`] regularly.
pub async fn connect_confirmed(
    settings: &RedisSettings,
    response_timeout: Duration,
) -> RedisResult<(MultiplexedConnection, Confirmation)> {
    let server = RedisServer::new(settings)?;
    let open = server.open(settings.connect_timeout(), response_timeout).await?;
    Ok((open.connection, Confirmation(open.term)))
}

/// Confirms that a connection still leads to the server that all processes use. A master that was replaced may respond
/// for long.
#[derive(Debug, Clone)]
pub struct Confirmation(Option<Arc<Term>>);

impl Confirmation {
    /// Fails if the connection leads to a master that a majority no longer confirms; never for a fixed server.
    pub fn check(&self) -> RedisResult<()> {
        if may_use(self.0.as_ref()) {
            return Ok(());
        }
        let kind = ErrorKind::MasterNameNotFoundBySentinel;
        Err((kind, "a majority no longer confirms the master").into())
    }
}

/// A pool of connections for background tasks. It checks each connection before use, which doubles the cost of a command.
#[derive(Clone)]
pub struct RedisPool(Pool<Manager>);

/// A connection of a [`RedisPool`].
pub struct PooledConnection(Object<Manager>);

/// Why a pool has no connection.
#[derive(Debug, thiserror::Error)]
#[error("no Redis connection")]
pub struct NoConnection(#[from] PoolError<RedisError>);

/// A pool of at most `max_size` connections; every wait for a connection is bounded by the section's timeouts.
pub fn pool(settings: &RedisSettings, max_size: usize) -> RedisResult<RedisPool> {
    let connect_timeout = settings.connect_timeout();
    let manager = match RedisServer::new(settings)? {
        RedisServer::Fixed(client) => {
            let info = client.get_connection_info().clone();
            Manager::Fixed(Box::new(deadpool_redis::Manager::new(info)?))
        }
        server @ RedisServer::Master(_) => Manager::Master { server, connect_timeout },
    };
    // A connection to a master may wait for one.
    let create_timeout = settings.connect_timeout() * 2 + crate::redis_master::LEASE;
    Pool::builder(manager)
        .max_size(max_size)
        .wait_timeout(Some(settings.connect_timeout()))
        .create_timeout(Some(create_timeout))
        .recycle_timeout(Some(settings.response_timeout()))
        .runtime(Runtime::Tokio1)
        .build()
        .map(RedisPool)
        .map_err(|error| io::Error::other(error).into())
}

impl RedisPool {
    /// A connection that has just responded.
    pub async fn get(&self) -> Result<PooledConnection, NoConnection> {
        Ok(PooledConnection(self.0.get().await?))
    }
}

impl PooledConnection {
    /// The connection.
    pub fn connection(&mut self) -> &mut MultiplexedConnection {
        &mut self.0.connection
    }

    /// Whether every response so far came from the server that all processes use. Check it before you give up what a
    /// response confirmed: a master that was replaced still responds, and what it accepted is lost.
    pub fn is_confirmed(&self) -> bool {
        may_use(self.0.term.as_ref())
    }
}

/// `deadpool-redis` connects to one server. With voters, each connection leads to the master of its time.
enum Manager {
    Fixed(Box<deadpool_redis::Manager>),
    Master { server: RedisServer, connect_timeout: Duration },
}

impl deadpool::managed::Manager for Manager {
    type Type = TermConnection;
    type Error = RedisError;

    async fn create(&self) -> RedisResult<TermConnection> {
        match self {
            Self::Fixed(manager) => {
                Ok(TermConnection { connection: manager.create().await?, term: None })
            }
            Self::Master { server, connect_timeout } => {
                server.open(*connect_timeout, POOL_RESPONSE_TIMEOUT).await
            }
        }
    }

    async fn recycle(
        &self,
        pooled: &mut TermConnection,
        metrics: &Metrics,
    ) -> RecycleResult<RedisError> {
        match self {
            Self::Fixed(manager) => manager.recycle(&mut pooled.connection, metrics).await,
            Self::Master { .. } if !may_use(pooled.term.as_ref()) => {
                Err(RecycleError::message("the master's term has ended"))
            }
            Self::Master { .. } => {
                let _: redis::Value =
                    redis::cmd("PING").query_async(&mut pooled.connection).await?;
                Ok(())
            }
        }
    }
}
