//! Where a request comes from: what nginx says, believed only when it is nginx that says it.

use std::net::IpAddr;

use actix_web::http::header::HeaderMap;

use crate::config::Network;

const REAL_IP: &str = "x-real-ip";

/// The client's address, if it is known. `peer` is `None` for a unix socket, which only a process
/// that reaches its folder can use.
pub(crate) fn client_address(
    peer: Option<IpAddr>,
    headers: &HeaderMap,
    trusted: &[Network],
) -> Option<IpAddr> {
    let believed = match peer {
        None => true,
        Some(peer) => {
            peer.to_canonical().is_loopback()
                || trusted.iter().any(|network| network.contains(peer))
        }
    };
    // Two of them means that somebody added one: neither is believed.
    let mut values = headers.get_all(REAL_IP);
    let only = values.next().filter(|_| values.next().is_none());
    let told = only
        .filter(|_| believed)
        .and_then(|value| value.to_str().ok())
        .and_then(|text| text.trim().parse::<IpAddr>().ok());
    told.or(peer).map(|address| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use actix_web::http::header::{HeaderName, HeaderValue};

    use super::*;

    fn address(peer: Option<&str>, told: &[&str]) -> Option<String> {
        let mut headers = HeaderMap::new();
        for value in told {
            headers.append(HeaderName::from_static(REAL_IP), HeaderValue::from_str(value).unwrap());
        }
        let peer = peer.map(|peer| peer.parse().unwrap());
        let trusted = ["10.1.0.0/16".parse().unwrap()];
        client_address(peer, &headers, &trusted).map(|address| address.to_string())
    }

    #[test]
    fn must_14_a_client_cannot_choose_its_address() {
        assert_eq!(address(Some("203.0.113.9"), &["192.0.2.1"]).unwrap(), "203.0.113.9");
        assert_eq!(address(Some("10.2.0.1"), &["192.0.2.1"]).unwrap(), "10.2.0.1");
    }

    #[test]
    fn the_proxy_in_front_is_believed() {
        for peer in
            [None, Some("127.0.0.1"), Some("::1"), Some("::ffff:127.0.0.1"), Some("10.1.2.3")]
        {
            assert_eq!(address(peer, &["192.0.2.1"]).unwrap(), "192.0.2.1", "{peer:?}");
        }
    }

    #[test]
    fn nonsense_is_not_believed() {
        assert_eq!(address(Some("127.0.0.1"), &["x"]).unwrap(), "127.0.0.1");
        assert_eq!(address(Some("127.0.0.1"), &["192.0.2.1", "192.0.2.2"]).unwrap(), "127.0.0.1");
        assert_eq!(address(None, &[]), None);
    }
}
