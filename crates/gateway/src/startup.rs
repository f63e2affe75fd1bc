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
use linnet_domain::Scope;
use linnet_platform::{
    invalidation_bus::{self, InvalidationSink},
    lifecycle::Lifecycle,
    listener::{Address, Bound, Listener},
    redis_client::RedisClient,
    server::{StartError, bind, first_ends_all, run_on, serve_admin},
};
use linnet_protocol::{
    invalidation::CHANNEL,
    routes::{ROUTES, Route},
};
use linnet_telemetry::{AdminState, RequestTelemetry, Telemetry};
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
    routing,
    upstream::{UpstreamClient, Upstreams, probe},
    worker::Worker,
};

/// Longest wait for a request's head.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a connection that closes may go on sending what nobody reads.
const DISCONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// A gateway whose listeners are bound.
pub struct Application {
    shared: Shared,
    public: Listener,
    admin: Listener,
    admin_state: AdminState,
    bus: Task,
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
        let upstreams = Arc::new(
            Upstreams::new(&settings.upstream)
                .map_err(StartError::setting("upstream.shorteners"))?,
        );
        let cache = Arc::new(KeyCache::new(&settings.auth));
        let sink: Arc<dyn InvalidationSink> = Arc::<KeyCache>::clone(&cache);
        let nonce = format!("gateway:{:032x}", rand::random::<u128>());
        let (bus_state, bus) = invalidation_bus::bus(&settings.redis, CHANNEL, &nonce, sink, None)
            .map_err(StartError::setting("redis.url"))?;
        metrics::register(&meter, &counters, &upstreams, bus_state.clone());

        let readiness = GatewayReadiness {
            upstreams: Arc::clone(&upstreams),
            bus: bus_state,
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
        Ok(Self { shared, public, admin, admin_state, bus: Box::pin(bus) })
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

        lifecycle.own("invalidation bus", self.bus);
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
        let admin = serve_admin(&lifecycle, self.admin_state, admin, settings.shutdown.grace_s)?;
        let stop = {
            let (lifecycle, drain) =
                (lifecycle.clone(), Duration::from_millis(settings.shutdown.drain_ms));
            tokio::spawn(async move {
                lifecycle.run_until_stopping(drain, || retire_public.retire()).await;
            })
        };
        let ends = first_ends_all([public, admin], &lifecycle).await;
        stop.abort();
        retire_admin.retire();
        ends?;
        if lifecycle.task_died() { Err(StartError::TaskDied) } else { Ok(()) }
    }
}

fn serve_public(shared: Shared, socket: Bound) -> io::Result<Server> {
    let settings = Arc::clone(&shared.settings);
    let lifecycle = shared.lifecycle.clone();
    let threads = match settings.gateway.server_threads {
        0 => std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
        threads => threads,
    };
    // The factory runs once in each worker's own runtime.
    let server = HttpServer::new(move || app(shared.clone()))
        .workers(threads)
        .max_connections(settings.gateway.max_connections)
        .keep_alive(Duration::from_secs(settings.gateway.keep_alive_s))
        .client_request_timeout(HEAD_TIMEOUT)
        .client_disconnect_timeout(DISCONNECT_TIMEOUT)
        // A client that closes its side is gone: its event stream must end.
        .h1_allow_half_closed(false)
        .shutdown_timeout(settings.shutdown.grace_s)
        .shutdown_signal(lifecycle.stopping().cancelled_owned());
    run_on(server, socket)
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
    let redis = match RedisClient::new(&settings.redis, None) {
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
