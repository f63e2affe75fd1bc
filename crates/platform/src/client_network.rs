//! Groups addresses by the network that one subscriber owns.

use std::net::{IpAddr, Ipv6Addr};

/// The network that limits count as one client: an IPv4 address, or the /64 of an IPv6 address.
///
/// A provider gives each subscriber at least a /64, so a limit on single IPv6 addresses would have no effect. An IPv4
/// address that is mapped into IPv6 counts as IPv4.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ClientNetwork(IpAddr);

impl ClientNetwork {
    /// The first address of the network.
    pub const fn first_address(self) -> IpAddr {
        self.0
    }
}

/// The /48 of an IPv6 network. One site, or one user of a tunnel, can have all of its 65,536 networks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ClientSite(Ipv6Addr);

impl ClientNetwork {
    /// The site of an IPv6 network; `None` for an IPv4 address.
    pub fn site(self) -> Option<ClientSite> {
        match self.0 {
            IpAddr::V6(v6) => {
                Some(ClientSite(Ipv6Addr::from_bits(v6.to_bits() & (u128::MAX << 80))))
            }
            IpAddr::V4(_) => None,
        }
    }
}

impl From<IpAddr> for ClientNetwork {
    fn from(address: IpAddr) -> Self {
        Self(match address.to_canonical() {
            IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & (u128::MAX << 64))),
            v4 @ IpAddr::V4(_) => v4,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn first_address(text: &str) -> String {
        ClientNetwork::from(text.parse::<IpAddr>().unwrap()).first_address().to_string()
    }

    #[test]
    fn ipv6_addresses_are_grouped_by_64_bits_and_ipv4_addresses_are_not() {
        assert_eq!(first_address("2001:db8:1:2:3:4:5:6"), "2001:db8:1:2::");
        assert_eq!(first_address("2001:db8:1:2:ffff::"), "2001:db8:1:2::");
        assert_eq!(first_address("192.0.2.1"), "192.0.2.1");
        assert_eq!(first_address("::ffff:192.0.2.1"), "192.0.2.1");
    }

    #[test]
    fn ipv6_networks_have_a_site_of_48_bits_and_ipv4_addresses_have_none() {
        let site = |text: &str| ClientNetwork::from(text.parse::<IpAddr>().unwrap()).site();
        assert_eq!(site("2001:db8:1:2::1"), site("2001:db8:1:ffff::1"));
        assert_ne!(site("2001:db8:1::1"), site("2001:db8:2::1"));
        assert_eq!((site("192.0.2.1"), site("::ffff:192.0.2.1")), (None, None));
    }
}
