//! How many requests a caller may make: GCRA, counted in Redis for all gateways together, by this
//! process alone while Redis is away.
//!
//! A caller with a valid key is counted by key; everybody else, failed authentication included, by
//! address. Redis's clock decides; every key in Redis expires when its allowance is full again.

mod local;
mod policy;

use std::{
    net::IpAddr,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use linnet_platform::redis_client::RedisClient;
use redis::Script;

use crate::{config::LimitSettings, metrics::Counters};
use local::LocalRate;

pub(crate) use local::sweep;
pub(crate) use policy::{Policy, Verdict};

const SCRIPT: &str = include_str!("gcra.lua");

/// Who is counted.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Subject<'a> {
    /// An API key, by its public id.
    Key(&'a str),
    /// A client address; unknown ones share one allowance.
    Address(Option<IpAddr>),
}

impl Subject<'_> {
    /// The name in Redis. An IPv6 client owns a whole /64, so that is what is counted.
    fn name(self) -> String {
        match self {
            Self::Key(id) => format!("linnet:rate:k:{id}"),
            Self::Address(None) => "linnet:rate:a:-".to_owned(),
            Self::Address(Some(address)) => match address.to_canonical() {
                IpAddr::V4(address) => format!("linnet:rate:a:{address}"),
                IpAddr::V6(address) => {
                    format!("linnet:rate:a:{:x}", address.to_bits() >> 64)
                }
            },
        }
    }
}

/// The rates and their local stand-ins; one for the process.
pub(crate) struct Rates {
    key: Policy,
    address: Policy,
    local: Arc<[LocalRate; 2]>,
}

impl Rates {
    pub(crate) fn new(settings: &LimitSettings) -> Self {
        let key = Policy::new("key", settings.key());
        let address = Policy::new("address", settings.address());
        let local = Arc::new([LocalRate::new(&key), LocalRate::new(&address)]);
        Self { key, address, local }
    }

    /// For the task that sweeps them.
    pub(crate) fn local(&self) -> Arc<[LocalRate; 2]> {
        Arc::clone(&self.local)
    }

    fn of(&self, subject: Subject<'_>) -> (&Policy, &LocalRate) {
        let [key, address] = &*self.local;
        match subject {
            Subject::Key(_) => (&self.key, key),
            Subject::Address(_) => (&self.address, address),
        }
    }
}

/// One runtime's limiter.
pub(crate) struct Limiter {
    rates: Arc<Rates>,
    redis: Option<RedisClient>,
    script: Script,
    counters: Arc<Counters>,
}

impl Limiter {
    pub(crate) fn new(
        rates: Arc<Rates>,
        redis: Option<RedisClient>,
        counters: Arc<Counters>,
    ) -> Self {
        Self { rates, redis, script: Script::new(SCRIPT), counters }
    }

    /// Charges one request.
    pub(crate) async fn charge(&self, subject: Subject<'_>) -> (Verdict, &Policy) {
        let (verdict, policy) = self.ask(subject, 1).await;
        if !verdict.allowed {
            Counters::count(match subject {
                Subject::Key(_) => &self.counters.limited_keys,
                Subject::Address(_) => &self.counters.limited_addresses,
            });
        }
        (verdict, policy)
    }

    /// Whether a request would be allowed, without charging it. While Redis is away it is charged:
    /// looking at a local allowance is not possible.
    pub(crate) async fn look(&self, subject: Subject<'_>) -> (Verdict, &Policy) {
        self.ask(subject, 0).await
    }

    async fn ask(&self, subject: Subject<'_>, cost: u8) -> (Verdict, &Policy) {
        let (policy, local) = self.rates.of(subject);
        let name = subject.name();
        let verdict = self.ask_redis(&name, policy, cost).await;
        let is_local = verdict.is_none();
        // Loaded first: the common case must not write to a line that workers share.
        if self.counters.limiting_locally.load(Ordering::Relaxed) != is_local {
            self.counters.limiting_locally.store(is_local, Ordering::Relaxed);
        }
        let verdict = verdict.unwrap_or_else(|| {
            Counters::count(&self.counters.local_limits);
            local.charge(&name)
        });
        (verdict, policy)
    }

    async fn ask_redis(&self, name: &str, policy: &Policy, cost: u8) -> Option<Verdict> {
        let redis = self.redis.as_ref().filter(|redis| redis.is_up())?;
        let mut invocation = self.script.key(name);
        let interval = u64::try_from(policy.interval().as_micros()).unwrap_or(u64::MAX);
        invocation.arg(interval).arg(policy.burst().get()).arg(cost);
        let answer: Result<(u8, u32, u64, u64), _> = redis.script(&invocation).await;
        match answer {
            Ok((allowed, remaining, retry_after, reset)) => Some(Verdict {
                allowed: allowed == 1,
                remaining,
                retry_after: Duration::from_micros(retry_after),
                reset: Duration::from_micros(reset),
            }),
            Err(error) => {
                tracing::debug!(
                    error = &error as &dyn std::error::Error,
                    "a rate is judged without Redis"
                );
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_one_client_count_together() {
        let name = |address: &str| Subject::Address(address.parse().ok()).name();
        assert_eq!(name("2001:db8::1"), name("2001:db8::ffff:1"));
        assert_ne!(name("2001:db8::1"), name("2001:db8:0:1::1"));
        assert_eq!(name("::ffff:192.0.2.1"), name("192.0.2.1"));
        assert_ne!(name("192.0.2.1"), name("192.0.2.2"));
        assert_ne!(name("192.0.2.1"), Subject::Address(None).name());
    }
}
