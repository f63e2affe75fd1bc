//! Rate limits by API key or client address: GCRA in Redis for all gateways together, or in this
//! process while Redis is unavailable.
//!
//! Invariants:
//! - A request with a valid key counts by key. Every other request, a failed authentication
//!   included, counts by address.
//! - Quotas refill by Redis's clock, so gateways need no synchronized clocks.
//! - A Redis key expires when its quota is full.

mod local;
mod policy;

use std::{
    net::IpAddr,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use actix_web::http::header::HeaderMap;
use linnet_platform::redis_client::RedisClient;
use linnet_protocol::address_hash::AddressHasher;
use redis::Script;

use crate::{config::LimitSettings, counters::Counters};
use local::LocalRateLimiter;
use policy::{RateDecision, RatePolicy};

pub(crate) use local::sweep;

const SCRIPT: &str = include_str!("gcra.lua");

/// The key or address that a request counts against.
#[derive(Debug, Clone, Copy)]
pub(crate) enum RateKey<'a> {
    /// An API key, by its public id.
    Key(&'a str),
    /// A client address. All unknown addresses share one quota.
    Address(Option<IpAddr>),
}

impl RateKey<'_> {
    /// The Redis key. It contains the keyed hash of a [`ClientNetwork`](linnet_platform::client_network::ClientNetwork),
    /// because an append-only file outlives the request.
    fn redis_key(self, addresses: &AddressHasher) -> String {
        match self {
            Self::Key(id) => format!("linnet:rate:k:{id}"),
            Self::Address(None) => "linnet:rate:a:-".to_owned(),
            Self::Address(Some(address)) => format!("linnet:rate:a:{}", addresses.hash(address)),
        }
    }
}

/// The policies and their local limiters; one for the process.
pub(crate) struct RateLimits {
    key: RatePolicy,
    address: RatePolicy,
    local: Arc<[LocalRateLimiter; 2]>,
    addresses: AddressHasher,
}

impl RateLimits {
    pub(crate) fn new(settings: &LimitSettings, addresses: AddressHasher) -> Self {
        let key = RatePolicy::new("key", settings.key());
        let address = RatePolicy::new("address", settings.address());
        let local = Arc::new([LocalRateLimiter::new(&key), LocalRateLimiter::new(&address)]);
        Self { key, address, local, addresses }
    }

    /// The limiters that [`sweep`] maintains.
    pub(crate) fn local(&self) -> Arc<[LocalRateLimiter; 2]> {
        Arc::clone(&self.local)
    }

    fn of(&self, rate_key: RateKey<'_>) -> (&RatePolicy, &LocalRateLimiter) {
        let [key, address] = &*self.local;
        match rate_key {
            RateKey::Key(_) => (&self.key, key),
            RateKey::Address(_) => (&self.address, address),
        }
    }
}

/// A decision about a request, with the policy that it follows.
pub(crate) struct AppliedLimit<'a> {
    decision: RateDecision,
    policy: &'a RatePolicy,
}

impl AppliedLimit<'_> {
    /// Whether the request is within its rate.
    pub(crate) fn is_allowed(&self) -> bool {
        self.decision.is_allowed
    }

    /// The value of `Retry-After` in seconds, at least 1.
    pub(crate) fn retry_after_s(&self) -> u64 {
        self.decision.retry_after_s()
    }

    /// Adds `RateLimit` and `RateLimit-Policy`.
    pub(crate) fn write_headers(&self, headers: &mut HeaderMap) {
        self.decision.write_headers(self.policy, headers);
    }
}

/// The rate limiter of one server thread.
pub(crate) struct RateLimiter {
    limits: Arc<RateLimits>,
    redis: Option<RedisClient>,
    script: Script,
    counters: Arc<Counters>,
}

impl RateLimiter {
    /// Without a Redis client every decision is local.
    pub(crate) fn new(
        limits: Arc<RateLimits>,
        redis: Option<RedisClient>,
        counters: Arc<Counters>,
    ) -> Self {
        Self { limits, redis, script: Script::new(SCRIPT), counters }
    }

    /// Counts one request and decides whether it is allowed.
    pub(crate) async fn charge(&self, rate_key: RateKey<'_>) -> AppliedLimit<'_> {
        let limit = self.decide(rate_key, 1).await;
        if !limit.is_allowed() {
            Counters::increment(match rate_key {
                RateKey::Key(_) => &self.counters.limited_keys,
                RateKey::Address(_) => &self.counters.limited_addresses,
            });
        }
        limit
    }

    /// Decides whether a request would be allowed, without counting it. Without Redis the request
    /// is counted, because local quotas cannot be read without charging them.
    pub(crate) async fn peek(&self, rate_key: RateKey<'_>) -> AppliedLimit<'_> {
        self.decide(rate_key, 0).await
    }

    async fn decide(&self, rate_key: RateKey<'_>, cost: u8) -> AppliedLimit<'_> {
        let (policy, local) = self.limits.of(rate_key);
        let redis_key = rate_key.redis_key(&self.limits.addresses);
        let decision = self.decide_in_redis(&redis_key, policy, cost).await;
        let is_local = decision.is_none();
        // Loaded first: server threads share this cache line, and it rarely changes.
        if self.counters.is_limiting_locally.load(Ordering::Relaxed) != is_local {
            self.counters.is_limiting_locally.store(is_local, Ordering::Relaxed);
        }
        let decision = decision.unwrap_or_else(|| {
            Counters::increment(&self.counters.local_limits);
            local.charge(&redis_key)
        });
        AppliedLimit { decision, policy }
    }

    /// `None` if Redis is unavailable.
    async fn decide_in_redis(
        &self,
        redis_key: &str,
        policy: &RatePolicy,
        cost: u8,
    ) -> Option<RateDecision> {
        let redis = self.redis.as_ref().filter(|redis| redis.is_up())?;
        let mut invocation = self.script.key(redis_key);
        let interval_us = u64::try_from(policy.interval().as_micros()).unwrap_or(u64::MAX);
        invocation.arg(interval_us).arg(policy.burst().get()).arg(cost);
        let reply: Result<(u8, u32, u64, u64), _> = redis.script(&invocation).await;
        match reply {
            Ok((allowed, remaining, retry_after_us, reset_us)) => Some(RateDecision {
                is_allowed: allowed == 1,
                remaining,
                retry_after: Duration::from_micros(retry_after_us),
                reset: Duration::from_micros(reset_us),
            }),
            Err(error) => {
                tracing::debug!(
                    error = &error as &dyn std::error::Error,
                    "rate limit script failed; deciding locally"
                );
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use linnet_protocol::settings::ServiceSettings;

    use super::*;

    #[test]
    fn must_31_the_redis_key_of_an_address_does_not_contain_it() {
        let settings = ServiceSettings { token: "0123456789abcdef0123456789abcdef".into() };
        let addresses = AddressHasher::new(&settings);
        let key = |address: &str| RateKey::Address(address.parse().ok()).redis_key(&addresses);
        assert_eq!(key("2001:db8::1"), key("2001:db8::ffff:1"));
        assert_ne!(key("192.0.2.1"), key("192.0.2.2"));
        assert_ne!(key("192.0.2.1"), RateKey::Address(None).redis_key(&addresses));
        for (address, part) in [("192.0.2.1", "192.0.2"), ("2001:db8::1", "20010db8")] {
            assert!(!key(address).contains(part), "{}", key(address));
        }
    }
}
