//! What the gateway counts beyond requests: plain atomics that a scrape reads, so that counting
//! costs a request next to nothing.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU64, Ordering},
};

use linnet_platform::invalidation_bus::BusState;
use linnet_telemetry::metrics::{KeyValue, Meter};

use crate::upstream::Upstreams;

/// The process's counts since its start.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    /// Calls that were tried a second time.
    pub(crate) retries: AtomicU64,
    /// Keys found in the cache.
    pub(crate) auth_hits: AtomicU64,
    /// Keys not found in the cache.
    pub(crate) auth_misses: AtomicU64,
    /// Keys that the shortener was asked about: misses less those that waited for another's.
    pub(crate) auth_lookups: AtomicU64,
    /// Requests refused because a key's rate was used up.
    pub(crate) limited_keys: AtomicU64,
    /// Requests refused because an address's rate was used up.
    pub(crate) limited_addresses: AtomicU64,
    /// Requests whose rate was judged without Redis.
    pub(crate) local_limits: AtomicU64,
    /// Whether the last request's rate was judged without Redis.
    pub(crate) limiting_locally: AtomicBool,
}

impl Counters {
    /// Adds one.
    pub(crate) fn count(counter: &AtomicU64) {
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

type Read = fn(&Counters) -> &AtomicU64;

/// Makes the counts, the shorteners' state and the change feed's readable on `meter`.
pub(crate) fn register(
    meter: &Meter,
    counters: &Arc<Counters>,
    upstreams: &Arc<Upstreams>,
    feed: BusState,
) {
    let plain: [(&'static str, &'static str, Read); 5] = [
        ("linnet_gateway_retries", "Calls that were tried a second time", |c| &c.retries),
        ("linnet_gateway_auth_cache_hits", "Keys found in the cache", |c| &c.auth_hits),
        ("linnet_gateway_auth_cache_misses", "Keys not found in the cache", |c| &c.auth_misses),
        ("linnet_gateway_auth_lookups", "Keys asked about", |c| &c.auth_lookups),
        ("linnet_gateway_local_limits", "Rates judged without Redis", |c| &c.local_limits),
    ];
    for (name, description, read) in plain {
        let counters = Arc::clone(counters);
        meter
            .u64_observable_counter(name)
            .with_description(description)
            .with_callback(move |observer| {
                observer.observe(read(&counters).load(Ordering::Relaxed), &[]);
            })
            .build();
    }
    register_limited(meter, Arc::clone(counters));
    register_upstreams(meter, upstreams);

    let counters = Arc::clone(counters);
    meter
        .u64_observable_gauge("linnet_gateway_limit_fallback")
        .with_description("1 while rates are judged without Redis")
        .with_callback(move |observer| {
            observer.observe(counters.limiting_locally.load(Ordering::Relaxed).into(), &[]);
        })
        .build();
    meter
        .u64_observable_gauge("linnet_gateway_invalidation_bus_live")
        .with_description("1 while news of revoked keys arrives")
        .with_callback(move |observer| observer.observe(feed.is_live().into(), &[]))
        .build();
}

fn register_limited(meter: &Meter, counters: Arc<Counters>) {
    let kinds = [KeyValue::new("kind", "key")];
    let addresses = [KeyValue::new("kind", "address")];
    meter
        .u64_observable_counter("linnet_gateway_limited")
        .with_description("Requests refused because a rate was used up")
        .with_callback(move |observer| {
            observer.observe(counters.limited_keys.load(Ordering::Relaxed), &kinds);
            observer.observe(counters.limited_addresses.load(Ordering::Relaxed), &addresses);
        })
        .build();
}

fn register_upstreams(meter: &Meter, upstreams: &Arc<Upstreams>) {
    let all = Arc::clone(upstreams);
    meter
        .u64_observable_gauge("linnet_gateway_upstream_up")
        .with_description("1 while a shortener takes traffic, by its place among the current ones")
        .with_callback(move |observer| {
            for upstream in all.all().iter() {
                let labels = [KeyValue::new("upstream", upstream.index.to_string())];
                observer.observe(upstream.is_healthy().into(), &labels);
            }
        })
        .build();
    let all = Arc::clone(upstreams);
    meter
        .u64_observable_gauge("linnet_gateway_breaker_state")
        .with_description("A shortener's breaker: 0 closed, 1 half open, 2 open")
        .with_callback(move |observer| {
            for upstream in all.all().iter() {
                let labels = [KeyValue::new("upstream", upstream.index.to_string())];
                observer.observe(upstream.breaker_level(), &labels);
            }
        })
        .build();
}
