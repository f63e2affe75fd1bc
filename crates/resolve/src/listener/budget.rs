//! How many codes that are not there one client may ask for.
//!
//! Whoever guesses codes misses nearly always. A client over its budget gets 429 for every code until
//! it has waited, hits included, or its hits would still stand out. Ordinary visitors follow links
//! that exist; for them this costs one atomic load while nobody is over the budget.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv6Addr},
    num::NonZeroU32,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter, clock::Clock};

use super::ResolveSettings;

/// A client: an IPv4 address, or an IPv6 network of 64 bits, which is what one subscriber gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Client(IpAddr);

impl Client {
    /// The client with this address.
    pub fn of(address: IpAddr) -> Self {
        Self(match address {
            IpAddr::V6(v6) => match v6.to_ipv4_mapped() {
                Some(v4) => IpAddr::V4(v4),
                None => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & (u128::MAX << 64))),
            },
            v4 @ IpAddr::V4(_) => v4,
        })
    }
}

/// The budgets of all clients of one process.
pub struct MissBudget {
    limiter: DefaultKeyedRateLimiter<Client>,
    /// Clients over their budget, and when each has paid.
    over: Mutex<HashMap<Client, Instant>>,
    /// How many `over` holds: the common 0 is seen without the lock.
    over_count: AtomicUsize,
}

/// Most clients that are remembered as over their budget; the rest are refused miss by miss.
const MAX_OVER: usize = 10_000;

impl MissBudget {
    /// How often [`MissBudget::sweep`] wants to run.
    pub const SWEEP_EVERY: Duration = Duration::from_secs(10);

    /// With the configured numbers.
    pub fn new(settings: &ResolveSettings) -> Self {
        let number = |n| NonZeroU32::new(n).unwrap_or(NonZeroU32::MIN);
        let quota = Quota::per_minute(number(settings.misses_per_minute))
            .allow_burst(number(settings.misses_burst));
        Self {
            limiter: RateLimiter::keyed(quota),
            over: Mutex::default(),
            over_count: AtomicUsize::new(0),
        }
    }

    /// Whether any client is over its budget; if not, nobody needs to be looked up.
    #[inline]
    pub fn any_over(&self) -> bool {
        self.over_count.load(Ordering::Relaxed) != 0
    }

    /// The seconds that a client still has to wait, if it is over its budget.
    pub fn wait_of(&self, client: Client) -> Option<u64> {
        let left = self.over().get(&client)?.saturating_duration_since(Instant::now());
        (!left.is_zero()).then(|| left.as_secs() + 1)
    }

    /// Takes one miss from a client's budget. Over it: the seconds to wait.
    pub fn take(&self, client: Client) -> Result<(), u64> {
        self.limiter.check_key(&client).map_err(|until| {
            let wait = until.wait_time_from(self.limiter.clock().now());
            let mut over = self.over();
            if over.len() < MAX_OVER {
                over.insert(client, Instant::now() + wait);
                self.over_count.store(over.len(), Ordering::Relaxed);
            }
            wait.as_secs() + 1
        })
    }

    /// Forgets clients that have their whole budget again.
    pub fn sweep(&self) {
        let now = Instant::now();
        let mut over = self.over();
        over.retain(|_, paid| *paid > now);
        self.over_count.store(over.len(), Ordering::Relaxed);
        drop(over);
        self.limiter.retain_recent();
        self.limiter.shrink_to_fit();
    }

    fn over(&self) -> MutexGuard<'_, HashMap<Client, Instant>> {
        // The map is whole whatever panicked while it was held.
        self.over.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(text: &str) -> Client {
        Client::of(text.parse().unwrap())
    }

    #[test]
    fn must_12_misses_are_counted_for_each_client() {
        let settings =
            ResolveSettings { misses_burst: 3, misses_per_minute: 1, ..Default::default() };
        let budget = MissBudget::new(&settings);
        let (a, b) = (client("192.0.2.1"), client("192.0.2.2"));
        for _ in 0..3 {
            assert_eq!(budget.take(a), Ok(()));
        }
        assert!(!budget.any_over());
        assert!(budget.take(a).is_err());
        assert!(budget.any_over());
        assert!(budget.wait_of(a).is_some());
        assert_eq!(budget.wait_of(b), None);
        assert_eq!(budget.take(b), Ok(()));
    }

    #[test]
    fn one_subscriber_is_one_client() {
        assert_eq!(client("2001:db8::1"), client("2001:db8::ffff:1"));
        assert_ne!(client("2001:db8::1"), client("2001:db8:0:1::1"));
        assert_eq!(client("::ffff:192.0.2.1"), client("192.0.2.1"));
    }
}
