//! Starts the parts of the worker process, and stops them in order.

use std::{sync::Arc, time::Duration};

use linnet_clicks::ingest::{BatchEnricher, IngestMetrics, Ingester, StreamMonitor};
use linnet_domain::TargetPolicy;
use linnet_jobs::{start_lanes, worker_connections};
use linnet_platform::{
    clock::Clock,
    lifecycle::Lifecycle,
    redis_client::RedisClient,
    server::{StartError, bind, exit_result, serve_admin},
    settings::RedisSettings,
};
use linnet_store::{PoolRole, PostgresHosts, PostgresSettings, Store};
use linnet_telemetry::{AdminState, ServiceInfo, Telemetry, metrics::Meter};
use tokio::task::{AbortHandle, JoinHandle};

use crate::{
    append_only_file,
    maintenance::{MaintenanceContext, MaintenanceMetrics, MaintenanceSettings, Scheduler},
    readiness::WorkerReadiness,
    settings::WorkerSettings,
};

/// Longest wait at shutdown for running groups, chunks and maintenance tasks.
const FINISH_TIMEOUT: Duration = Duration::from_secs(15);
/// Longest wait at shutdown for database connections to close.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(3);
/// Longest wait at shutdown for a running scrape, in seconds.
const ADMIN_GRACE_S: u64 = 2;

/// The settings of the process.
#[derive(Debug, Clone)]
pub struct WorkerConfig {
    /// Section `worker`.
    pub worker: WorkerSettings,
    /// Section `redis`.
    pub redis: RedisSettings,
    /// Section `postgres`, with the timeouts of a worker.
    pub postgres: PostgresSettings,
    /// Settings of maintenance tasks, including section `jobs`.
    pub maintenance: MaintenanceSettings,
    /// The targets that imported links may have.
    pub targets: TargetPolicy,
    /// Name and release of the process.
    pub service: ServiceInfo,
}

/// Runs until the lifecycle ends. Needs an actix runtime.
///
/// # Errors
/// If a listener cannot be bound, a URL is invalid, or a critical task ends before the drain.
pub async fn run(
    config: WorkerConfig,
    telemetry: &Telemetry,
    lifecycle: Lifecycle,
) -> Result<(), StartError> {
    let address = &config.worker.admin_listen;
    let (admin, retire_admin) = bind(address)?.split();
    let jobs = worker_connections(&config.maintenance.jobs);
    let role = PoolRole::Worker { consumers: config.worker.consumers, jobs };
    let (hosts, observe) =
        PostgresHosts::new(&config.postgres).map_err(StartError::setting("postgres.url"))?;
    lifecycle.spawn_critical("PostgreSQL hosts", observe);
    hosts.register(&telemetry.meter());
    let store = Store::connect(&config.postgres, role, &hosts)
        .map_err(StartError::setting("postgres.url"))?;
    let (redis, connection) =
        RedisClient::new(&config.redis, None).map_err(StartError::setting("redis.url"))?;
    lifecycle.spawn_critical("Redis client", connection);
    linnet_store::register_timeouts(&telemetry.meter());
    let work = start_work(&config, &store, &redis, &telemetry.meter(), &lifecycle);

    let release = config.service.release;
    let readiness =
        WorkerReadiness { store: store.clone(), redis, lifecycle: lifecycle.clone(), release };
    let state = AdminState {
        registry: telemetry.registry().clone(),
        readiness: Arc::new(readiness),
        service: config.service,
    };
    tracing::info!(admin = %address, release, "worker starting");
    let server = serve_admin(&lifecycle, state, admin, ADMIN_GRACE_S)?;
    let finish = tokio::spawn(work.finish(lifecycle.clone()));
    let server_result = server.await;
    lifecycle.begin_drain();
    let _ = finish.await;
    retire_admin.retire();
    if tokio::time::timeout(CLOSE_TIMEOUT, store.close()).await.is_err() {
        tracing::warn!("database connections not closed in time");
    }
    server_result?;
    exit_result(&lifecycle)
}

/// The tasks that finish their current work when the process drains.
struct RunningWork {
    tasks: Vec<JoinHandle<()>>,
    /// Abort handles of the ingesters and lanes, whose work another worker can take over at any time.
    aborts: Vec<AbortHandle>,
}

impl RunningWork {
    /// Waits for the drain, and then for at most [`FINISH_TIMEOUT`] for all tasks. Aborts those that other workers can
    /// take over, and begins the grace period.
    async fn finish(self, lifecycle: Lifecycle) {
        lifecycle.draining().cancelled().await;
        let all = futures::future::join_all(self.tasks);
        if tokio::time::timeout(FINISH_TIMEOUT, all).await.is_err() {
            tracing::warn!("unfinished work left to another worker");
            for abort in self.aborts {
                abort.abort();
            }
        }
        lifecycle.run_until_stopping(Duration::ZERO, || {}).await;
    }
}

fn start_work(
    config: &WorkerConfig,
    store: &Store,
    redis: &RedisClient,
    meter: &Meter,
    lifecycle: &Lifecycle,
) -> RunningWork {
    let monitor = StreamMonitor::new(redis.clone(), meter, Clock::System);
    lifecycle.spawn_critical("stream monitor", monitor.run());
    lifecycle.spawn_critical("append-only file", append_only_file::rewrite(config.redis.clone()));
    let context = MaintenanceContext {
        store: store.clone(),
        settings: config.maintenance.clone(),
        clock: Clock::System,
    };
    let scheduler = Scheduler::new(context, MaintenanceMetrics::new(meter), lifecycle.draining());
    let scheduler = lifecycle.spawn_critical("maintenance", scheduler.run());
    let ingesters = start_ingesters(config, store, meter, lifecycle);
    let lanes = start_lanes(
        &config.maintenance.jobs,
        &config.redis,
        &config.targets,
        store,
        redis,
        meter,
        lifecycle,
    );
    let (mut tasks, aborts): (Vec<_>, Vec<_>) = ingesters.into_iter().chain(lanes).unzip();
    tasks.push(scheduler);
    RunningWork { tasks, aborts }
}

/// Starts the consumers of clicks. Returns for each a handle that waits for its end, and one that aborts it.
fn start_ingesters(
    config: &WorkerConfig,
    store: &Store,
    meter: &Meter,
    lifecycle: &Lifecycle,
) -> Vec<(JoinHandle<()>, AbortHandle)> {
    let metrics = Arc::new(IngestMetrics::new(meter));
    let enricher = BatchEnricher::shared(store.clone(), Clock::System);
    let start = |_| {
        let ingester = Ingester::new(
            store.clone(),
            config.redis.clone(),
            config.worker.ingest(),
            Arc::clone(&metrics),
            Arc::clone(&enricher),
            Clock::System,
        );
        let task = tokio::spawn(ingester.run(lifecycle.draining()));
        let abort = task.abort_handle();
        (lifecycle.watch_critical("ingester", task), abort)
    };
    (0..config.worker.consumers).map(start).collect()
}
