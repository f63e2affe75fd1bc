//! Whether this process should get traffic, and the gauges that say how it is.

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
    workers::{Role, Workers},
};
use linnet_resolve::L1Cache;
use linnet_store::Store;

/// Below the 2 s that the admin listener gives all checks together.
const PING_TIMEOUT: Duration = Duration::from_millis(1_500);

/// Asks the dependencies. Only PostgreSQL is needed: without it, what the caches do not hold cannot
/// be answered, and nothing can be changed.
pub(crate) struct ShortenerReadiness {
    pub(crate) store: Store,
    pub(crate) workers: Workers,
    pub(crate) bus: BusState,
    pub(crate) lifecycle: Lifecycle,
    pub(crate) is_warm: Arc<AtomicBool>,
}

impl Readiness for ShortenerReadiness {
    fn check(&self) -> BoxFuture<'_, ReadinessReport> {
        async {
            let postgresql = match tokio::time::timeout(PING_TIMEOUT, self.store.ping()).await {
                Ok(Ok(())) => CheckState::Up,
                Ok(Err(error)) => CheckState::Down(error.to_string()),
                Err(_) => CheckState::Down("no answer in time".into()),
            };
            let redis = match self.workers.redis_links() {
                (up, all) if up == all && all > 0 => CheckState::Up,
                (up, all) => CheckState::Degraded(format!("{up} of {all} links are up")),
            };
            let feed = if self.bus.is_live() {
                CheckState::Up
            } else {
                CheckState::Degraded("cut: entries are cached for 1 s at most".into())
            };
            let warm_up = if self.is_warm.load(Ordering::Relaxed) {
                CheckState::Up
            } else {
                CheckState::Down("the local cache is warming up".into())
            };
            let serving = if self.lifecycle.is_draining() {
                CheckState::Down("draining".into())
            } else {
                CheckState::Up
            };
            let checks = vec![
                ("postgresql", postgresql),
                ("redis", redis),
                ("invalidation_bus", feed),
                ("warm_up", warm_up),
                ("serving", serving),
            ];
            let ready = !checks.iter().any(|(_, state)| matches!(state, CheckState::Down(_)));
            ReadinessReport { ready, release: RELEASE.to_owned(), checks }
        }
        .boxed()
    }
}

/// Registers the gauges that are read when somebody scrapes.
pub(crate) fn register_gauges(
    meter: &Meter,
    workers: &Workers,
    local: &Arc<L1Cache>,
    bus: &BusState,
) {
    let pools = workers.clone();
    meter
        .u64_observable_gauge("linnet_db_connections")
        .with_description("Database connections, by pool and state")
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
    let pools = workers.clone();
    meter
        .u64_observable_gauge("linnet_db_connections_max")
        .with_description("Most database connections, by pool; who finds all of them used waits")
        .with_callback(move |observer| {
            for role in Role::ALL {
                observer.observe(pools.pool_limit(role), &[KeyValue::new("pool", role.name())]);
            }
        })
        .build();
    let links = workers.clone();
    meter
        .u64_observable_gauge("linnet_redis_clients")
        .with_description("Redis links by state: a link that is down has its breaker open")
        .with_callback(move |observer| {
            let (up, all) = links.redis_links();
            observer.observe(up as u64, &[KeyValue::new("state", "up")]);
            observer.observe((all - up) as u64, &[KeyValue::new("state", "down")]);
        })
        .build();
    let cache = Arc::clone(local);
    meter
        .u64_observable_gauge("linnet_cache_l1_entries")
        .with_description("Links in the local cache")
        .with_callback(move |observer| observer.observe(cache.size().0 as u64, &[]))
        .build();
    let cache = Arc::clone(local);
    meter
        .u64_observable_gauge("linnet_cache_l1")
        .with_unit("By")
        .with_description("Size of the local cache")
        .with_callback(move |observer| observer.observe(cache.size().1, &[]))
        .build();
    let bus = bus.clone();
    meter
        .u64_observable_gauge("linnet_invalidation_bus_live")
        .with_description("1 while the change feed is live, 0 while it is cut")
        .with_callback(move |observer| observer.observe(u64::from(bus.is_live()), &[]))
        .build();
}
