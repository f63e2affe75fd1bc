//! Resolves the host names of shorteners, and detects when their addresses change.
//!
//! In a container network, one name resolves to all replicas of a service. Replicas are added and
//! removed while the gateway runs.

use std::{
    collections::HashMap,
    net::{SocketAddr, ToSocketAddrs as _},
    time::Duration,
};

use linnet_platform::{backoff::jittered, listener::Address};
use tokio::time::timeout;

/// Interval between two resolutions, before jitter shortens it.
const RESOLVE_EVERY: Duration = Duration::from_secs(1);
/// Timeout of one resolution.
const RESOLVE_TIMEOUT: Duration = Duration::from_secs(2);

/// The configured addresses, with the latest resolution of each host name among them.
#[derive(Debug)]
pub(super) struct Discovery {
    configured: Vec<Address>,
    resolved: HashMap<String, Vec<Address>>,
    last_returned: Vec<Address>,
}

impl Discovery {
    pub(super) fn new(configured: Vec<Address>) -> Self {
        Self { last_returned: configured.clone(), configured, resolved: HashMap::new() }
    }

    /// Waits until the addresses differ from the last ones, and returns all of them. Never returns
    /// if no host name is configured. Cancel-safe.
    pub(super) async fn next_change(&mut self) -> Vec<Address> {
        loop {
            let mut name_count = 0;
            for address in &self.configured {
                let Address::Tcp(name) = address else { continue };
                if name.parse::<SocketAddr>().is_ok() {
                    continue;
                }
                name_count += 1;
                let addresses = resolve(name).await;
                // The name server itself may have failed, so an empty result keeps the last addresses.
                if !addresses.is_empty() {
                    self.resolved.insert(name.clone(), addresses);
                }
            }
            if name_count == 0 {
                return std::future::pending().await;
            }
            let addresses = self.addresses();
            if addresses != self.last_returned {
                self.last_returned.clone_from(&addresses);
                return addresses;
            }
            tokio::time::sleep(jittered(RESOLVE_EVERY)).await;
        }
    }

    fn addresses(&self) -> Vec<Address> {
        let resolved = |address: &Address| match address {
            Address::Tcp(name) => self.resolved.get(name).cloned(),
            Address::Unix(_) => None,
        };
        let all = self.configured.iter();
        let mut all: Vec<_> =
            all.flat_map(|one| resolved(one).unwrap_or_else(|| vec![one.clone()])).collect();
        let mut seen = std::collections::HashSet::new();
        all.retain(|address| seen.insert(address.clone()));
        all
    }
}

/// The sorted addresses of a name; empty if it cannot be resolved. A name with both families yields
/// its IPv4 addresses only, because a shortener may listen on IPv4 alone.
async fn resolve(name: &str) -> Vec<Address> {
    let owned = name.to_owned();
    let resolution =
        tokio::task::spawn_blocking(move || owned.to_socket_addrs().map(Vec::from_iter));
    let Ok(Ok(Ok(mut addresses))) = timeout(RESOLVE_TIMEOUT, resolution).await else {
        return Vec::new();
    };
    if addresses.iter().any(SocketAddr::is_ipv4) {
        addresses.retain(SocketAddr::is_ipv4);
    }
    addresses.sort_unstable();
    addresses.dedup();
    addresses.iter().map(|address| Address::Tcp(address.to_string())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> Address {
        text.parse().unwrap()
    }

    #[tokio::test]
    async fn host_name_yields_all_its_addresses_once() {
        let configured = ["unix:/run/a.sock", "localhost:81", "127.0.0.1:81"].map(address);
        let mut discovery = Discovery::new(configured.to_vec());
        let found = timeout(Duration::from_secs(10), discovery.next_change()).await.unwrap();
        assert_eq!(found, ["unix:/run/a.sock", "127.0.0.1:81"].map(address));
    }

    #[tokio::test(start_paused = true)]
    async fn addresses_never_change_without_a_host_name() {
        let mut discovery = Discovery::new(vec![address("127.0.0.1:1"), address("unix:/a")]);
        assert!(timeout(Duration::from_hours(1), discovery.next_change()).await.is_err());
    }

    #[test]
    fn last_addresses_replace_the_host_name() {
        let mut discovery = Discovery::new(vec![address("shortener:83")]);
        assert_eq!(discovery.addresses(), [address("shortener:83")]);
        let found = vec![address("10.0.0.2:83"), address("10.0.0.3:83")];
        discovery.resolved.insert("shortener:83".to_owned(), found.clone());
        assert_eq!(discovery.addresses(), found);
    }
}
