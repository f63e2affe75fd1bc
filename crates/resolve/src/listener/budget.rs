//! The budget of misses, which limits how many codes without a link one client may request.
//!
//! A client that guesses codes misses nearly always. Beyond its budget it gets 429 for every code, hits
//! included. Otherwise its hits would differ from its misses. While no client is over its budget, a visit to an
//! existing link costs one atomic load.

use std::{
    collections::HashMap,
    num::NonZeroU32,
    sync::{
        Mutex, MutexGuard,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter, clock::Clock};
use linnet_platform::{client_network::ClientNetwork, lock::MutexExt as _};

use super::ResolveSettings;

/// The budgets of all clients of one process.
pub struct MissBudget {
    limiter: DefaultKeyedRateLimiter<ClientNetwork>,
    /// Clients over their budget, each with the end of its wait.
    over: Mutex<HashMap<ClientNetwork, Instant>>,
    /// Size of `over`, so that the common 0 is read without the lock.
    over_count: AtomicUsize,
}

/// The maximum number of clients in `over`. A further client over its budget gets 429 only for misses.
const MAX_OVER: usize = 10_000;

impl MissBudget {
    /// Time between two calls of [`MissBudget::sweep`].
    pub const SWEEP_EVERY: Duration = Duration::from_secs(10);

    /// Budgets of the configured size.
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

    /// Whether any client is over its budget. If none is, no client has to be looked up.
    #[inline]
    pub fn any_over(&self) -> bool {
        self.over_count.load(Ordering::Relaxed) != 0
    }

    /// The seconds that a client over its budget has to wait.
    pub fn wait_of(&self, client: ClientNetwork) -> Option<u64> {
        let left = self.over().get(&client)?.saturating_duration_since(Instant::now());
        (!left.is_zero()).then(|| left.as_secs() + 1)
    }

    /// Charges one miss to a client. Beyond the budget it returns the seconds to wait.
    pub fn take(&self, client: ClientNetwork) -> Result<(), u64> {
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

    /// Drops clients whose budget is full again.
    pub fn sweep(&self) {
        let now = Instant::now();
        let mut over = self.over();
        over.retain(|_, until| *until > now);
        self.over_count.store(over.len(), Ordering::Relaxed);
        drop(over);
        self.limiter.retain_recent();
        self.limiter.shrink_to_fit();
    }

    fn over(&self) -> MutexGuard<'_, HashMap<ClientNetwork, Instant>> {
        self.over.lock_ignoring_poison()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(text: &str) -> ClientNetwork {
        ClientNetwork::from(text.parse::<std::net::IpAddr>().unwrap())
    }

    #[test]
    fn must_12_misses_are_charged_to_each_client() {
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

    #[test]
    fn wait_is_reported_in_whole_seconds_until_one_miss_is_allowed() {
        let settings =
            ResolveSettings { misses_burst: 1, misses_per_minute: 1, ..Default::default() };
        let budget = MissBudget::new(&settings);
        let a = client("192.0.2.1");
        assert_eq!(budget.take(a), Ok(()));
        // A minute, minus the time since the first miss.
        let wait = budget.take(a).unwrap_err();
        assert!((2..=60).contains(&wait), "{wait}");
        assert!(budget.wait_of(a).is_some_and(|left| (2..=wait).contains(&left)));
    }

    #[test]
    fn sweep_drops_only_clients_whose_wait_is_over() {
        let budget = MissBudget::new(&ResolveSettings::default());
        let (a, b) = (client("192.0.2.1"), client("192.0.2.2"));
        let now = Instant::now();
        budget.over().extend([(a, now), (b, now + Duration::from_hours(1))]);
        assert_eq!(budget.wait_of(a), None);
        budget.sweep();
        assert!(budget.any_over());
        assert_eq!(budget.over().keys().copied().collect::<Vec<_>>(), [b]);
        budget.over().clear();
        budget.sweep();
        assert!(!budget.any_over());
    }

    #[test]
    fn number_of_clients_that_wait_is_bounded() {
        let settings =
            ResolveSettings { misses_burst: 1, misses_per_minute: 1, ..Default::default() };
        let budget = MissBudget::new(&settings);
        for number in 0..=10_000_u32 {
            let address = std::net::Ipv4Addr::from_bits(0x0a00_0000 + number);
            let client = ClientNetwork::from(std::net::IpAddr::from(address));
            assert_eq!(budget.take(client), Ok(()));
            assert!(budget.take(client).is_err());
        }
        assert_eq!((budget.over().len(), MAX_OVER), (10_000, 10_000));
        assert_eq!(budget.over_count.load(Ordering::Relaxed), 10_000);
    }
}
