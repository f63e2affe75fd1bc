//! `linnet-shortener worker`: the process.

use std::{io, sync::Arc, time::Duration};

use actix_web::{App, HttpServer};
use futures::{FutureExt, future::BoxFuture};
use linnet_platform::{
    lifecycle::Lifecycle,
    listener::{Bound, Listener},
    redis_link::RedisLink,
};
use linnet_telemetry::{
    AdminState, CheckState, Readiness, ReadinessReport, Telemetry, admin_routes, metrics::Meter,
};
use tokio::task::{AbortHandle, JoinHandle};

use crate::{
    config::Settings,
    domain::TargetPolicy,
    jobs::{WORKER_CONNECTIONS, start_lanes},
    release::{RELEASE, WORKER},
    startup::StartError,
    store::{PoolRole, Store, connect_lazy},
    upkeep::{Keeper, Upkeep, UpkeepMetrics},
};

use super::{IngestMetrics, Ingester, Knowledge, watch};

const PING_TIMEOUT: Duration = Duration::from_millis(1_500);
/// Longest wait for the group that is being written when the process stops.
const FINISH_TIMEOUT: Duration = Duration::from_secs(15);
const CLOSE_TIMEOUT: Duration = Duration::from_secs(3);
/// Longest wait for whoever scrapes while the process stops, in seconds.
const ADMIN_SHUTDOWN_S: u64 = 2;

/// Runs until the lifecycle ends. Needs an actix runtime.
pub async fn work(
    settings: Settings,
    telemetry: &Telemetry,
    lifecycle: Lifecycle,
) -> Result<(), StartError> {
    let address = settings.worker.admin_listen.clone();
    let bound = Listener::bind(&address)
        .map_err(|source| StartError::Bind { address: address.clone(), source })?;
    let (admin, retire_admin) = bound.split();
    let role = PoolRole::Worker { consumers: settings.worker.consumers, jobs: WORKER_CONNECTIONS };
    let store = Store::new(connect_lazy(&settings.worker_postgres(), role)?);
    let meter = telemetry.meter();

    let (link, task) = watch::link(&settings.redis)?;
    lifecycle.own("redis link", task);
    lifecycle.own("stream watch", watch::watch(link.clone(), meter.clone()));
    let upkeep = Keeper::new(
        Upkeep { store: store.clone(), settings: settings.clone() },
        UpkeepMetrics::new(&meter),
        lifecycle.draining(),
    );
    let upkeep = lifecycle.own("upkeep", upkeep.run());
    let ingesters = start_ingesters(&settings, &store, &meter, &lifecycle);
    let targets = TargetPolicy::new(&settings.resolve.target_schemes, &settings.public)
        .map_err(StartError::Targets)?;
    let lanes = start_lanes(&settings, &targets, &store, &link, &meter, &lifecycle);
    let ingesters: Vec<_> = ingesters.into_iter().chain(lanes).collect();
    let aborts: Vec<AbortHandle> = ingesters.iter().map(|(_, abort)| abort.clone()).collect();
    let ended = ingesters.into_iter().map(|(ended, _)| ended).chain([upkeep]);
    let ended = futures::future::join_all(ended);

    let state = AdminState {
        registry: telemetry.registry().clone(),
        readiness: Arc::new(WorkerReadiness {
            store: store.clone(),
            link,
            lifecycle: lifecycle.clone(),
        }),
        service: WORKER,
    };
    tracing::info!(admin = %address, release = RELEASE, "the worker starts");
    let server = serve_admin(state, admin, &lifecycle)?;
    let stop = {
        let lifecycle = lifecycle.clone();
        tokio::spawn(async move {
            lifecycle.draining().cancelled().await;
            if tokio::time::timeout(FINISH_TIMEOUT, ended).await.is_err() {
                tracing::warn!("work under way is left to another worker");
                for abort in aborts {
                    abort.abort();
                }
            }
            lifecycle.run_until_stopping(Duration::ZERO, || {}).await;
        })
    };
    let end = server.await;
    lifecycle.begin_drain();
    // It has nothing left to wait for but the ingesters and the upkeep.
    let _ = stop.await;
    retire_admin.retire();
    if tokio::time::timeout(CLOSE_TIMEOUT, store.close()).await.is_err() {
        tracing::warn!("database connections were not closed in time");
    }
    end?;
    if lifecycle.task_died() { Err(StartError::TaskDied) } else { Ok(()) }
}

/// The consumers, each with its end and what ends it at once.
fn start_ingesters(
    settings: &Settings,
    store: &Store,
    meter: &Meter,
    lifecycle: &Lifecycle,
) -> Vec<(JoinHandle<()>, AbortHandle)> {
    let metrics = Arc::new(IngestMetrics::new(meter));
    let knowledge = Knowledge::shared(store.clone());
    let start = |_| {
        let ingester = Ingester::new(
            store.clone(),
            settings.redis.clone(),
            settings.worker.clone(),
            Arc::clone(&metrics),
            Arc::clone(&knowledge),
        );
        let task = tokio::spawn(ingester.run(lifecycle.draining()));
        let abort = task.abort_handle();
        (lifecycle.watch("ingester", task), abort)
    };
    (0..settings.worker.consumers).map(start).collect()
}

fn serve_admin(
    state: AdminState,
    socket: Bound,
    lifecycle: &Lifecycle,
) -> io::Result<actix_web::dev::Server> {
    let server =
        HttpServer::new(move || App::new().configure(|cfg| admin_routes(cfg, state.clone())))
            .workers(1)
            .shutdown_timeout(ADMIN_SHUTDOWN_S)
            .shutdown_signal(lifecycle.stopping().cancelled_owned());
    Ok(match socket {
        Bound::Tcp(listener) => server.listen(listener)?.run(),
        Bound::Unix(listener) => server.listen_uds(listener)?.run(),
    })
}

/// A worker without either dependency waits; it is needed by nobody at once.
struct WorkerReadiness {
    store: Store,
    link: RedisLink,
    lifecycle: Lifecycle,
}

impl Readiness for WorkerReadiness {
    fn check(&self) -> BoxFuture<'_, ReadinessReport> {
        async {
            let down = |reason: &str| CheckState::Down(reason.to_owned());
            let postgresql = match tokio::time::timeout(PING_TIMEOUT, self.store.ping()).await {
                Ok(Ok(())) => CheckState::Up,
                Ok(Err(error)) => CheckState::Down(error.to_string()),
                Err(_) => down("no answer in time"),
            };
            let redis = if self.link.is_up() { CheckState::Up } else { down("away") };
            let working =
                if self.lifecycle.is_draining() { down("draining") } else { CheckState::Up };
            let checks = vec![("postgresql", postgresql), ("redis", redis), ("working", working)];
            let ready = !checks.iter().any(|(_, state)| matches!(state, CheckState::Down(_)));
            ReadinessReport { ready, release: RELEASE.to_owned(), checks }
        }
        .boxed()
    }
}
