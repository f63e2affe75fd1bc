//! Readiness of the shortener, and the gauges that are read at each scrape.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures::{FutureExt, future::BoxFuture};
use linnet_platform::{invalidation_bus::BusState, lifecycle::Lifecycle};
use linnet_telemetry::{
    CheckState, Readiness, ReadinessReport,
    metrics::{KeyValue, Meter},
};

use crate::{
    release::RELEASE,
    thread_resources::{Role, ThreadResources},
};
use linnet_resolve::L1Cache;
use linnet_store::Store;

/// Below the 2 s that the admin listener allows for all checks.
const PING_TIMEOUT: Duration = Duration::from_millis(1_500);

/// Checks the dependencies and the state of the process. The process is ready if PostgreSQL responds, the warm-up has
/// ended, and the process does not drain. Without Redis it is degraded but ready. Without PostgreSQL, uncached codes
/// cannot be resolved and nothing can be changed.
pub(crate) struct ShortenerReadiness {
    pub(crate) store: Store,
    pub(crate) resources: ThreadResources,
    pub(crate) bus: BusState,
    pub(crate) lifecycle: Lifecycle,
    pub(crate) is_warm: Arc<AtomicBool>,
}

impl Readiness for ShortenerReadiness {
    fn check(&self) -> BoxFuture<'_, ReadinessReport> {
        async {
            let postgresql = match tokio::time::timeout(PING_TIMEOUT, self.store.ping()).await {
                Ok(Ok(())) => CheckState::Up,
                Ok(Err(error)) => CheckState::Down(error.with_reason()),
                Err(_) => CheckState::Down("timed out".into()),
            };
            let redis = match (self.resources.redis_clients(), self.resources.redis_fault()) {
                ((up, all), None) if up == all && all > 0 => CheckState::Up,
                ((0, 0), _) => CheckState::Degraded("no client has started".into()),
                ((up, all), fault) => {
                    let fault = fault.map(|fault| fault.to_string()).unwrap_or_default();
                    CheckState::Degraded(format!("{fault} ({up} of {all} clients are connected)"))
                }
            };
            let bus = if self.bus.is_live() {
                CheckState::Up
            } else {
                CheckState::Degraded("stale: entries are cached for at most 1 s".into())
            };
            let warm_up = if self.is_warm.load(Ordering::Relaxed) {
                CheckState::Up
            } else {
                CheckState::Down("L1 is warming up".into())
            };
            let serving = if self.lifecycle.is_draining() {
                CheckState::Down("draining".into())
            } else {
                CheckState::Up
            };
            let checks = vec![
                ("postgresql", postgresql),
                ("redis", redis),
                ("invalidation_bus", bus),
                ("warm_up", warm_up),
                ("serving", serving),
            ];
            let ready = !checks.iter().any(|(_, state)| matches!(state, CheckState::Down(_)));
            ReadinessReport { ready, release: RELEASE.to_owned(), checks }
        }
        .boxed()
    }
}

/// Registers the gauges that are read at each scrape.
pub(crate) fn register_gauges(
    meter: &Meter,
    resources: &ThreadResources,
    l1: &Arc<L1Cache>,
    bus: &BusState,
) {
    linnet_store::register_timeouts(meter);
    register_connection_gauges(meter, resources);
    let cache = Arc::clone(l1);
    meter
        .u64_observable_gauge("linnet_cache_l1_entries")
        .with_description("Links in L1.")
        .with_callback(move |observer| observer.observe(cache.size().0 as u64, &[]))
        .build();
    let cache = Arc::clone(l1);
    meter
        .u64_observable_gauge("linnet_cache_l1")
        .with_unit("By")
        .with_description("Size of L1, in bytes.")
        .with_callback(move |observer| observer.observe(cache.size().1, &[]))
        .build();
    let bus = bus.clone();
    meter
        .u64_observable_gauge("linnet_invalidation_bus_live")
        .with_description("1 while the invalidation bus is live, 0 while it is stale.")
        .with_callback(move |observer| observer.observe(u64::from(bus.is_live()), &[]))
        .build();
}

/// Database connections and Redis clients.
fn register_connection_gauges(meter: &Meter, resources: &ThreadResources) {
    let pools = resources.clone();
    meter
        .u64_observable_gauge("linnet_db_connections")
        .with_description("Open database connections, by pool and state.")
        .with_callback(move |observer| {
            for role in Role::ALL {
                let (used, all) = pools.pool_use(role);
                let pool = KeyValue::new("pool", role.name());
                observer.observe(used, &[pool.clone(), KeyValue::new("state", "used")]);
                let idle = all.saturating_sub(used);
                observer.observe(idle, &[pool, KeyValue::new("state", "idle")]);
            }
        })
        .build();
    let pools = resources.clone();
    meter
        .u64_observable_gauge("linnet_db_connections_max")
        .with_description(
            "Limit of database connections, by pool. Beyond it requests wait for a connection.",
        )
        .with_callback(move |observer| {
            for role in Role::ALL {
                observer.observe(pools.pool_limit(role), &[KeyValue::new("pool", role.name())]);
            }
        })
        .build();
    let clients = resources.clone();
    meter
        .u64_observable_gauge("linnet_redis_clients")
        .with_description(
            "Redis clients, by state. A client that is down has an open circuit breaker.",
        )
        .with_callback(move |observer| {
            let (up, all) = clients.redis_clients();
            observer.observe(up as u64, &[KeyValue::new("state", "up")]);
            observer.observe((all - up) as u64, &[KeyValue::new("state", "down")]);
        })
        .build();
}
