//! Puts the pieces together: binds everything first, then starts it, then stops it in order.

use std::{future::Future, io, sync::Arc, time::Duration};

use actix_web::{
    App, HttpServer,
    body::MessageBody,
    dev::{Server, ServiceFactory, ServiceRequest, ServiceResponse},
    middleware::from_fn,
    web,
};
use http::HeaderValue;
use linnet_platform::{
    change_feed::{self, ChangeSink},
    identity::Scope,
    lifecycle::Lifecycle,
    listener::{Address, Bound, Listener},
    redis_link::RedisLink,
};
use linnet_telemetry::{AdminState, RequestTelemetry, Telemetry, admin_routes};
use secrecy::ExposeSecret as _;

use crate::{
    admin::GatewayReadiness,
    auth::{Authority, KeyCache},
    config::{Anonymous, Settings},
    edge::{Edge, edge},
    limit::{Limiter, Rates, sweep},
    metrics::{self, Counters},
    pages::{self, Pages},
    release::SERVICE,
    routing::{self, ROUTES, Route},
    upstream::{UpstreamClient, Upstreams, probe},
    worker::Worker,
};

/// Longest wait for a request's head.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a connection that closes may go on sending what nobody reads.
const DISCONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// Why the gateway could not start, or stopped.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A listener could not be bound.
    #[error("cannot listen on {address}")]
    Bind {
        /// Where.
        address: Address,
        /// Why.
        source: io::Error,
    },
    /// The Redis URL is unusable.
    #[error("redis.url is unusable")]
    Redis(#[from] redis::RedisError),
    /// The service token can't stand in a header.
    #[error("service.token can't stand in a header")]
    Token(#[from] http::header::InvalidHeaderValue),
    /// Too many shorteners.
    #[error("an upstream can't be named")]
    Upstream(#[from] http::uri::InvalidUri),
    /// A server failed.
    #[error("a server failed")]
    Server(#[from] io::Error),
    /// A background task died; it has been logged.
    #[error("a background task died")]
    TaskDied,
}

/// A gateway whose listeners are bound.
pub struct Application {
    shared: Shared,
    public: Listener,
    admin: Listener,
    admin_state: AdminState,
    feed: Task,
}

type Task = std::pin::Pin<Box<dyn Future<Output = ()> + Send>>;

/// What all workers share.
#[derive(Clone)]
struct Shared {
    settings: Arc<Settings>,
    lifecycle: Lifecycle,
    requests: RequestTelemetry,
    edge: Edge,
    pages: Pages,
    routes: &'static [Route],
    authority: Arc<Authority>,
    upstreams: Arc<Upstreams>,
    counters: Arc<Counters>,
    rates: Arc<Rates>,
    service_token: HeaderValue,
}

impl Application {
    /// Binds the listeners and builds what workers share. Nothing runs yet.
    pub fn build(
        settings: Settings,
        telemetry: &Telemetry,
        lifecycle: Lifecycle,
    ) -> Result<Self, StartError> {
        Self::build_with(settings, telemetry, lifecycle, ROUTES)
    }

    /// [`Application::build`] with a table of routes; tests add routes of their own.
    pub(crate) fn build_with(
        settings: Settings,
        telemetry: &Telemetry,
        lifecycle: Lifecycle,
        routes: &'static [Route],
    ) -> Result<Self, StartError> {
        let public = bind(&settings.gateway.listen)?;
        let admin = bind(&settings.gateway.admin_listen)?;

        let meter = telemetry.meter();
        let counters = Arc::new(Counters::default());
        let upstreams = Arc::new(Upstreams::new(&settings.upstream)?);
        let cache = Arc::new(KeyCache::new(&settings.auth));
        let sink: Arc<dyn ChangeSink> = Arc::<KeyCache>::clone(&cache);
        let nonce = format!("gateway:{:032x}", rand::random::<u128>());
        let (feed_state, feed) = change_feed::feed(&settings.redis, &nonce, sink, None)?;
        metrics::register(&meter, &counters, &upstreams, feed_state.clone());

        let readiness = GatewayReadiness {
            upstreams: Arc::clone(&upstreams),
            feed: feed_state,
            lifecycle: lifecycle.clone(),
        };
        let admin_state = AdminState {
            registry: telemetry.registry().clone(),
            readiness: Arc::new(readiness),
            service: SERVICE,
        };
        let mut service_token = HeaderValue::from_str(settings.service.token.expose_secret())?;
        service_token.set_sensitive(true);
        let shared = Shared {
            requests: RequestTelemetry::new(&meter, &settings.telemetry),
            edge: Edge::new(lifecycle.clone(), &settings.cors),
            pages: Pages::new(Arc::clone(&upstreams), lifecycle.clone()),
            routes,
            authority: Authority::new(cache, settings.service.clone(), Arc::clone(&counters)),
            upstreams,
            counters,
            rates: Arc::new(Rates::new(&settings.limits)),
            service_token,
            lifecycle,
            settings: Arc::new(settings),
        };
        Ok(Self { shared, public, admin, admin_state, feed: Box::pin(feed) })
    }

    /// Where the API is served.
    pub fn address(&self) -> Address {
        self.public.local_address()
    }

    /// Where the admin listener is.
    pub fn admin_address(&self) -> Address {
        self.admin.local_address()
    }

    /// Serves until the lifecycle ends. Needs an actix runtime.
    pub async fn run(self) -> Result<(), StartError> {
        let shared = self.shared;
        let lifecycle = shared.lifecycle.clone();
        let settings = Arc::clone(&shared.settings);
        if settings.gateway.anonymous == Anonymous::Open {
            tracing::warn!("gateway.anonymous is `open`: anybody may call everything");
        }
        tracing::info!(
            address = %self.public.local_address(),
            admin = %self.admin.local_address(),
            release = SERVICE.release,
            "the gateway starts"
        );

        lifecycle.own("change feed", self.feed);
        lifecycle.own("limit sweep", sweep(shared.rates.local()));
        lifecycle.own(
            "upstream probe",
            probe(
                settings.upstream.clone(),
                settings.service.clone(),
                Arc::clone(&shared.upstreams),
            ),
        );
        let (public, retire_public) = self.public.split();
        let (admin, retire_admin) = self.admin.split();
        let public = serve_public(shared, public)?;
        let admin = serve_admin(&settings, &lifecycle, self.admin_state, admin)?;
        let stop = {
            let (lifecycle, drain) =
                (lifecycle.clone(), Duration::from_millis(settings.shutdown.drain_ms));
            tokio::spawn(async move {
                lifecycle.run_until_stopping(drain, || retire_public.retire()).await;
            })
        };
        // Whichever server ends first takes the other along.
        let either = |server: Server| {
            let lifecycle = lifecycle.clone();
            async move {
                let end = server.await;
                lifecycle.begin_drain();
                end
            }
        };
        let (public, admin) = futures::future::join(either(public), either(admin)).await;
        stop.abort();
        retire_admin.retire();
        public?;
        admin?;
        if lifecycle.task_died() { Err(StartError::TaskDied) } else { Ok(()) }
    }
}

fn bind(address: &Address) -> Result<Listener, StartError> {
    Listener::bind(address).map_err(|source| StartError::Bind { address: address.clone(), source })
}

fn serve_public(shared: Shared, socket: Bound) -> Result<Server, StartError> {
    let settings = Arc::clone(&shared.settings);
    let lifecycle = shared.lifecycle.clone();
    let workers = match settings.gateway.workers {
        0 => std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
        workers => workers,
    };
    // The factory runs once in each worker's own runtime.
    let server = HttpServer::new(move || app(shared.clone()))
        .workers(workers)
        .max_connections(settings.gateway.max_connections)
        .keep_alive(Duration::from_secs(settings.gateway.keep_alive_s))
        .client_request_timeout(HEAD_TIMEOUT)
        .client_disconnect_timeout(DISCONNECT_TIMEOUT)
        // A client that closes its side is gone: its event stream must end.
        .h1_allow_half_closed(false)
        .shutdown_timeout(settings.shutdown.grace_s)
        .shutdown_signal(lifecycle.stopping().cancelled_owned());
    Ok(match socket {
        Bound::Tcp(listener) => server.listen(listener)?.run(),
        Bound::Unix(listener) => server.listen_uds(listener)?.run(),
    })
}

fn serve_admin(
    settings: &Settings,
    lifecycle: &Lifecycle,
    state: AdminState,
    socket: Bound,
) -> Result<Server, StartError> {
    let server =
        HttpServer::new(move || App::new().configure(|cfg| admin_routes(cfg, state.clone())))
            .workers(1)
            .client_request_timeout(HEAD_TIMEOUT)
            .shutdown_timeout(settings.shutdown.grace_s)
            .shutdown_signal(lifecycle.stopping().cancelled_owned());
    Ok(match socket {
        Bound::Tcp(listener) => server.listen(listener)?.run(),
        Bound::Unix(listener) => server.listen_uds(listener)?.run(),
    })
}

#[expect(clippy::needless_pass_by_value, reason = "what is returned would borrow it otherwise")]
fn app(
    shared: Shared,
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
        .app_data(web::Data::new(worker(&shared)))
        .app_data(web::Data::new(shared.edge.clone()))
        .app_data(web::Data::new(shared.pages.clone()))
        .wrap(from_fn(edge))
        .wrap(shared.requests.clone())
        .configure(|cfg| routing::configure(cfg, routes))
        .configure(pages::configure)
        .default_service(web::to(routing::unknown_path))
}

fn worker(shared: &Shared) -> Worker {
    let settings = &shared.settings;
    let redis = match RedisLink::new(&settings.redis, None) {
        Ok((link, task)) => {
            shared.lifecycle.own("redis link", task);
            Some(link)
        }
        Err(error) => {
            // The change feed was built from the same URL, so this can't happen; and it would not
            // stop the gateway from working.
            tracing::error!(%error, "no Redis link");
            None
        }
    };
    Worker {
        client: UpstreamClient::new(
            &settings.upstream,
            Arc::clone(&shared.upstreams),
            Arc::clone(&shared.counters),
        ),
        limiter: Limiter::new(Arc::clone(&shared.rates), redis, Arc::clone(&shared.counters)),
        authority: Arc::clone(&shared.authority),
        lifecycle: shared.lifecycle.clone(),
        service_token: shared.service_token.clone(),
        anonymous: settings.gateway.anonymous,
        all_scopes: Scope::ALL.into_iter().collect(),
        trusted_peers: settings.gateway.trusted_peers.as_slice().into(),
        request_timeout: settings.gateway.request_timeout(),
        body_limit: settings.limits.body_bytes,
    }
}
