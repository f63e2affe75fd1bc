//! Registers the gateway's metrics.

use std::sync::{Arc, atomic::AtomicU64, atomic::Ordering};

use linnet_platform::invalidation_bus::BusState;
use linnet_telemetry::metrics::{KeyValue, Meter};

use crate::{
    counters::{Counters, LimitReason},
    upstream::{Upstream, Upstreams},
};

type ReadCounter = fn(&Counters) -> &AtomicU64;

/// Exports the counters, the state of each shortener and that of the invalidation bus on `meter`.
pub(crate) fn register(
    meter: &Meter,
    counters: &Arc<Counters>,
    upstreams: &Arc<Upstreams>,
    bus: BusState,
) {
    register_counters(meter, counters);
    register_limited(meter, Arc::clone(counters));
    register_upstream_gauge(
        meter,
        upstreams,
        "linnet_gateway_upstream_up",
        "Health of a shortener, by its index: 1 healthy, 0 unhealthy.",
        |upstream| upstream.is_healthy().into(),
    );
    register_upstream_gauge(
        meter,
        upstreams,
        "linnet_gateway_breaker_state",
        "State of a shortener's circuit breaker, by its index: 0 closed, 1 half-open, 2 open.",
        Upstream::breaker_level,
    );
    let counters = Arc::clone(counters);
    meter
        .u64_observable_gauge("linnet_gateway_limit_fallback")
        .with_description("Source of the latest rate decision: 0 Redis, 1 this process.")
        .with_callback(move |observer| {
            observer.observe(counters.is_limiting_locally.load(Ordering::Relaxed).into(), &[]);
        })
        .build();
    meter
        .u64_observable_gauge("linnet_gateway_invalidation_bus_live")
        .with_description("State of the invalidation bus: 1 live, 0 stale.")
        .with_callback(move |observer| observer.observe(bus.is_live().into(), &[]))
        .build();
}

fn register_counters(meter: &Meter, counters: &Arc<Counters>) {
    let metrics: [(&'static str, &'static str, ReadCounter); 5] = [
        ("linnet_gateway_retries", "Retried calls to shorteners.", |c| &c.retries),
        ("linnet_gateway_auth_cache_hits", "API keys found in the key cache.", |c| &c.auth_hits),
        ("linnet_gateway_auth_cache_misses", "API keys not found in the key cache.", |c| {
            &c.auth_misses
        }),
        ("linnet_gateway_auth_lookups", "Key lookups at shorteners.", |c| &c.auth_lookups),
        ("linnet_gateway_local_limits", "Rate decisions made without Redis.", |c| &c.local_limits),
    ];
    for (name, description, read) in metrics {
        let counters = Arc::clone(counters);
        meter
            .u64_observable_counter(name)
            .with_description(description)
            .with_callback(move |observer| {
                observer.observe(read(&counters).load(Ordering::Relaxed), &[]);
            })
            .build();
    }
}

fn register_limited(meter: &Meter, counters: Arc<Counters>) {
    meter
        .u64_observable_counter("linnet_gateway_limited")
        .with_description("Responses 429, by the limit that was exceeded.")
        .with_callback(move |observer| {
            for reason in LimitReason::ALL {
                let labels = [KeyValue::new("reason", reason.as_str())];
                observer.observe(counters.limited_count(reason), &labels);
            }
        })
        .build();
}

fn register_upstream_gauge(
    meter: &Meter,
    upstreams: &Arc<Upstreams>,
    name: &'static str,
    description: &'static str,
    read: fn(&Upstream) -> u64,
) {
    let upstreams = Arc::clone(upstreams);
    meter
        .u64_observable_gauge(name)
        .with_description(description)
        .with_callback(move |observer| {
            for upstream in upstreams.all().iter() {
                let labels = [KeyValue::new("upstream", upstream.index.to_string())];
                observer.observe(read(upstream), &labels);
            }
        })
        .build();
}
