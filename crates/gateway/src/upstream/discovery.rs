//! What the names of shorteners stand for, over time.
//!
//! In a network of containers one name is all replicas of a service, and which ones they are changes
//! while the gateway runs.

use std::{
    collections::HashMap,
    net::{SocketAddr, ToSocketAddrs as _},
    time::Duration,
};

use linnet_platform::{listener::Address, redis_client::jittered};
use tokio::time::timeout;

/// Time between two looks, before jitter shortens it.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Longest wait for one name.
const LOOK_TIMEOUT: Duration = Duration::from_secs(2);

/// The configured addresses, and what the names among them stood for when last seen.
#[derive(Debug)]
pub(super) struct Discovery {
    configured: Vec<Address>,
    known: HashMap<String, Vec<Address>>,
    told: Vec<Address>,
}

impl Discovery {
    pub(super) fn new(configured: Vec<Address>) -> Self {
        Self { told: configured.clone(), configured, known: HashMap::new() }
    }

    /// All addresses, as soon as they are others than before. Never, when no name is configured.
    ///
    /// Nothing is lost when it is dropped while it waits.
    pub(super) async fn next(&mut self) -> Vec<Address> {
        loop {
            let mut names = 0;
            for address in &self.configured {
                let Address::Tcp(name) = address else { continue };
                if name.parse::<SocketAddr>().is_ok() {
                    continue;
                }
                names += 1;
                let found = look_up(name).await;
                // A name that stands for nothing now may be a name server that is away.
                if !found.is_empty() {
                    self.known.insert(name.clone(), found);
                }
            }
            if names == 0 {
                return std::future::pending().await;
            }
            let now = self.addresses();
            if now != self.told {
                self.told.clone_from(&now);
                return now;
            }
            tokio::time::sleep(jittered(LOOK_EVERY)).await;
        }
    }

    fn addresses(&self) -> Vec<Address> {
        let known = |address: &Address| match address {
            Address::Tcp(name) => self.known.get(name).cloned(),
            Address::Unix(_) => None,
        };
        let all = self.configured.iter();
        let mut all: Vec<_> =
            all.flat_map(|one| known(one).unwrap_or_else(|| vec![one.clone()])).collect();
        let mut seen = std::collections::HashSet::new();
        all.retain(|address| seen.insert(address.clone()));
        all
    }
}

/// In the order of their numbers; of a name with both kinds the IPv4 addresses, for one process often
/// listens on those alone.
async fn look_up(name: &str) -> Vec<Address> {
    let owned = name.to_owned();
    let asked = tokio::task::spawn_blocking(move || owned.to_socket_addrs().map(Vec::from_iter));
    let Ok(Ok(Ok(mut found))) = timeout(LOOK_TIMEOUT, asked).await else { return Vec::new() };
    if found.iter().any(SocketAddr::is_ipv4) {
        found.retain(SocketAddr::is_ipv4);
    }
    found.sort_unstable();
    found.dedup();
    found.iter().map(|address| Address::Tcp(address.to_string())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> Address {
        text.parse().unwrap()
    }

    #[tokio::test]
    async fn a_name_is_all_that_it_stands_for() {
        let configured = ["unix:/run/a.sock", "localhost:81", "127.0.0.1:81"].map(address);
        let mut discovery = Discovery::new(configured.to_vec());
        let found = timeout(Duration::from_secs(10), discovery.next()).await.unwrap();
        assert_eq!(found, ["unix:/run/a.sock", "127.0.0.1:81"].map(address));
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_name_there_is_no_news() {
        let mut discovery = Discovery::new(vec![address("127.0.0.1:1"), address("unix:/a")]);
        assert!(timeout(Duration::from_hours(1), discovery.next()).await.is_err());
    }

    #[test]
    fn a_name_that_stands_for_nothing_keeps_its_last_addresses() {
        let mut discovery = Discovery::new(vec![address("shortener:83")]);
        assert_eq!(discovery.addresses(), [address("shortener:83")]);
        let found = vec![address("10.0.0.2:83"), address("10.0.0.3:83")];
        discovery.known.insert("shortener:83".to_owned(), found.clone());
        assert_eq!(discovery.addresses(), found);
    }
}
