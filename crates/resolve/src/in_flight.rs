//! In-flight lookups: concurrent misses of one code share one lookup of L2 and the database.

use std::sync::Arc;

use linnet_platform::{
    byte_budget::ByteBudget,
    client_network::{ClientNetwork, ClientSite},
    single_flight::{SingleFlight, SingleFlightError},
};

use super::l1::L1Entry;

/// Why a lookup has no result.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum LookupError {
    /// PostgreSQL cannot be reached, and no cache has the code.
    #[error("PostgreSQL cannot be reached")]
    Unavailable,
    /// `resolve.max_in_flight_lookups` lookups are in flight, or the client has started its share of them.
    #[error("too many lookups are in flight")]
    Overloaded,
}

pub(super) type LookupResult = Result<Arc<L1Entry>, LookupError>;

/// One client may start at most 1 in this many of the lookups in flight. While the database is slow, a client that
/// requests many codes then leaves room for others. Joining a lookup does not count.
const SHARE: usize = 8;
/// All networks of one IPv6 site may start 1 in this many of them.
const SITE_SHARE: usize = 2;

/// A client; `None` without an address.
type Client = Option<ClientNetwork>;

/// The lookups in flight, by code. Clones share them: one set for all server threads of a process.
#[derive(Clone)]
pub struct InFlightLookups {
    flights: Arc<SingleFlight<Box<str>, LookupResult>>,
    /// Counts the lookups that each client has started.
    started: ByteBudget<Client>,
    /// The same for each site.
    started_by_site: ByteBudget<ClientSite>,
}

impl InFlightLookups {
    /// At most `limit` lookups are in flight at a time. One client has started at most an eighth of `limit`, and all
    /// clients of an IPv6 site at most a half.
    pub fn new(limit: usize) -> Self {
        let part = |divisor: usize| (limit / divisor).max(1);
        Self {
            flights: SingleFlight::new(limit),
            started: ByteBudget::new(limit, part(SHARE)),
            started_by_site: ByteBudget::new(limit, part(SITE_SHARE)),
        }
    }

    /// Waits for the lookup of `code` that is in flight, or starts one with `look_up`.
    pub(super) async fn run<F, Fut>(&self, code: &str, client: Client, look_up: F) -> LookupResult
    where
        F: FnOnce() -> Fut,
        Fut: Future<Output = LookupResult> + Send + 'static,
    {
        let start = || {
            let mut share = self.started.reserve(client);
            let mut of_site =
                client.and_then(ClientNetwork::site).map(|site| self.started_by_site.reserve(site));
            let is_granted =
                share.grow(1).is_ok() && of_site.as_mut().is_none_or(|site| site.grow(1).is_ok());
            let look_up = is_granted.then(look_up);
            async move {
                // Held until the lookup ends.
                let _shares = (share, of_site);
                match look_up {
                    Some(look_up) => look_up.await,
                    None => Err(LookupError::Overloaded),
                }
            }
        };
        self.flights.run(code.into(), start).await?
    }

    /// [`InFlightLookups::run`] for a request that must see all changes from before its arrival. Returns the result,
    /// and whether the request joined a lookup of another one.
    ///
    /// If `answers` rejects the result of a joined lookup, that lookup may have begun before such a change. The request
    /// then runs a second lookup. It begins after the arrival, so its result is always used.
    pub(super) async fn run_for_arrival<F, Fut>(
        &self,
        code: &str,
        client: Client,
        look_up: F,
        answers: impl Fn(&L1Entry) -> bool,
    ) -> (LookupResult, bool)
    where
        F: Fn() -> Fut,
        Fut: Future<Output = LookupResult> + Send + 'static,
    {
        let mut joined = true;
        let first = || {
            joined = false;
            look_up()
        };
        match self.run(code, client, first).await {
            Ok(entry) if joined && !answers(&entry) => {
                (self.run(code, client, look_up).await, joined)
            }
            result => (result, joined),
        }
    }
}

impl From<SingleFlightError> for LookupError {
    fn from(error: SingleFlightError) -> Self {
        match error {
            SingleFlightError::LimitReached => Self::Overloaded,
            SingleFlightError::Aborted => Self::Unavailable,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{CacheEntry, CacheSettings, L1Cache};
    use std::{
        net::IpAddr,
        sync::atomic::{AtomicUsize, Ordering},
    };
    use tokio::sync::Barrier;

    fn negative_entry() -> Arc<L1Entry> {
        let cache = L1Cache::new(&CacheSettings::default());
        cache.fill("x", CacheEntry::NEGATIVE, cache.ticket("x"))
    }

    #[tokio::test]
    async fn must_19_a_thousand_concurrent_misses_make_one_look_up() {
        let lookups = InFlightLookups::new(10);
        let count = Arc::new(AtomicUsize::new(0));
        let gate = Arc::new(Barrier::new(2));
        let mut tasks = Vec::new();
        for _ in 0..1_000 {
            let (lookups, count, gate) = (lookups.clone(), count.clone(), gate.clone());
            tasks.push(tokio::spawn(async move {
                let look_up = || async move {
                    count.fetch_add(1, Ordering::Relaxed);
                    gate.wait().await;
                    Ok(negative_entry())
                };
                lookups.run("abc", None, look_up).await
            }));
        }
        gate.wait().await;
        for task in tasks {
            assert!(task.await.unwrap().is_ok());
        }
        assert_eq!(count.load(Ordering::Relaxed), 1);
        assert!(lookups.flights.is_empty());
        assert_eq!(lookups.started.used(), 0);
    }

    #[tokio::test]
    async fn must_26_client_with_its_share_of_lookups_leaves_room_for_others() {
        let client = |last| Some(ClientNetwork::from(std::net::IpAddr::from([192, 0, 2, last])));
        let lookups = InFlightLookups::new(16);
        let mut held = Vec::new();
        let mut gates = Vec::new();
        for code in ["one", "two"] {
            let (gate, opened) = tokio::sync::oneshot::channel::<()>();
            gates.push(gate);
            let look_up = || async move {
                let _ = opened.await;
                Ok(negative_entry())
            };
            let lookups = lookups.clone();
            held.push(tokio::spawn(async move { lookups.run(code, client(1), look_up).await }));
        }
        while lookups.started.used() < 2 {
            tokio::task::yield_now().await;
        }
        let look_up = || async { Ok(negative_entry()) };
        let refused = lookups.run("three", client(1), look_up).await;
        assert!(matches!(refused, Err(LookupError::Overloaded)), "a third lookup of the client");
        assert!(lookups.run("three", client(2), look_up).await.is_ok(), "another client");
        // The client may wait for lookups that are in flight.
        let joined = tokio::spawn({
            let lookups = lookups.clone();
            async move { lookups.run("one", client(1), look_up).await }
        });
        gates.clear();
        assert!(joined.await.unwrap().is_ok());
        for lookup in held {
            assert!(lookup.await.unwrap().is_ok());
        }
        assert!(lookups.run("three", client(1), look_up).await.is_ok(), "its share is free again");
        assert_eq!(lookups.started.used(), 0);
    }

    #[tokio::test]
    async fn must_26_all_networks_of_a_site_leave_room_for_other_sites() {
        let lookups = InFlightLookups::new(16);
        let client = |text: String| Some(ClientNetwork::from(text.parse::<IpAddr>().unwrap()));
        let mut held = Vec::new();
        for number in 0..8 {
            let lookups = lookups.clone();
            held.push(Box::pin(async move {
                let network = client(format!("2001:db8:7:{number}::1"));
                lookups.run(&number.to_string(), network, std::future::pending).await
            }));
            assert!(futures::poll!(held.last_mut().unwrap()).is_pending());
        }
        let look_up = || async { Ok(negative_entry()) };
        let refused = lookups.run("x", client("2001:db8:7:9::1".into()), look_up).await;
        assert!(matches!(refused, Err(LookupError::Overloaded)), "a ninth lookup of the site");
        for address in ["2001:db8:8::1", "192.0.2.1"] {
            assert!(lookups.run("x", client(address.into()), look_up).await.is_ok(), "{address}");
        }
    }

    #[tokio::test]
    async fn must_07_a_request_that_joins_a_lookup_from_before_a_change_starts_the_next_one() {
        let lookups = InFlightLookups::new(10);
        let (old, new) = (negative_entry(), negative_entry());
        let gate = Arc::new(Barrier::new(2));
        let reads_old = || {
            let (gate, old) = (gate.clone(), old.clone());
            async move {
                gate.wait().await;
                Ok(old)
            }
        };
        let reads_new = || {
            let new = new.clone();
            async move { Ok(new) }
        };
        let mut before = Box::pin(lookups.run_for_arrival("abc", None, reads_old, |_| false));
        assert!(futures::poll!(&mut before).is_pending());
        let is_new = |entry: &L1Entry| !std::ptr::eq(entry, Arc::as_ptr(&old));
        let mut after = Box::pin(lookups.run_for_arrival("abc", None, reads_new, is_new));
        assert!(futures::poll!(&mut after).is_pending(), "it joins the first lookup");
        gate.wait().await;
        let (result, joined) = before.await;
        assert!(Arc::ptr_eq(&result.unwrap(), &old), "the request began before the change");
        assert!(!joined);
        let (result, joined) = after.await;
        assert!(Arc::ptr_eq(&result.unwrap(), &new));
        assert!(joined);
    }

    #[test]
    fn a_full_table_and_an_aborted_lookup_are_different_errors() {
        assert_eq!(LookupError::from(SingleFlightError::LimitReached), LookupError::Overloaded);
        assert_eq!(LookupError::from(SingleFlightError::Aborted), LookupError::Unavailable);
    }
}
