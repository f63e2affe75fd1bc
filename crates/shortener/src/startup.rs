//! Puts the pieces together: binds everything first, then starts it, then stops it in order.

use std::{
    cell::{Cell, RefCell},
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use actix_web::{App, HttpServer, dev::Server, middleware::from_fn, web};
use deadpool_redis::Runtime;
use linnet_platform::{
    clock::Clock,
    invalidation_bus::{self, BusState, InvalidationSink},
    lifecycle::Lifecycle,
    listener::Bound,
    redis_client::RedisClient,
    server::{StartError, bind, first_ends_all, run_on, serve_admin},
};
use linnet_protocol::invalidation::CHANNEL;
use linnet_telemetry::{AdminState, RequestTelemetry, Telemetry};
use secrecy::ExposeSecret;
use tokio::sync::Semaphore;

use crate::{
    config::Settings,
    http::{
        api::{self, ApiState, Exports},
        internal::{self, RequestTimeout, close_while_draining, limit_time, require_token},
    },
    readiness::{ShortenerReadiness, register_gauges},
    recording::Recording,
    release::SERVICE,
    workers::{Role, Workers},
};
use linnet_clicks::{ClickBuffers, Enricher, LiveClicks};
use linnet_domain::TargetPolicy;
use linnet_jobs::JobService;
use linnet_resolve::{
    CacheMetrics, InFlightLookups, InvalidationPublisher, L1Cache, L2Cache, Outbox, OutboxRelay,
    Resolver,
    listener::{self, MissBudget, PublicState, ResolveMetrics},
    warm_up,
};
use linnet_store::{GroupedCreates, PoolRole, Store, connect_lazy};

/// Longest wait for pools to close.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(3);
/// Redis connections of the background tasks.
const BACKGROUND_REDIS_CONNECTIONS: usize = 2;
/// How long a connection that closes may go on sending what nobody reads.
const DISCONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// What all workers share.
#[derive(Clone)]
struct Shared {
    settings: Arc<Settings>,
    lifecycle: Lifecycle,
    workers: Workers,
    local: Arc<L1Cache>,
    flights: Arc<InFlightLookups>,
    redis_cache: L2Cache,
    cache_metrics: Arc<CacheMetrics>,
    resolve_metrics: Arc<ResolveMetrics>,
    requests: RequestTelemetry,
    budget: Arc<MissBudget>,
    agents: Arc<Enricher>,
    clicks: Option<ClickBuffers>,
    live: Option<LiveClicks>,
    jobs: JobService,
    exports: Exports,
    targets: TargetPolicy,
    catch_up: OutboxRelay,
}

/// Runs until the lifecycle ends. Needs an actix runtime.
pub async fn serve(
    settings: Settings,
    telemetry: &Telemetry,
    lifecycle: Lifecycle,
) -> Result<(), StartError> {
    let settings = Arc::new(settings);
    let (resolve, retire_resolve) = bind(&settings.shortener.resolve_listen)?.split();
    let (api, retire_api) = bind(&settings.shortener.api_listen)?.split();
    let (admin, retire_admin) = bind(&settings.shortener.admin_listen)?.split();

    let meter = telemetry.meter();
    let workers = Workers::default();
    let store = Store::new(
        connect_lazy(&settings.postgres, PoolRole::Background)
            .map_err(StartError::setting("postgres.url"))?,
    );
    workers.add(Role::Background, &store, None);
    let local = Arc::new(L1Cache::new(&settings.cache));
    let cache_metrics = Arc::new(CacheMetrics::new(&meter));
    let shared_cache = L2Cache::new(&settings.cache);

    let outbox = Outbox {
        store: store.clone(),
        redis: background_redis(&settings)?,
        local: Arc::clone(&local),
        shared: shared_cache.clone(),
        metrics: Arc::clone(&cache_metrics),
    };
    let (catch_up, outbox) = outbox.start();
    lifecycle.own("outbox", outbox);

    let sink: Arc<dyn InvalidationSink> = Arc::<L1Cache>::clone(&local);
    let nonce = format!("shortener:{:032x}", rand::random::<u128>());
    let (bus_state, bus) =
        invalidation_bus::bus(&settings.redis, CHANNEL, &nonce, sink, Some(catch_up.before_use()))
            .map_err(StartError::setting("redis.url"))?;
    lifecycle.own("invalidation bus", bus);

    let agents = Arc::new(Enricher::default());
    let recording = Recording::start(&settings, &meter, &store, &agents, &lifecycle)?;
    let budget = Arc::new(MissBudget::new(&settings.resolve));
    lifecycle.own("miss budget", sweep(Arc::clone(&budget)));
    register_gauges(&meter, &workers, &local, &bus_state);

    let shared = Shared {
        jobs: JobService::start(&settings.jobs, store.clone(), &lifecycle),
        lifecycle: lifecycle.clone(),
        workers: workers.clone(),
        flights: InFlightLookups::new(settings.resolve.max_in_flight_lookups),
        redis_cache: shared_cache,
        resolve_metrics: Arc::new(ResolveMetrics::new(&meter)),
        requests: RequestTelemetry::new(&meter, &settings.telemetry),
        budget,
        live: recording.as_ref().map(|recording| recording.live.clone()),
        agents,
        clicks: recording.as_ref().map(|recording| recording.buffers.clone()),
        exports: Exports::default(),
        targets: settings.target_policy().map_err(StartError::setting("public.own_hosts"))?,
        catch_up,
        cache_metrics: Arc::clone(&cache_metrics),
        local: Arc::clone(&local),
        settings: Arc::clone(&settings),
    };
    let is_warm = Arc::new(AtomicBool::new(false));
    spawn_warm_up(&shared, store.clone(), bus_state.clone(), Arc::clone(&is_warm));

    let admin_state = AdminState {
        registry: telemetry.registry().clone(),
        readiness: Arc::new(ShortenerReadiness {
            store,
            workers: workers.clone(),
            bus: bus_state,
            lifecycle: lifecycle.clone(),
            is_warm,
        }),
        service: SERVICE,
    };
    tracing::info!(
        resolve = %settings.shortener.resolve_listen,
        api = %settings.shortener.api_listen,
        admin = %settings.shortener.admin_listen,
        release = SERVICE.release,
        "the shortener starts"
    );
    let servers = [
        serve_resolve(&shared, resolve)?,
        serve_api(&shared, api)?,
        serve_admin(&lifecycle, admin_state, admin, settings.shutdown.grace_s)?,
    ];
    let stop = {
        let lifecycle = lifecycle.clone();
        let drain = Duration::from_millis(settings.shutdown.drain_ms);
        tokio::spawn(async move {
            let retire = || {
                retire_resolve.retire();
                retire_api.retire();
            };
            lifecycle.run_until_stopping(drain, retire).await;
        })
    };
    let ends = first_ends_all(servers, &lifecycle).await;
    stop.abort();
    // Nobody serves any more: what the buffers hold is all there will be.
    if let Some(recording) = recording {
        recording.publisher.finish().await;
    }
    retire_admin.retire();
    if tokio::time::timeout(CLOSE_TIMEOUT, workers.close()).await.is_err() {
        tracing::warn!("database connections were not closed in time");
    }
    ends?;
    if lifecycle.task_died() { Err(StartError::TaskDied) } else { Ok(()) }
}

/// The pool of the background tasks; every wait is bounded.
pub(crate) fn background_redis(settings: &Settings) -> Result<deadpool_redis::Pool, StartError> {
    let config = deadpool_redis::Config::from_url(settings.redis.url.expose_secret());
    let pool = config
        .builder()
        .map_err(|error| io::Error::other(error.to_string()))?
        .max_size(BACKGROUND_REDIS_CONNECTIONS)
        .wait_timeout(Some(settings.redis.connect_timeout()))
        .create_timeout(Some(settings.redis.connect_timeout()))
        .recycle_timeout(Some(settings.redis.response_timeout()))
        .runtime(Runtime::Tokio1)
        .build()
        .map_err(|error| io::Error::other(error.to_string()))?;
    Ok(pool)
}

async fn sweep(budget: Arc<MissBudget>) {
    let mut ticks = tokio::time::interval(MissBudget::SWEEP_EVERY);
    loop {
        ticks.tick().await;
        budget.sweep();
    }
}

/// The warm-up ends by itself, so it is no owned task; the process is not ready before.
fn spawn_warm_up(shared: &Shared, store: Store, feed: BusState, is_warm: Arc<AtomicBool>) {
    let (local, metrics) = (Arc::clone(&shared.local), Arc::clone(&shared.cache_metrics));
    let settings = shared.settings.cache.clone();
    tokio::spawn(async move {
        let warm = async {
            // What is loaded while the feed is cut would be forgotten as soon as it is live.
            while !feed.is_live() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            warm_up(&local, &store, &metrics, settings.warmup_links, settings.warmup_time()).await;
        };
        if tokio::time::timeout(settings.warmup_time(), warm).await.is_err() {
            tracing::warn!("no warm-up: the change feed is not live, or the time ran out");
        }
        is_warm.store(true, Ordering::Relaxed);
    });
}

/// Applies what all listeners have in common. A macro, because the server's type names its factory.
macro_rules! configured {
    ($server:expr, $shared:expr) => {{
        let settings = &$shared.settings;
        $server
            .workers(settings.server_threads())
            .max_connections(settings.shortener.max_connections)
            .keep_alive(Duration::from_secs(settings.shortener.keep_alive_s))
            .client_request_timeout(Duration::from_millis(settings.shortener.head_timeout_ms))
            .client_disconnect_timeout(DISCONNECT_TIMEOUT)
            // A client that closes its side is gone.
            .h1_allow_half_closed(false)
            .shutdown_timeout(settings.shutdown.grace_s)
            .shutdown_signal($shared.lifecycle.stopping().cancelled_owned())
    }};
}

fn serve_resolve(shared: &Shared, socket: Bound) -> io::Result<Server> {
    let worker = shared.clone();
    // The factory runs once in each worker's own runtime.
    let server = HttpServer::new(move || {
        App::new()
            .app_data(web::Data::new(worker.resolve_state()))
            .default_service(web::to(listener::serve))
    });
    run_on(configured!(server, shared), socket)
}

fn serve_api(shared: &Shared, socket: Bound) -> io::Result<Server> {
    let worker = shared.clone();
    let server = HttpServer::new(move || {
        App::new()
            .app_data(web::Data::new(worker.api_state()))
            .app_data(web::Data::new(worker.lifecycle.clone()))
            .app_data(web::Data::new(worker.settings.service.clone()))
            .app_data(web::Data::new(RequestTimeout(worker.settings.shortener.request_timeout())))
            .app_data(web::PayloadConfig::new(api::MAX_BODY_BYTES))
            .wrap(from_fn(limit_time))
            .wrap(from_fn(require_token))
            .wrap(from_fn(close_while_draining))
            .wrap(worker.requests.clone())
            .configure(api::routes)
            .configure(internal::routes)
            .default_service(web::to(api::unknown_path))
    });
    run_on(configured!(server, shared), socket)
}

impl Shared {
    /// A pool and a Redis link for one worker, on the worker's own runtime.
    #[expect(
        clippy::expect_used,
        reason = "start-up; the same settings have made a pool and a link"
    )]
    fn open(&self, role: Role) -> (Store, RedisClient) {
        let workers = self.settings.server_threads();
        let pool_role = match role {
            Role::Resolve => PoolRole::Resolve { workers },
            Role::Api | Role::Background => PoolRole::Api { workers },
        };
        let store = Store::new(
            connect_lazy(&self.settings.postgres, pool_role).expect("the database URL is checked"),
        );
        let before_use = self.catch_up.before_use();
        let (redis, task) = RedisClient::new(&self.settings.redis, Some(before_use))
            .expect("the Redis URL is checked");
        self.lifecycle.own("redis link", task);
        self.workers.add(role, &store, Some(&redis));
        (store, redis)
    }

    fn resolve_state(&self) -> PublicState {
        let (store, redis) = self.open(Role::Resolve);
        // One connection is kept for other links: clicks on one limited link wait for each other.
        let limited = (store.max_connections() as usize).saturating_sub(1).max(1);
        PublicState {
            limited: Semaphore::new(limited),
            resolver: Resolver {
                local: Arc::clone(&self.local),
                flights: Arc::clone(&self.flights),
                shared: self.redis_cache.clone(),
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
        ApiState {
            announcer: InvalidationPublisher {
                local: Arc::clone(&self.local),
                shared: self.redis_cache.clone(),
                redis,
                store: store.clone(),
                outbox: self.catch_up.clone(),
            },
            creates: GroupedCreates::new(store.clone()),
            exports: self.exports.of_worker(store.max_connections()),
            store,
            live: self.live.clone(),
            jobs: self.jobs.clone(),
            targets: self.targets.clone(),
            base_url: self.settings.public.base_url.clone(),
        }
    }
}
