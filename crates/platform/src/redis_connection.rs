//! Opens Redis connections for tasks that must not share a server thread's client.

use std::{io, time::Duration};

use deadpool_redis::{Manager, Pool, Runtime};
use linnet_tls::CaFile;
use redis::{
    AsyncConnectionConfig, Client, ConnectionInfo, IntoConnectionInfo as _, RedisResult,
    TlsCertificates, aio::MultiplexedConnection, io::tcp::TcpSettings,
};
use secrecy::ExposeSecret as _;

use crate::settings::RedisSettings;

/// A client with `TCP_NODELAY`, because the default delays small writes. With `rediss://` it trusts the CAs of
/// `redis.ca_file`, or the public CAs that browsers trust. It verifies the host name, and never connects without TLS.
pub fn client(settings: &RedisSettings) -> RedisResult<Client> {
    let info: ConnectionInfo = settings.url.expose_secret().into_connection_info()?;
    let info = info.set_tcp_settings(TcpSettings::default().set_nodelay(true));
    match &settings.ca_file {
        None => Client::open(info),
        Some(path) => {
            let roots = CaFile::read(path).map_err(io::Error::other)?;
            let certificates =
                TlsCertificates { client_tls: None, root_cert: Some(roots.pem().to_vec()) };
            Client::build_with_tls(info, certificates)
        }
    }
}

/// A connection with a response timeout of its own, for commands that take longer than
/// `redis.response_timeout_ms`: reads that block, and scripts over many keys.
pub async fn connect(
    settings: &RedisSettings,
    response_timeout: Duration,
) -> RedisResult<MultiplexedConnection> {
    open(&client(settings)?, settings.connect_timeout(), response_timeout).await
}

pub(crate) async fn open(
    client: &Client,
    connect_timeout: Duration,
    response_timeout: Duration,
) -> RedisResult<MultiplexedConnection> {
    let config = AsyncConnectionConfig::new()
        .set_connection_timeout(Some(connect_timeout))
        .set_response_timeout(Some(response_timeout));
    client.get_multiplexed_async_connection_with_config(&config).await
}

/// A pool of at most `max_size` connections for background tasks; every wait for a connection is bounded by the section's
/// timeouts. It checks each connection before use, which doubles the cost of a command.
pub fn pool(settings: &RedisSettings, max_size: usize) -> RedisResult<Pool> {
    let manager = Manager::new(client(settings)?.get_connection_info().clone())?;
    Pool::builder(manager)
        .max_size(max_size)
        .wait_timeout(Some(settings.connect_timeout()))
        .create_timeout(Some(settings.connect_timeout()))
        .recycle_timeout(Some(settings.response_timeout()))
        .runtime(Runtime::Tokio1)
        .build()
        .map_err(|error| io::Error::other(error).into())
}
