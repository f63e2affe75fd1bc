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
    /// Responses 429, by [`LimitReason`].
    limited: [AtomicU64; LimitReason::ALL.len()],
    /// Requests whose rate was counted without Redis.
    pub(crate) local_limits: AtomicU64,
    /// Whether the rate of the latest request was counted without Redis.
    pub(crate) is_limiting_locally: AtomicBool,
}

/// Why a request got 429. Every 429 of the gateway, and of nginx in front of it, is counted under exactly one reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LimitReason {
    /// The rate of a key.
    Key,
    /// The rate of a user, over all keys.
    User,
    /// The rate of an address without a valid key.
    Address,
    /// The rate of an address, before the lookup of an unknown key.
    Lookup,
    /// A shortener's limit of concurrent requests of one user.
    TooManyConcurrent,
    /// A shortener's limit of unfinished jobs.
    TooManyJobs,
    /// Another limit of a shortener.
    Other,
    /// nginx's limit of requests a second from one address or network.
    NginxRate,
    /// nginx's limit of concurrent requests from one address or network.
    NginxConnections,
}

impl LimitReason {
    pub(crate) const ALL: [Self; 9] = [
        Self::Key,
        Self::User,
        Self::Address,
        Self::Lookup,
        Self::TooManyConcurrent,
        Self::TooManyJobs,
        Self::Other,
        Self::NginxRate,
        Self::NginxConnections,
    ];

    /// The label in metrics.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Key => "key",
            Self::User => "user",
            Self::Address => "address",
            Self::Lookup => "lookup",
            Self::TooManyConcurrent => "too_many_concurrent",
            Self::TooManyJobs => "too_many_jobs",
            Self::Other => "other",
            Self::NginxRate => "nginx_rate",
            Self::NginxConnections => "nginx_connections",
        }
    }

    /// The reason of a shortener's 429, by the code of its problem.
    pub(crate) fn of_problem(code: &str) -> Self {
        let by_shortener = [Self::TooManyConcurrent, Self::TooManyJobs];
        by_shortener.into_iter().find(|reason| reason.as_str() == code).unwrap_or(Self::Other)
    }

    /// The reason that nginx reports for a 429 of its own, by its label.
    pub(crate) fn of_nginx(label: &str) -> Option<Self> {
        let by_nginx = [Self::NginxRate, Self::NginxConnections];
        by_nginx.into_iter().find(|reason| reason.as_str() == label)
    }
}

impl Counters {
    /// Counts a 429.
    pub(crate) fn limited(&self, reason: LimitReason) {
        if let Some(counter) = self.limited.get(reason as usize) {
            Self::increment(counter);
        }
    }

    /// The number of 429s with this reason.
    pub(crate) fn limited_count(&self, reason: LimitReason) -> u64 {
        self.limited.get(reason as usize).map_or(0, |counter| counter.load(Ordering::Relaxed))
    }

    /// Adds one.
    pub(crate) fn increment(counter: &AtomicU64) {
        counter.fetch_add(1, Ordering::Relaxed);
    }
}
