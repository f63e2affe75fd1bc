//! The listeners that serve visitors and the gateway, and the state of each of their server threads.

use std::{
    cell::{Cell, RefCell},
    io,
    sync::Arc,
    time::Duration,
};

use actix_server::Server;
use actix_web::{App, middleware::from_fn, web};
use linnet_clicks::{ClickBuffers, LiveClicks, UserAgentParser};
use linnet_domain::TargetPolicy;
use linnet_jobs::JobService;
use linnet_platform::{
    byte_budget::ByteBudget,
    clock::Clock,
    lifecycle::Lifecycle,
    listener::BoundSocket,
    redis_client::RedisClient,
    server::{ServerOptions, serve},
};
use linnet_protocol::{address_hash::AddressHasher, routes::MAX_BODY_BYTES};
use linnet_resolve::{
    CacheMetrics, InFlightLookups, InvalidationPublisher, L1Cache, L2Cache, OutboxRelay, Resolver,
    listener::{self, MissBudget, ResolveMetrics, ResolveState},
};
use linnet_store::{GroupedCreates, PoolRole, PostgresHosts, Store};
use linnet_telemetry::RequestTelemetry;
use tokio::sync::Semaphore;

use crate::{
    config::Settings,
    http::{
        api::{self, ApiState, Slots},
        internal::{self, RequestTimeout, close_while_draining, limit_time, require_token},
        response_budget::{LargeResponses, bound_responses},
        turns::Turns,
    },
    thread_resources::{Role, ThreadResources},
};

/// How long a closing connection may continue to send data, which is discarded.
const DISCONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// The maximum number of visitors of one server thread that wait until a new click limit has settled
/// (`links.limit_settle_ms`). Further visitors get 503.
const MAX_SETTLING: usize = 256;

/// The state that all server threads share.
#[derive(Clone)]
pub(crate) struct Shared {
    pub(crate) settings: Arc<Settings>,
    pub(crate) lifecycle: Lifecycle,
    pub(crate) hosts: PostgresHosts,
    pub(crate) resources: ThreadResources,
    pub(crate) l1: Arc<L1Cache>,
    pub(crate) l2: L2Cache,
    pub(crate) in_flight: InFlightLookups,
    pub(crate) outbox: OutboxRelay,
    pub(crate) cache_metrics: Arc<CacheMetrics>,
    pub(crate) resolve_metrics: Arc<ResolveMetrics>,
    pub(crate) requests: RequestTelemetry,
    pub(crate) budget: Arc<MissBudget>,
    pub(crate) agents: Arc<UserAgentParser>,
    pub(crate) clicks: Option<ClickBuffers>,
    pub(crate) live: Option<LiveClicks>,
    pub(crate) jobs: JobService,
    pub(crate) bodies: ByteBudget<String>,
    pub(crate) responses: ByteBudget<String>,
    pub(crate) slots: Slots,
    pub(crate) targets: TargetPolicy,
}

/// How both listeners serve their connections.
fn options(settings: &Settings) -> ServerOptions {
    ServerOptions {
        threads: settings.server_threads(),
        max_connections: settings.shortener.max_connections,
        keep_alive: Duration::from_secs(settings.shortener.keep_alive_s),
        head_timeout: Duration::from_millis(settings.shortener.head_timeout_ms),
        disconnect_timeout: DISCONNECT_TIMEOUT,
        grace_s: settings.shutdown.grace_s,
    }
}

/// The server of the resolve listener.
pub(crate) fn serve_resolve(shared: &Shared, socket: BoundSocket) -> io::Result<Server> {
    let thread = shared.clone();
    // The factory runs once on each server thread, in its own runtime.
    let app = move || {
        App::new()
            .app_data(web::Data::new(thread.resolve_state()))
            .default_service(web::to(listener::serve))
    };
    serve(&options(&shared.settings), app, socket, &shared.lifecycle)
}

/// The server of the API listener.
pub(crate) fn serve_api(shared: &Shared, socket: BoundSocket) -> io::Result<Server> {
    let thread = shared.clone();
    let app = move || {
        App::new()
            .app_data(web::Data::new(thread.api_state()))
            .app_data(web::Data::new(LargeResponses(thread.responses.clone())))
            .app_data(web::Data::new(thread.lifecycle.clone()))
            .app_data(web::Data::new(thread.settings.service.clone()))
            .app_data(web::Data::new(AddressHasher::new(&thread.settings.service)))
            .app_data(web::Data::new(RequestTimeout(thread.settings.shortener.request_timeout())))
            .app_data(web::PayloadConfig::new(MAX_BODY_BYTES))
            .wrap(from_fn(bound_responses))
            .wrap(from_fn(limit_time))
            .wrap(from_fn(require_token))
            .wrap(from_fn(close_while_draining))
            .wrap(thread.requests.clone())
            .configure(api::routes)
            .configure(internal::routes)
            .default_service(web::to(api::unknown_path))
    };
    serve(&options(&shared.settings), app, socket, &shared.lifecycle)
}

impl Shared {
    /// Opens the database pool and the Redis client of one server thread, on its own runtime.
    #[expect(
        clippy::expect_used,
        reason = "the startup has already created a pool and a client from the same settings"
    )]
    fn open(&self, role: Role) -> (Store, RedisClient) {
        let server_threads = self.settings.server_threads();
        let pool_role = match role {
            Role::Resolve => PoolRole::Resolve { server_threads },
            Role::Api | Role::Background => PoolRole::Api { server_threads },
        };
        let store = Store::connect(&self.settings.postgres, pool_role, &self.hosts)
            .expect("postgres.url was checked");
        let before_use = self.outbox.before_use();
        let (redis, task) = RedisClient::new(&self.settings.redis, Some(before_use))
            .expect("redis.url was checked");
        self.lifecycle.spawn_critical("Redis client", task);
        self.resources.add(role, &store, Some(&redis));
        (store, redis)
    }

    fn resolve_state(&self) -> ResolveState {
        let (store, redis) = self.open(Role::Resolve);
        // Clicks on one limited link wait for the lock of its row. One connection remains for all other links.
        let limited = (store.max_connections() as usize).saturating_sub(1).max(1);
        ResolveState {
            limited: Arc::new(Semaphore::new(limited)),
            settling: Semaphore::new(MAX_SETTLING),
            resolver: Resolver {
                l1: Arc::clone(&self.l1),
                in_flight: self.in_flight.clone(),
                l2: self.l2.clone(),
                redis,
                store,
                metrics: Arc::clone(&self.cache_metrics),
                database_timeout: self.settings.resolve.database_timeout(),
            },
            hot: RefCell::default(),
            budget: Arc::clone(&self.budget),
            metrics: Arc::clone(&self.resolve_metrics),
            lifecycle: self.lifecycle.clone(),
            agents: Arc::clone(&self.agents),
            clicks: self.clicks.as_ref().map(ClickBuffers::open),
            clock: Clock::System,
            permanent_max_age_s: self.settings.resolve.permanent_max_age_s,
            log_sample: self.settings.telemetry.redirect_log_sample,
            until_logged: Cell::new(self.settings.telemetry.redirect_log_sample),
        }
    }

    fn api_state(&self) -> ApiState {
        let (store, redis) = self.open(Role::Api);
        let statement_timeout = self.settings.postgres.statement_timeout();
        ApiState {
            announcer: InvalidationPublisher {
                l1: Arc::clone(&self.l1),
                l2: self.l2.clone(),
                redis,
                store: store.clone(),
                outbox: self.outbox.clone(),
            },
            creates: GroupedCreates::new(store.clone(), statement_timeout),
            exports: self.slots.exports_of_thread(store.max_connections()),
            turns: Turns::new(&store),
            slots: self.slots.clone(),
            keys_per_user: self.settings.shortener.keys_per_user,
            store,
            live: self.live.clone(),
            bodies: self.bodies.clone(),
            body_timeout: self.settings.shortener.body_timeout(),
            jobs: self.jobs.clone(),
            targets: self.targets.clone(),
            base_url: self.settings.public.base_url.clone(),
        }
    }
}
