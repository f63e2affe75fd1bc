//! Starts the gateway: binds all listeners, builds the shared state, then runs the servers.

use std::{future::Future, io, pin::Pin, sync::Arc, time::Duration};

use actix_server::Server;
use actix_web::{
    App,
    body::MessageBody,
    dev::{ServiceFactory, ServiceRequest, ServiceResponse},
    middleware::from_fn,
    web,
};
use http::HeaderValue;
use linnet_domain::Scope;
use linnet_platform::{
    clock::Clock,
    invalidation_bus::{self, InvalidationSink},
    lifecycle::Lifecycle,
    listener::{Address, BoundSocket, Listener},
    redis_client::RedisClient,
    server::{
        ServerOptions, StartError, bind, exit_result, first_ends_all, serve as serve_on,
        serve_admin,
    },
};
use linnet_protocol::{
    address_hash::AddressHasher,
    invalidation::CHANNEL,
    routes::{ROUTES, Route},
};
use linnet_telemetry::{AdminState, RequestTelemetry, Telemetry};
use secrecy::ExposeSecret as _;

use crate::{
    admin::GatewayReadiness,
    auth::{self, KeyAuthenticator, KeyCache},
    body_budget::Bodies,
    config::{Anonymous, Settings},
    counters::Counters,
    edge::{Edge, edge},
    limit::{RateLimiter, RateLimits, sweep},
    metrics,
    pages::{self, Pages},
    refusals::RefusalSocket,
    release::SERVICE,
    routing,
    thread_state::ThreadState,
    upstream::{UpstreamClient, Upstreams, probe},
};

/// Timeout of a request's head.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// Time for which a closing connection still reads and discards its client's data.
const DISCONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// A gateway with bound listeners, not yet running.
pub struct Application {
    shared: SharedState,
    listener: Listener,
    admin_listener: Listener,
    admin_state: AdminState,
    bus_task: BackgroundTask,
    redis_task: BackgroundTask,
    refusals: Option<RefusalSocket>,
}

type BackgroundTask = Pin<Box<dyn Future<Output = ()> + Send>>;

/// State of the process that all server threads share.
#[derive(Clone)]
struct SharedState {
    settings: Arc<Settings>,
    lifecycle: Lifecycle,
    requests: RequestTelemetry,
    edge: Edge,
    pages: Pages,
    routes: &'static [Route],
    authenticator: Arc<KeyAuthenticator>,
    upstreams: Arc<Upstreams>,
    counters: Arc<Counters>,
    limits: Arc<RateLimits>,
    bodies: Bodies,
    service_token: HeaderValue,
}

impl Application {
    /// Binds the listeners and builds the shared state. Nothing runs before [`Self::run`].
    pub fn build(
        settings: Settings,
        telemetry: &Telemetry,
        lifecycle: Lifecycle,
    ) -> Result<Self, StartError> {
        Self::build_with(settings, telemetry, lifecycle, ROUTES)
    }

    /// [`Application::build`] with a route table, to which tests add their own routes.
    // Long because it builds every shared part once, in the order of their dependencies.
    pub(crate) fn build_with(
        settings: Settings,
        telemetry: &Telemetry,
        lifecycle: Lifecycle,
        routes: &'static [Route],
    ) -> Result<Self, StartError> {
        linnet_protocol::problem::set_types_url(settings.public.problem_types_url());
        let listener = bind(&settings.gateway.listen)?;
        let admin_listener = bind(&settings.gateway.admin_listen)?;
        let refusals = settings.gateway.refusals_listen.as_ref().map(RefusalSocket::bind);
        let refusals =
            refusals.transpose().map_err(StartError::setting("gateway.refusals_listen"))?;

        let meter = telemetry.meter();
        let counters = Arc::new(Counters::default());
        let upstreams = Arc::new(
            Upstreams::new(&settings.upstream)
                .map_err(StartError::setting("upstream.shorteners"))?,
        );
        let cache = Arc::new(KeyCache::new(&settings.auth));
        let sink: Arc<dyn InvalidationSink> = Arc::<KeyCache>::clone(&cache);
        let nonce = format!("gateway:{:032x}", rand::random::<u128>());
        let (bus, bus_task) = invalidation_bus::bus(&settings.redis, CHANNEL, &nonce, sink, None)
            .map_err(StartError::setting("redis.url"))?;
        metrics::register(&meter, &counters, &upstreams, bus.clone());

        // Readiness has its own client, because the clients of the server threads belong to their runtimes.
        let (redis, redis_task) =
            RedisClient::new(&settings.redis, None).map_err(StartError::setting("redis.url"))?;
        let readiness = GatewayReadiness {
            upstreams: Arc::clone(&upstreams),
            redis,
            bus,
            lifecycle: lifecycle.clone(),
        };
        let admin_state = AdminState {
            registry: telemetry.registry().clone(),
            readiness: Arc::new(readiness),
            service: SERVICE,
        };
        let mut service_token = HeaderValue::from_str(settings.service.token.expose_secret())
            .map_err(StartError::setting("service.token"))?;
        service_token.set_sensitive(true);
        let service = settings.service.clone();
        let shared = SharedState {
            requests: RequestTelemetry::new(&meter, &settings.telemetry),
            edge: Edge::new(lifecycle.clone(), &settings.cors),
            pages: Pages::new(Arc::clone(&upstreams), lifecycle.clone()),
            routes,
            authenticator: KeyAuthenticator::new(
                cache,
                service,
                Arc::clone(&counters),
                Clock::System,
            ),
            upstreams,
            counters,
            limits: Arc::new(RateLimits::new(
                &settings.limits,
                AddressHasher::new(&settings.service),
                settings.redis.key_layout(),
            )),
            bodies: Bodies::new(
                settings.limits.body_bytes_in_progress,
                settings.server_threads() * settings.gateway.max_connections,
            ),
            service_token,
            lifecycle,
            settings: Arc::new(settings),
        };
        let (bus_task, redis_task) = (Box::pin(bus_task), Box::pin(redis_task));
        Ok(Self { shared, listener, admin_listener, admin_state, bus_task, redis_task, refusals })
    }

    /// Address of the API and the web pages.
    pub fn address(&self) -> Address {
        self.listener.local_address()
    }

    /// Address of the admin listener.
    pub fn admin_address(&self) -> Address {
        self.admin_listener.local_address()
    }

    /// Serves until the lifecycle ends. Must run in an actix runtime.
    pub async fn run(self) -> Result<(), StartError> {
        let shared = self.shared;
        let lifecycle = shared.lifecycle.clone();
        let settings = Arc::clone(&shared.settings);
        if settings.gateway.anonymous == Anonymous::Open {
            tracing::warn!(
                setting = "gateway.anonymous",
                value = "open",
                "every client has all scopes without an API key"
            );
        }
        tracing::info!(
            address = %self.listener.local_address(),
            admin = %self.admin_listener.local_address(),
            release = SERVICE.release,
            "gateway starting"
        );

        start_background_tasks(&shared, self.bus_task, self.redis_task)?;
        if let Some(socket) = self.refusals {
            lifecycle.spawn_critical("refusals", socket.count(Arc::clone(&shared.counters))?);
        }
        let (socket, retire) = self.listener.split();
        let (admin_socket, retire_admin) = self.admin_listener.split();
        let server = serve(shared, socket)?;
        let grace_s = settings.shutdown.grace_s;
        let admin_server = serve_admin(&lifecycle, self.admin_state, admin_socket, grace_s)?;
        let drain = Duration::from_millis(settings.shutdown.drain_ms);
        let stop = {
            let lifecycle = lifecycle.clone();
            tokio::spawn(async move {
                lifecycle.run_until_stopping(drain, || retire.retire()).await;
            })
        };
        let result = first_ends_all([server, admin_server], &lifecycle).await;
        stop.abort();
        retire_admin.retire();
        result?;
        exit_result(&lifecycle)
    }
}

fn start_background_tasks(
    shared: &SharedState,
    bus_task: BackgroundTask,
    redis_task: BackgroundTask,
) -> io::Result<()> {
    let SharedState { lifecycle, settings, .. } = shared;
    // The bus has its own thread, so that no other work of the process delays a revocation.
    lifecycle.spawn_critical_thread("invalidation", || bus_task)?;
    lifecycle.spawn_critical("Redis client", redis_task);
    lifecycle.spawn_critical(
        "lease verification",
        auth::keep(Arc::clone(&shared.authenticator), upstream_client(shared)),
    );
    lifecycle.spawn_critical("rate limit sweep", sweep(shared.limits.local()));
    let (upstream, service) = (settings.upstream.clone(), settings.service.clone());
    lifecycle
        .spawn_critical("health probe", probe(upstream, service, Arc::clone(&shared.upstreams)));
    Ok(())
}

/// A client of the current runtime.
fn upstream_client(shared: &SharedState) -> UpstreamClient {
    let (upstreams, counters) = (Arc::clone(&shared.upstreams), Arc::clone(&shared.counters));
    UpstreamClient::new(&shared.settings.upstream, upstreams, counters)
}

fn serve(shared: SharedState, socket: BoundSocket) -> io::Result<Server> {
    let settings = Arc::clone(&shared.settings);
    let lifecycle = shared.lifecycle.clone();
    let options = ServerOptions {
        threads: settings.server_threads(),
        max_connections: settings.gateway.max_connections,
        keep_alive: Duration::from_secs(settings.gateway.keep_alive_s),
        head_timeout: HEAD_TIMEOUT,
        disconnect_timeout: DISCONNECT_TIMEOUT,
        grace_s: settings.shutdown.grace_s,
    };
    serve_on(&options, move || app(shared.clone()), socket, &lifecycle)
}

#[expect(clippy::needless_pass_by_value, reason = "the returned app would borrow a reference")]
fn app(
    shared: SharedState,
) -> App<
    impl ServiceFactory<
        ServiceRequest,
        Config = (),
        Response = ServiceResponse<impl MessageBody>,
        Error = actix_web::Error,
        InitError = (),
    >,
> {
    let routes = shared.routes;
    App::new()
        .app_data(web::Data::new(thread_state(&shared)))
        .app_data(web::Data::new(shared.edge.clone()))
        .app_data(web::Data::new(shared.pages.clone()))
        .wrap(from_fn(edge))
        .wrap(shared.requests.clone())
        .configure(|cfg| routing::configure(cfg, routes))
        .configure(pages::configure)
        .default_service(web::to(routing::unknown_path))
}

fn thread_state(shared: &SharedState) -> ThreadState {
    let settings = &shared.settings;
    let redis = match RedisClient::new(&settings.redis, None) {
        Ok((client, task)) => {
            shared.lifecycle.spawn_critical("Redis client", task);
            Some(client)
        }
        Err(error) => {
            // Unexpected: the invalidation bus was built from the same URL. Rates are then counted
            // locally.
            tracing::error!(%error, "Redis client could not be created");
            None
        }
    };
    ThreadState {
        client: upstream_client(shared),
        limiter: RateLimiter::new(Arc::clone(&shared.limits), redis, Arc::clone(&shared.counters)),
        counters: Arc::clone(&shared.counters),
        authenticator: Arc::clone(&shared.authenticator),
        lifecycle: shared.lifecycle.clone(),
        service_token: shared.service_token.clone(),
        anonymous: settings.gateway.anonymous,
        all_scopes: Scope::ALL.into_iter().collect(),
        trusted_peers: settings.gateway.trusted_peers.as_slice().into(),
        request_timeout: settings.gateway.request_timeout(),
        body_limit: settings.limits.body_bytes,
        bodies: shared.bodies.clone(),
    }
}
