//! The process: starts everything, then stops it in order.

use std::{sync::Arc, time::Duration};

use linnet_clicks::ingest::{IngestMetrics, Ingester, Knowledge, WorkerSettings, watch};
use linnet_domain::TargetPolicy;
use linnet_jobs::{WORKER_CONNECTIONS, start_lanes};
use linnet_platform::{
    clock::Clock,
    lifecycle::Lifecycle,
    server::{StartError, bind, serve_admin},
    settings::RedisSettings,
};
use linnet_store::{PoolRole, PostgresSettings, Store, connect_lazy};
use linnet_telemetry::{AdminState, ServiceInfo, Telemetry, metrics::Meter};
use tokio::task::{AbortHandle, JoinHandle};

use crate::{
    maintenance::{MaintenanceContext, MaintenanceMetrics, MaintenanceSettings, Scheduler},
    readiness::WorkerReadiness,
};

/// Longest wait for the group that is being written when the process stops.
const FINISH_TIMEOUT: Duration = Duration::from_secs(15);
const CLOSE_TIMEOUT: Duration = Duration::from_secs(3);
/// Longest wait for a scrape that is running while the process stops, in seconds.
const ADMIN_GRACE_S: u64 = 2;

/// What the process works with.
#[derive(Debug, Clone)]
pub struct WorkerConfig {
    /// Section `worker`.
    pub worker: WorkerSettings,
    /// Section `redis`.
    pub redis: RedisSettings,
    /// Section `postgres`, with the time-outs of a worker.
    pub postgres: PostgresSettings,
    /// What maintenance tasks keep, and for how long; section `jobs` among it.
    pub maintenance: MaintenanceSettings,
    /// Which targets imports may bring.
    pub targets: TargetPolicy,
    /// The process's name and release.
    pub service: ServiceInfo,
}

/// Runs until the lifecycle ends. Needs an actix runtime.
pub async fn run(
    config: WorkerConfig,
    telemetry: &Telemetry,
    lifecycle: Lifecycle,
) -> Result<(), StartError> {
    let address = config.worker.admin_listen.clone();
    let (admin, retire_admin) = bind(&address)?.split();
    let role = PoolRole::Worker { consumers: config.worker.consumers, jobs: WORKER_CONNECTIONS };
    let pool = connect_lazy(&config.postgres, role).map_err(StartError::setting("postgres.url"))?;
    let store = Store::new(pool);
    let meter = telemetry.meter();

    let (redis, task) = watch::client(&config.redis).map_err(StartError::setting("redis.url"))?;
    lifecycle.own("Redis client", task);
    lifecycle.own("stream watch", watch::watch(redis.clone(), meter.clone(), Clock::System));
    let scheduler = Scheduler::new(
        MaintenanceContext {
            store: store.clone(),
            settings: config.maintenance.clone(),
            clock: Clock::System,
        },
        MaintenanceMetrics::new(&meter),
        lifecycle.draining(),
    );
    let scheduler = lifecycle.own("maintenance", scheduler.run());
    let ingesters = start_ingesters(&config, &store, &meter, &lifecycle);
    let lanes = start_lanes(
        &config.maintenance.jobs,
        &config.redis,
        &config.targets,
        &store,
        &redis,
        &meter,
        &lifecycle,
    );
    let (ended, aborts): (Vec<_>, Vec<_>) = ingesters.into_iter().chain(lanes).unzip();
    let ended = futures::future::join_all(ended.into_iter().chain([scheduler]));

    let state = AdminState {
        registry: telemetry.registry().clone(),
        readiness: Arc::new(WorkerReadiness {
            store: store.clone(),
            redis,
            lifecycle: lifecycle.clone(),
            release: config.service.release,
        }),
        service: config.service,
    };
    tracing::info!(admin = %address, release = config.service.release, "worker starting");
    let server = serve_admin(&lifecycle, state, admin, ADMIN_GRACE_S)?;
    let stop = tokio::spawn(finish(lifecycle.clone(), ended, aborts));
    let end = server.await;
    lifecycle.begin_drain();
    // Nothing is left to wait for but the ingesters, the lanes and the scheduler.
    let _ = stop.await;
    retire_admin.retire();
    if tokio::time::timeout(CLOSE_TIMEOUT, store.close()).await.is_err() {
        tracing::warn!("database connections not closed in time");
    }
    end?;
    if lifecycle.task_died() { Err(StartError::TaskDied) } else { Ok(()) }
}

/// Lets running work finish once the process drains, and ends what takes too long.
async fn finish<T>(
    lifecycle: Lifecycle,
    ended: impl Future<Output = T> + Send,
    aborts: Vec<AbortHandle>,
) {
    lifecycle.draining().cancelled().await;
    if tokio::time::timeout(FINISH_TIMEOUT, ended).await.is_err() {
        tracing::warn!("unfinished work left to another worker");
        for abort in aborts {
            abort.abort();
        }
    }
    lifecycle.run_until_stopping(Duration::ZERO, || {}).await;
}

/// The consumers, each with its end and the handle that ends it at once.
fn start_ingesters(
    config: &WorkerConfig,
    store: &Store,
    meter: &Meter,
    lifecycle: &Lifecycle,
) -> Vec<(JoinHandle<()>, AbortHandle)> {
    let metrics = Arc::new(IngestMetrics::new(meter));
    let knowledge = Knowledge::shared(store.clone(), Clock::System);
    let start = |_| {
        let ingester = Ingester::new(
            store.clone(),
            config.redis.clone(),
            config.worker.clone(),
            Arc::clone(&metrics),
            Arc::clone(&knowledge),
            Clock::System,
        );
        let task = tokio::spawn(ingester.run(lifecycle.draining()));
        let abort = task.abort_handle();
        (lifecycle.watch("ingester", task), abort)
    };
    (0..config.worker.consumers).map(start).collect()
}
