//! Builds the process from the crates that do the work, runs it, and stops it in order.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use linnet_clicks::{ClickRecording, UserAgentParser};
use linnet_jobs::JobService;
use linnet_platform::{
    invalidation_bus::{self, BusState, InvalidationSink},
    lifecycle::Lifecycle,
    redis_connection,
    server::{StartError, bind, exit_result, first_ends_all, serve_admin},
};
use linnet_protocol::invalidation::CHANNEL;
use linnet_resolve::{
    CacheMetrics, InFlightLookups, L1Cache, L2Cache, Outbox,
    listener::{MissBudget, ResolveMetrics},
    warm_up,
};
use linnet_store::{PoolRole, PostgresHosts, Store};
use linnet_telemetry::{AdminState, RequestTelemetry, Telemetry};

use crate::{
    config::Settings,
    http::api::Slots,
    readiness::{ShortenerReadiness, register_gauges},
    release::SERVICE,
    server_threads::{Shared, serve_api, serve_resolve},
    thread_resources::{Role, ThreadResources},
};

/// Longest wait for database pools to close.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(3);
/// Redis connections of the background tasks.
const BACKGROUND_REDIS_CONNECTIONS: usize = 2;

/// Runs until the lifecycle ends. Needs an actix runtime.
///
/// All listeners are bound before any task starts.
pub async fn serve(
    settings: Settings,
    telemetry: &Telemetry,
    lifecycle: Lifecycle,
) -> Result<(), StartError> {
    let settings = Arc::new(settings);
    linnet_protocol::problem::set_types_url(settings.public.problem_types_url());
    let (resolve, retire_resolve) = bind(&settings.shortener.resolve_listen)?.split();
    let (api, retire_api) = bind(&settings.shortener.api_listen)?.split();
    let (admin, retire_admin) = bind(&settings.shortener.admin_listen)?.split();

    let Process { shared, recording, admin_state } =
        start(Arc::clone(&settings), telemetry, &lifecycle)?;
    tracing::info!(
        resolve = %settings.shortener.resolve_listen,
        api = %settings.shortener.api_listen,
        admin = %settings.shortener.admin_listen,
        release = SERVICE.release,
        "shortener started"
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
    let ended = first_ends_all(servers, &lifecycle).await;
    stop.abort();
    // All listeners have stopped, so the buffers receive no more clicks.
    if let Some(recording) = recording {
        recording.publisher.finish().await;
    }
    retire_admin.retire();
    if tokio::time::timeout(CLOSE_TIMEOUT, shared.resources.close()).await.is_err() {
        tracing::warn!("database connections not closed in time");
    }
    ended?;
    exit_result(&lifecycle)
}

/// A process whose background tasks run, but whose listeners do not serve yet.
struct Process {
    shared: Shared,
    recording: Option<ClickRecording>,
    admin_state: AdminState,
}

/// Starts the background tasks, and builds the state that the server threads share.
// Long because it builds every shared part once, in the order of their dependencies.
fn start(
    settings: Arc<Settings>,
    telemetry: &Telemetry,
    lifecycle: &Lifecycle,
) -> Result<Process, StartError> {
    let meter = telemetry.meter();
    let resources = ThreadResources::default();
    let (hosts, observe) =
        PostgresHosts::new(&settings.postgres).map_err(StartError::setting("postgres.url"))?;
    lifecycle.spawn_critical("PostgreSQL hosts", observe);
    hosts.register(&meter);
    let store = Store::connect(&settings.postgres, PoolRole::Background, &hosts)
        .map_err(StartError::setting("postgres.url"))?;
    resources.add(Role::Background, &store, None);

    let metrics = CacheMetrics::new(&meter).into();
    let caches = start_caches(&settings, &resources, &hosts, metrics, lifecycle)?;
    let agents = Arc::new(UserAgentParser::default());
    let recording = ClickRecording::start(
        &settings.clicks,
        &settings.redis,
        &meter,
        &store,
        &agents,
        lifecycle,
    )?;
    let budget = Arc::new(MissBudget::new(&settings.resolve));
    lifecycle.spawn_critical("miss budget", sweep(Arc::clone(&budget)));
    register_gauges(&meter, &resources, &caches.l1, &caches.bus);
    let is_warm = spawn_warm_up(&settings, store.clone(), &caches);

    let admin_state = AdminState {
        registry: telemetry.registry().clone(),
        readiness: Arc::new(ShortenerReadiness {
            store: store.clone(),
            resources: resources.clone(),
            bus: caches.bus,
            lifecycle: lifecycle.clone(),
            is_warm,
        }),
        service: SERVICE,
    };
    let shared = Shared {
        jobs: JobService::start(&settings.jobs, store, lifecycle),
        lifecycle: lifecycle.clone(),
        hosts,
        resources,
        in_flight: InFlightLookups::new(settings.resolve.max_in_flight_lookups),
        l1: caches.l1,
        l2: caches.l2,
        outbox: caches.outbox,
        cache_metrics: caches.metrics,
        resolve_metrics: Arc::new(ResolveMetrics::new(&meter)),
        requests: RequestTelemetry::new(&meter, &settings.telemetry),
        budget,
        live: recording.as_ref().map(|recording| recording.live.clone()),
        agents,
        clicks: recording.as_ref().map(|recording| recording.buffers.clone()),
        bodies: settings.shortener.body_budget(),
        responses: settings.shortener.response_budget(),
        slots: Slots::new(&settings.shortener, &settings.jobs, &meter),
        targets: settings.target_policy().map_err(StartError::setting("public.own_hosts"))?,
        settings,
    };
    Ok(Process { shared, recording, admin_state })
}

/// The caches of the process, with the outbox relay and the invalidation bus that keep them fresh.
struct Caches {
    l1: Arc<L1Cache>,
    l2: L2Cache,
    outbox: linnet_resolve::OutboxRelay,
    bus: BusState,
    metrics: Arc<CacheMetrics>,
}

/// Builds L1 and L2, and starts the outbox relay and the invalidation bus on a thread of their own, where no other task
/// delays them.
fn start_caches(
    settings: &Settings,
    resources: &ThreadResources,
    hosts: &PostgresHosts,
    metrics: Arc<CacheMetrics>,
    lifecycle: &Lifecycle,
) -> Result<Caches, StartError> {
    let l1 = Arc::new(L1Cache::new(&settings.cache));
    let l2 = L2Cache::new(&settings.cache, settings.redis.key_layout());
    let store = Store::connect(&settings.postgres, PoolRole::Outbox, hosts)
        .map_err(StartError::setting("postgres.url"))?;
    resources.add(Role::Background, &store, None);
    let outbox = Outbox {
        store,
        redis: redis_connection::pool(&settings.redis, BACKGROUND_REDIS_CONNECTIONS)
            .map_err(StartError::setting("redis.url"))?,
        l1: Arc::clone(&l1),
        l2: l2.clone(),
        metrics: Arc::clone(&metrics),
    };
    let (relay, outbox) = outbox.start();
    let sink: Arc<dyn InvalidationSink> = Arc::<L1Cache>::clone(&l1);
    let nonce = format!("shortener:{:032x}", rand::random::<u128>());
    let (bus_state, bus) =
        invalidation_bus::bus(&settings.redis, CHANNEL, &nonce, sink, Some(relay.before_use()))
            .map_err(StartError::setting("redis.url"))?;
    lifecycle.spawn_critical_thread("invalidation", || async {
        // The thread ends when one of the two ends, and the process then drains.
        tokio::select! {
            () = outbox => {}
            () = bus => {}
        }
    })?;
    Ok(Caches { l1, l2, outbox: relay, bus: bus_state, metrics })
}

async fn sweep(budget: Arc<MissBudget>) {
    let mut ticks = tokio::time::interval(MissBudget::SWEEP_EVERY);
    loop {
        ticks.tick().await;
        budget.sweep();
    }
}

/// Starts the warm-up and returns the flag that is set when it ends. The process is not ready before that. The
/// lifecycle does not own the task, because the task ends after `cache.warmup_ms` at the latest.
fn spawn_warm_up(settings: &Settings, store: Store, caches: &Caches) -> Arc<AtomicBool> {
    let is_warm = Arc::new(AtomicBool::new(false));
    let (l1, metrics) = (Arc::clone(&caches.l1), Arc::clone(&caches.metrics));
    let (settings, bus, done) = (settings.cache.clone(), caches.bus.clone(), Arc::clone(&is_warm));
    tokio::spawn(async move {
        let warm = async {
            // The bus flushes L1 when it becomes live, so entries that were loaded earlier would be lost.
            while !bus.is_live() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            warm_up(&l1, &store, &metrics, settings.warmup_links, settings.warmup_time()).await;
        };
        if tokio::time::timeout(settings.warmup_time(), warm).await.is_err() {
            tracing::warn!("warm-up ended early: invalidation bus not live, or time limit reached");
        }
        done.store(true, Ordering::Relaxed);
    });
    is_warm
}
