//! The budget of misses, which limits how many codes without a link one client may request.
//!
//! A client that guesses codes misses nearly always. Beyond its budget it gets 429 for every code, hits
//! included. Otherwise its hits would differ from its misses. While no client is over its budget, a visit to an
//! existing link costs one atomic load.
//!
//! - A client is a [`ClientNetwork`]. All networks of a [`ClientSite`] together have [`SITE_BUDGETS`] budgets: many
//!   clients can have a whole site for nothing.
//! - Memory is bounded: clients beyond [`MAX_CLIENTS`] share budgets until the next sweep.

use std::{
    collections::HashMap,
    hash::{BuildHasher as _, RandomState},
    num::NonZeroU32,
    sync::{
        Mutex, MutexGuard,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter, clock::Clock};
use linnet_platform::{
    client_network::{ClientNetwork, ClientSite},
    lock::MutexExt as _,
};

use super::ResolveSettings;

/// The owner of a budget.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Owner {
    Network(ClientNetwork),
    Site(ClientSite),
    /// Of the clients beyond [`MAX_CLIENTS`], those whose hash is this number.
    Shared(u64),
}

/// The budgets of all clients of one process.
pub struct MissBudget {
    networks: DefaultKeyedRateLimiter<Owner>,
    sites: DefaultKeyedRateLimiter<Owner>,
    /// Owners over their budget, each with the end of its wait.
    over: Mutex<HashMap<Owner, Instant>>,
    /// Size of `over`, so that the common 0 is read without the lock.
    over_count: AtomicUsize,
    /// Its keys are random, so that no client can choose with which others it shares.
    hasher: RandomState,
}

/// The budgets of all networks of a site.
const SITE_BUDGETS: u32 = 16;
/// The maximum number of clients, and of sites, that have a budget of their own.
const MAX_CLIENTS: usize = 20_000;
/// The number of budgets that further clients share.
const SHARED_BUDGETS: u64 = 256;

/// The maximum number of clients in `over`. A further client over its budget gets 429 only for misses.
const MAX_OVER: usize = 10_000;

impl MissBudget {
    /// Time between two calls of [`MissBudget::sweep`].
    pub const SWEEP_EVERY: Duration = Duration::from_secs(10);

    /// Budgets of the configured size.
    pub fn new(settings: &ResolveSettings) -> Self {
        let number = |n| NonZeroU32::new(n).unwrap_or(NonZeroU32::MIN);
        let quota = |budgets: u32| {
            let (rate, burst) = (settings.misses_per_minute, settings.misses_burst);
            Quota::per_minute(number(rate.saturating_mul(budgets)))
                .allow_burst(number(burst.saturating_mul(budgets)))
        };
        Self {
            networks: RateLimiter::keyed(quota(1)),
            sites: RateLimiter::keyed(quota(SITE_BUDGETS)),
            over: Mutex::default(),
            over_count: AtomicUsize::new(0),
            hasher: RandomState::new(),
        }
    }

    /// Whether any client is over its budget. If none is, no client has to be looked up.
    #[inline]
    pub fn any_over(&self) -> bool {
        self.over_count.load(Ordering::Relaxed) != 0
    }

    /// The seconds that a client over its budget has to wait.
    pub fn wait_of(&self, client: ClientNetwork) -> Option<u64> {
        let over = self.over();
        let owners = [Some(Owner::Network(client)), client.site().map(Owner::Site)];
        let until = owners.iter().flatten().filter_map(|owner| over.get(owner)).max()?;
        let left = until.saturating_duration_since(Instant::now());
        (!left.is_zero()).then(|| seconds_to_wait(left))
    }

    /// Charges one miss to a client and its site. Beyond a budget it returns the seconds to wait.
    pub fn take(&self, client: ClientNetwork) -> Result<(), u64> {
        self.charge(&self.networks, Owner::Network(client))?;
        client.site().map_or(Ok(()), |site| self.charge(&self.sites, Owner::Site(site)))
    }

    fn charge(&self, limiter: &DefaultKeyedRateLimiter<Owner>, owner: Owner) -> Result<(), u64> {
        let charged = if limiter.len() < MAX_CLIENTS {
            owner
        } else {
            Owner::Shared(self.hasher.hash_one(owner) % SHARED_BUDGETS)
        };
        limiter.check_key(&charged).map_err(|until| {
            let wait = until.wait_time_from(limiter.clock().now());
            let mut over = self.over();
            if over.len() < MAX_OVER {
                over.insert(owner, Instant::now() + wait);
                self.over_count.store(over.len(), Ordering::Relaxed);
            }
            seconds_to_wait(wait)
        })
    }

    /// Drops clients whose budget is full again.
    pub fn sweep(&self) {
        let now = Instant::now();
        let mut over = self.over();
        over.retain(|_, until| *until > now);
        self.over_count.store(over.len(), Ordering::Relaxed);
        drop(over);
        for limiter in [&self.networks, &self.sites] {
            limiter.retain_recent();
            limiter.shrink_to_fit();
        }
    }

    fn over(&self) -> MutexGuard<'_, HashMap<Owner, Instant>> {
        self.over.lock_ignoring_poison()
    }
}

/// Whole seconds after which the wait has certainly ended.
fn seconds_to_wait(wait: Duration) -> u64 {
    wait.as_secs() + 1
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
    fn must_12_must_26_all_networks_of_a_site_share_budgets() {
        let settings =
            ResolveSettings { misses_burst: 3, misses_per_minute: 1, ..Default::default() };
        let budget = MissBudget::new(&settings);
        let network = |number: u32| client(&format!("2001:db8:7:{number:x}::1"));
        // 16 networks at 3 misses each.
        let allowed = (0..200).filter(|number| budget.take(network(number % 100)).is_ok());
        assert_eq!(allowed.count(), 48);
        assert!(budget.wait_of(network(65_535)).is_some(), "a network that has not missed yet");
        let other = client("2001:db8:8::1");
        assert_eq!((budget.wait_of(other), budget.take(other)), (None, Ok(())));
    }

    #[test]
    fn must_26_number_of_budgets_is_bounded() {
        let budget = MissBudget::new(&ResolveSettings::default());
        for number in 0..25_000_u32 {
            let address = std::net::Ipv4Addr::from_bits(0x0a00_0000 + number);
            assert_eq!(budget.take(ClientNetwork::from(std::net::IpAddr::from(address))), Ok(()));
        }
        assert!((20_000..=20_256).contains(&budget.networks.len()), "{}", budget.networks.len());
        assert!(budget.sites.is_empty(), "IPv4 addresses have no site");
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
        let owner = Owner::Network;
        budget.over().extend([(owner(a), now), (owner(b), now + Duration::from_hours(1))]);
        assert_eq!(budget.wait_of(a), None);
        budget.sweep();
        assert!(budget.any_over());
        assert_eq!(budget.over().keys().copied().collect::<Vec<_>>(), [owner(b)]);
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

    #[test]
    fn waits_are_rounded_to_the_next_whole_second() {
        for (millis, seconds) in [(0, 1), (999, 1), (1_000, 2), (59_999, 60)] {
            assert_eq!(seconds_to_wait(Duration::from_millis(millis)), seconds, "{millis} ms");
        }
    }
}
