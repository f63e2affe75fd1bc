//! Binds, runs and joins the HTTP servers of a process, and serves its admin listener.

use std::{error::Error as StdError, io, time::Duration};

use actix_http::{Request, Response};
use actix_service::IntoServiceFactory;
use actix_web::{
    App, Error, HttpServer,
    body::MessageBody,
    dev::{AppConfig, Server, Service, ServiceFactory},
};
use linnet_telemetry::{AdminState, admin_routes};

use crate::{
    lifecycle::Lifecycle,
    listener::{Address, BoundSocket, Listener},
};

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

/// Runs a server on a bound socket.
pub fn run_on<F, I, S, B>(server: HttpServer<F, I, S, B>, socket: BoundSocket) -> io::Result<Server>
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
    Ok(match socket {
        BoundSocket::Tcp(listener) => server.listen(listener)?.run(),
        BoundSocket::Unix(listener) => server.listen_uds(listener)?.run(),
    })
}

/// The server of `/metrics`, `/livez` and `/readyz`, with one thread. It stops with the lifecycle; a running scrape gets
/// `grace_s` seconds.
pub fn serve_admin(
    lifecycle: &Lifecycle,
    state: AdminState,
    socket: BoundSocket,
    grace_s: u64,
) -> io::Result<Server> {
    let server =
        HttpServer::new(move || App::new().configure(|cfg| admin_routes(cfg, state.clone())))
            .workers(1)
            .client_request_timeout(ADMIN_HEAD_TIMEOUT)
            .shutdown_timeout(grace_s)
            .shutdown_signal(lifecycle.stopping().cancelled_owned());
    run_on(server, socket)
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
