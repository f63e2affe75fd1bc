//! Binds, runs and joins the HTTP servers of a process, and serves its admin listener.

use std::{error::Error as StdError, future::ready, io, time::Duration};

use actix_http::{HttpService, Protocol, Request, Response};
use actix_server::Server;
use actix_service::{
    IntoServiceFactory, Service, ServiceFactory, ServiceFactoryExt as _, fn_service, map_config,
};
use actix_web::{App, Error, body::MessageBody, dev::AppConfig};
use linnet_telemetry::{AdminState, admin_routes};
use socket2::SockRef;
use tokio::net::{TcpStream, UnixStream};

use crate::{
    head_limit::HeadLimited,
    lifecycle::Lifecycle,
    listener::{Address, BoundSocket, Listener},
};

pub use crate::head_limit::{HEAD_BYTES, PIECE_BYTES};

/// Bytes of a response in the kernel's buffer for a client that reads slowly. The kernel doubles the size that is set.
pub const SEND_BUFFER_BYTES: usize = 16 * 1024;

/// Connections to the admin listener: of Prometheus, health checks, and an operator.
pub const ADMIN_CONNECTIONS: usize = 16;
/// How long an idle connection to the admin listener stays open. Prometheus scrapes every 15 s.
const ADMIN_KEEP_ALIVE: Duration = Duration::from_secs(20);
/// How long a closing connection to the admin listener may continue to send data.
const ADMIN_DISCONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// Timeout for the head of a request to the admin listener.
const ADMIN_HEAD_TIMEOUT: Duration = Duration::from_secs(10);

/// Why a process could not start, or why it stopped.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A listener could not be bound.
    #[error("cannot listen on {address}")]
    Bind {
        /// The address.
        address: Address,
        /// The error of the operating system.
        source: io::Error,
    },
    /// A setting is valid but cannot be used.
    #[error("{key} cannot be used")]
    Setting {
        /// The setting's name.
        key: &'static str,
        /// The reason.
        source: Box<dyn StdError + Send + Sync>,
    },
    /// A server failed.
    #[error("a server failed")]
    Server(#[from] io::Error),
    /// A critical task ended. It has been logged.
    #[error("a critical task ended")]
    TaskEnded,
}

impl StartError {
    /// For `map_err`: adds the setting's name to an error.
    pub fn setting<E: Into<Box<dyn StdError + Send + Sync>>>(
        key: &'static str,
    ) -> impl FnOnce(E) -> Self {
        move |source| Self::Setting { key, source: source.into() }
    }
}

/// The result of a process whose servers have ended: an error if a critical task ended first.
pub fn exit_result(lifecycle: &Lifecycle) -> Result<(), StartError> {
    if lifecycle.task_ended() { Err(StartError::TaskEnded) } else { Ok(()) }
}

/// Binds a listener.
pub fn bind(address: &Address) -> Result<Listener, StartError> {
    Listener::bind(address).map_err(|source| StartError::Bind { address: address.clone(), source })
}

/// How a listener serves its connections. The values come from the settings.
#[derive(Debug)]
pub struct ServerOptions {
    /// Server threads.
    pub threads: usize,
    /// Connections of one thread. Further ones wait in the listener's backlog.
    pub max_connections: usize,
    /// How long an idle connection stays open.
    pub keep_alive: Duration,
    /// Timeout of a request's head.
    pub head_timeout: Duration,
    /// How long a closing connection may continue to send data, which is discarded.
    pub disconnect_timeout: Duration,
    /// How long running requests may take after the stop, in seconds.
    pub grace_s: u64,
}

/// Serves an application on a bound socket until the lifecycle stops. The factory runs once on each thread.
///
/// The library's own server limits neither a request's head nor the bytes of one read, so this one wraps each
/// connection ([`HEAD_BYTES`]). A client that closes its sending side counts as disconnected.
// Long because the library's types cannot be named, so no part can move into another function.
pub fn serve<F, I, S, B>(
    options: &ServerOptions,
    factory: F,
    socket: BoundSocket,
    lifecycle: &Lifecycle,
) -> io::Result<Server>
where
    F: Fn() -> I + Send + Clone + 'static,
    I: IntoServiceFactory<S, Request>,
    S: ServiceFactory<Request, Config = AppConfig> + 'static,
    S::Error: Into<Error>,
    S::InitError: std::fmt::Debug,
    S::Response: Into<Response<B>>,
    S::Service: 'static,
    <S::Service as Service<Request>>::Future: 'static,
    B: MessageBody + 'static,
{
    let builder = Server::build()
        .workers(options.threads)
        .max_concurrent_connections(options.max_connections)
        .shutdown_timeout(options.grace_s)
        .shutdown_signal(lifecycle.stopping().cancelled_owned());
    let stopping = builder.graceful_shutdown_signal();
    let (keep_alive, head, disconnect) =
        (options.keep_alive, options.head_timeout, options.disconnect_timeout);
    // A macro, because the type of the service contains the type of its connections.
    macro_rules! http {
        ($socket:ty, $peer:expr) => {
            move || {
                let stopping = stopping.clone();
                let app = factory().into_factory().map_err(|error| error.into().error_response());
                let http = HttpService::build()
                    .graceful_shutdown_signal(move || {
                        let stopping = stopping.clone();
                        async move { stopping.notified().await }
                    })
                    .keep_alive(keep_alive)
                    .client_request_timeout(head)
                    .client_disconnect_timeout(disconnect)
                    .h1_allow_half_closed(false)
                    .h1_write_buffer_size(PIECE_BYTES)
                    .finish(map_config(app, |()| AppConfig::default()));
                fn_service(|io: $socket| {
                    // After an error, the kernel's default size applies.
                    let _ = SockRef::from(&io).set_send_buffer_size(SEND_BUFFER_BYTES / 2);
                    let peer = $peer(&io);
                    ready(Ok((HeadLimited::new(io), Protocol::Http1, peer)))
                })
                .and_then(http)
            }
        };
    }
    let builder = match socket {
        BoundSocket::Tcp(listener) => builder.listen(
            "linnet",
            listener,
            http!(TcpStream, |io: &TcpStream| io.peer_addr().ok()),
        )?,
        BoundSocket::Unix(listener) => {
            builder.listen_uds("linnet", listener, http!(UnixStream, |_: &UnixStream| None))?
        }
    };
    Ok(builder.run())
}

/// The server of `/metrics`, `/livez` and `/readyz`, with one thread. It stops with the lifecycle; a running scrape gets
/// `grace_s` seconds.
pub fn serve_admin(
    lifecycle: &Lifecycle,
    state: AdminState,
    socket: BoundSocket,
    grace_s: u64,
) -> io::Result<Server> {
    let options = ServerOptions {
        threads: 1,
        max_connections: ADMIN_CONNECTIONS,
        keep_alive: ADMIN_KEEP_ALIVE,
        head_timeout: ADMIN_HEAD_TIMEOUT,
        disconnect_timeout: ADMIN_DISCONNECT_TIMEOUT,
        grace_s,
    };
    let app = move || App::new().configure(|cfg| admin_routes(cfg, state.clone()));
    serve(&options, app, socket, lifecycle)
}

/// Waits for all servers. The first one that ends drains the process, which ends the others.
pub async fn first_ends_all<const N: usize>(
    servers: [Server; N],
    lifecycle: &Lifecycle,
) -> io::Result<()> {
    let ends = servers.map(|server| async move {
        let end = server.await;
        lifecycle.begin_drain();
        end
    });
    futures::future::join_all(ends).await.into_iter().collect()
}
