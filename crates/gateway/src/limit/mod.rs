//! Rate limits by API key, user and client address: GCRA in Redis for all gateways together, or in this
//! process while Redis is unavailable.
//!
//! Invariants:
//! - A request with a valid key counts by key and by the key's user, so a user's keys share one
//!   allowance. Every other request, a failed authentication included, counts by address.
//! - A request is charged to all of its quotas or, if one of them is exhausted, to none.
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
use linnet_domain::UserId;
use linnet_platform::{redis_client::RedisClient, redis_keys::KeyLayout};
use linnet_protocol::address_hash::AddressHasher;
use redis::Script;

use crate::{
    config::LimitSettings,
    counters::{Counters, LimitReason},
};
use local::LocalRateLimiter;
pub(crate) use policy::{RateDecision, RatePolicy, write_headers};

pub(crate) use local::{MAX_KEYS as LOCAL_KEYS, sweep};

const SCRIPT: &str = include_str!("gcra.lua");

/// The owner of the allowance that a request uses.
#[derive(Debug, Clone, Copy)]
pub(crate) enum RateKey<'a> {
    /// An API key, by its public id, and its user.
    Key {
        /// The public id.
        id: &'a str,
        /// The owner.
        user: UserId,
    },
    /// A client address. All unknown addresses share one quota.
    Address(Option<IpAddr>),
}

/// A quota: its policy, the limiter that replaces Redis, and its Redis key.
struct QuotaKey<'a> {
    policy: &'a RatePolicy,
    local: &'a LocalRateLimiter,
    redis_key: String,
}

/// The Redis key of an address. It contains the keyed hash of a
/// [`ClientNetwork`](linnet_platform::client_network::ClientNetwork): Redis's append-only file outlives the request.
fn address_key(keys: KeyLayout, address: Option<IpAddr>, hasher: &AddressHasher) -> String {
    match address {
        None => keys.name(format_args!("rate:a:-")),
        Some(address) => keys.name(format_args!("rate:a:{}", hasher.hash(address))),
    }
}

/// The policies and their local limiters; one for the process.
pub(crate) struct RateLimits {
    key: RatePolicy,
    user: RatePolicy,
    address: RatePolicy,
    local: Arc<[LocalRateLimiter; 3]>,
    addresses: AddressHasher,
    keys: KeyLayout,
}

impl RateLimits {
    pub(crate) fn new(settings: &LimitSettings, addresses: AddressHasher, keys: KeyLayout) -> Self {
        let key = RatePolicy::new("key", LimitReason::Key, settings.key());
        let user = RatePolicy::new("user", LimitReason::User, settings.user());
        let address = RatePolicy::new("address", LimitReason::Address, settings.address());
        let local = Arc::new([&key, &user, &address].map(LocalRateLimiter::new));
        Self { key, user, address, local, addresses, keys }
    }

    /// The limiters that [`sweep`] maintains.
    pub(crate) fn local(&self) -> Arc<[LocalRateLimiter; 3]> {
        Arc::clone(&self.local)
    }

    fn quotas(&self, rate_key: RateKey<'_>) -> Vec<QuotaKey<'_>> {
        let [key, user, address] = &*self.local;
        match rate_key {
            RateKey::Key { id, user: owner } => vec![
                QuotaKey {
                    policy: &self.key,
                    local: key,
                    redis_key: self.keys.name(format_args!("rate:k:{{{owner}}}:{id}")),
                },
                QuotaKey {
                    policy: &self.user,
                    local: user,
                    redis_key: self.keys.name(format_args!("rate:u:{{{owner}}}")),
                },
            ],
            RateKey::Address(client) => vec![QuotaKey {
                policy: &self.address,
                local: address,
                redis_key: address_key(self.keys, client, &self.addresses),
            }],
        }
    }
}

/// The decision about a request, with the policies that were applied.
pub(crate) struct AppliedLimit<'a> {
    quotas: Vec<(RateDecision, &'a RatePolicy)>,
}

impl AppliedLimit<'_> {
    /// Whether the request is within every rate.
    pub(crate) fn is_allowed(&self) -> bool {
        self.quotas.iter().all(|(decision, _)| decision.is_allowed)
    }

    /// The value of `Retry-After` in seconds, at least 1.
    pub(crate) fn retry_after_s(&self) -> u64 {
        self.quotas.iter().map(|(decision, _)| decision.retry_after_s()).max().unwrap_or(1)
    }

    /// The names of the policies whose quota is exhausted.
    pub(crate) fn violated_policies(&self) -> Vec<&'static str> {
        self.violated().map(RatePolicy::name).collect()
    }

    fn violated(&self) -> impl Iterator<Item = &RatePolicy> {
        self.quotas.iter().filter(|(decision, _)| !decision.is_allowed).map(|(_, policy)| *policy)
    }

    /// Adds `RateLimit` and `RateLimit-Policy`, each with an item for every policy.
    pub(crate) fn write_headers(&self, headers: &mut HeaderMap) {
        policy::write_headers(&self.quotas, headers);
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
        let limit = self.decide(rate_key).await;
        if let Some(policy) = limit.violated().next() {
            self.counters.limited(policy.reason());
        }
        limit
    }

    /// Counts the lookup of an unknown key. [`Self::give_back`] undoes it when the key is valid.
    pub(crate) async fn charge_lookup(&self, address: Option<IpAddr>) -> AppliedLimit<'_> {
        self.decide(RateKey::Address(address)).await
    }

    /// Returns one request to the quota of the address.
    pub(crate) async fn give_back(&self, address: Option<IpAddr>) {
        let quotas = self.limits.quotas(RateKey::Address(address));
        if self.decide_in_redis(&quotas, -1).await.is_none() {
            for quota in &quotas {
                quota.local.give_back(&quota.redis_key);
            }
        }
    }

    async fn decide(&self, rate_key: RateKey<'_>) -> AppliedLimit<'_> {
        let quotas = self.limits.quotas(rate_key);
        let decisions = self.decide_in_redis(&quotas, 1).await;
        let is_local = decisions.is_none();
        // Loaded first: server threads share this cache line, and it rarely changes.
        if self.counters.is_limiting_locally.load(Ordering::Relaxed) != is_local {
            self.counters.is_limiting_locally.store(is_local, Ordering::Relaxed);
        }
        let decisions = decisions.unwrap_or_else(|| {
            Counters::increment(&self.counters.local_limits);
            let local = quotas.iter().map(|quota| (quota.local, quota.redis_key.as_str()));
            local::charge(&local.collect::<Vec<_>>())
        });
        let policies = quotas.iter().map(|quota| quota.policy);
        AppliedLimit { quotas: decisions.into_iter().zip(policies).collect() }
    }

    /// `None` if Redis is unavailable.
    async fn decide_in_redis(
        &self,
        quotas: &[QuotaKey<'_>],
        cost: i8,
    ) -> Option<Vec<RateDecision>> {
        let redis = self.redis.as_ref().filter(|redis| redis.is_up())?;
        let mut invocation = self.script.prepare_invoke();
        invocation.arg(cost);
        for quota in quotas {
            let interval_us =
                u64::try_from(quota.policy.interval().as_micros()).unwrap_or(u64::MAX);
            invocation.key(&quota.redis_key).arg(interval_us).arg(quota.policy.burst().get());
        }
        let reply: Result<Vec<u64>, _> = redis.script(&invocation).await;
        match reply {
            Ok(numbers) => numbers.chunks_exact(4).map(decision).collect(),
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

/// A decision from the script's four numbers.
fn decision(numbers: &[u64]) -> Option<RateDecision> {
    let [allowed, remaining, retry_after_us, more_after_us] = *numbers else { return None };
    Some(RateDecision {
        is_allowed: allowed == 1,
        remaining: u32::try_from(remaining).unwrap_or(u32::MAX),
        retry_after: Duration::from_micros(retry_after_us),
        more_after: Duration::from_micros(more_after_us),
    })
}

#[cfg(test)]
mod tests {
    use linnet_protocol::settings::ServiceSettings;

    use super::*;

    #[test]
    fn must_31_the_redis_key_of_an_address_does_not_contain_it() {
        let settings = ServiceSettings { token: "0123456789abcdef0123456789abcdef".into() };
        let addresses = AddressHasher::new(&settings);
        let key = |address: &str| address_key(KeyLayout::Server, address.parse().ok(), &addresses);
        assert_eq!(key("2001:db8::1"), key("2001:db8::ffff:1"));
        assert_ne!(key("192.0.2.1"), key("192.0.2.2"));
        assert_ne!(key("192.0.2.1"), address_key(KeyLayout::Server, None, &addresses));
        for (address, part) in [("192.0.2.1", "192.0.2"), ("2001:db8::1", "20010db8")] {
            assert!(!key(address).contains(part), "{}", key(address));
        }
    }

    fn limits() -> RateLimits {
        let settings = ServiceSettings { token: "0123456789abcdef0123456789abcdef".into() };
        RateLimits::new(&LimitSettings::default(), AddressHasher::new(&settings), KeyLayout::Server)
    }

    #[test]
    fn must_26_a_key_is_charged_with_its_user_and_an_address_alone() {
        let limits = limits();
        let user = UserId::new(7).unwrap();
        let keys = |key| -> Vec<_> {
            let quotas = limits.quotas(key);
            quotas.into_iter().map(|quota| (quota.policy.name(), quota.redis_key)).collect()
        };
        assert_eq!(
            keys(RateKey::Key { id: "Ab3xYz01", user }),
            [
                ("key", "linnet:rate:k:{7}:Ab3xYz01".into()),
                ("user", "linnet:rate:u:{7}".to_owned())
            ]
        );
        assert_eq!(keys(RateKey::Address(None)), [("address", "linnet:rate:a:-".to_owned())]);
        assert_eq!(limits.local().len(), 3);
    }

    #[test]
    fn a_decision_has_the_four_numbers_of_the_script() {
        let expected = RateDecision {
            is_allowed: true,
            remaining: 2,
            retry_after: Duration::from_micros(3),
            more_after: Duration::from_micros(4),
        };
        assert_eq!(decision(&[1, 2, 3, 4]), Some(expected));
        assert_eq!(decision(&[0, 2, 3, 4]), Some(RateDecision { is_allowed: false, ..expected }));
        assert_eq!(decision(&[2, 2, 3, 4]).map(|found| found.is_allowed), Some(false));
        assert_eq!((decision(&[1, 2, 3]), decision(&[])), (None, None));
    }

    #[test]
    fn a_request_is_allowed_if_every_quota_allows_it() {
        let limits = limits();
        let allowed = decision(&[1, 2, 0, 4]).unwrap();
        let rejected = decision(&[0, 0, 2_000_001, 2_000_001]).unwrap();
        let applied =
            |key, user| AppliedLimit { quotas: vec![(key, &limits.key), (user, &limits.user)] };
        let both = applied(allowed, allowed);
        assert!(both.is_allowed());
        assert_eq!((both.violated_policies(), both.retry_after_s()), (vec![], 1));
        let user = applied(allowed, rejected);
        assert!(!user.is_allowed());
        assert_eq!((user.violated_policies(), user.retry_after_s()), (vec!["user"], 3));
        assert!(!applied(rejected, allowed).is_allowed());
        let mut headers = HeaderMap::new();
        user.write_headers(&mut headers);
        assert_eq!(headers.get("ratelimit").unwrap(), "\"key\";r=2;t=1, \"user\";r=0;t=3");
    }
}
