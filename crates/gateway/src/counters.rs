//! Event counters of the process, as plain atomics that a scrape reads.
//!
//! Incrementing one is a relaxed add: requests take no lock and look up no label.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Counts since the start of the process.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    /// Calls to shorteners that were retried.
    pub(crate) retries: AtomicU64,
    /// API keys found in the key cache.
    pub(crate) auth_hits: AtomicU64,
    /// API keys not found in the key cache.
    pub(crate) auth_misses: AtomicU64,
    /// Key lookups at a shortener; fewer than misses, because concurrent misses share one.
    pub(crate) auth_lookups: AtomicU64,
    /// Requests over the rate limit of a key.
    pub(crate) limited_keys: AtomicU64,
    /// Requests over the rate limit of an address.
    pub(crate) limited_addresses: AtomicU64,
    /// Requests whose rate was counted without Redis.
    pub(crate) local_limits: AtomicU64,
    /// Whether the rate of the latest request was counted without Redis.
    pub(crate) is_limiting_locally: AtomicBool,
}

impl Counters {
    /// Adds one.
    pub(crate) fn increment(counter: &AtomicU64) {
        counter.fetch_add(1, Ordering::Relaxed);
    }
}
