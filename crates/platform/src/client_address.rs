//! The client's address: `X-Real-IP` from a trusted peer, otherwise the peer's address.

use std::net::IpAddr;

use actix_web::http::header::HeaderMap;

const REAL_IP: &str = "x-real-ip";

/// The client's address, if it is known. `peer` is `None` for a unix socket; its peers are always
/// trusted, because the directory's permissions control who can connect. So are those of this machine, and those for
/// which `is_trusted` returns true.
pub fn client_address(
    peer: Option<IpAddr>,
    headers: &HeaderMap,
    is_trusted: impl FnOnce(IpAddr) -> bool,
) -> Option<IpAddr> {
    let is_trusted = peer.is_none_or(|peer| peer.to_canonical().is_loopback() || is_trusted(peer));
    // A repeated header may contain a value from the client, so neither value is used.
    let mut values = headers.get_all(REAL_IP);
    let only = values.next().filter(|_| values.next().is_none());
    let reported = only
        .filter(|_| is_trusted)
        .and_then(|value| value.to_str().ok())
        .and_then(|text| text.trim().parse::<IpAddr>().ok());
    reported.or(peer).map(|address| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use actix_web::http::header::{HeaderName, HeaderValue};

    use super::*;

    fn address(peer: Option<&str>, real_ip: &[&str]) -> Option<String> {
        let mut headers = HeaderMap::new();
        for value in real_ip {
            headers.append(HeaderName::from_static(REAL_IP), HeaderValue::from_str(value).unwrap());
        }
        let peer = peer.map(|peer| peer.parse().unwrap());
        let is_trusted = |peer: IpAddr| peer.to_string().starts_with("10.1.");
        client_address(peer, &headers, is_trusted).map(|address| address.to_string())
    }

    #[test]
    fn must_14_a_client_cannot_choose_its_address() {
        assert_eq!(address(Some("203.0.113.9"), &["192.0.2.1"]).unwrap(), "203.0.113.9");
        assert_eq!(address(Some("10.2.0.1"), &["192.0.2.1"]).unwrap(), "10.2.0.1");
    }

    #[test]
    fn header_of_a_trusted_peer_is_used() {
        for peer in
            [None, Some("127.0.0.1"), Some("::1"), Some("::ffff:127.0.0.1"), Some("10.1.2.3")]
        {
            assert_eq!(address(peer, &["192.0.2.1"]).unwrap(), "192.0.2.1", "{peer:?}");
        }
    }

    #[test]
    fn malformed_or_repeated_header_is_ignored() {
        assert_eq!(address(Some("127.0.0.1"), &["x"]).unwrap(), "127.0.0.1");
        assert_eq!(address(Some("127.0.0.1"), &["192.0.2.1", "192.0.2.2"]).unwrap(), "127.0.0.1");
        assert_eq!(address(None, &[]), None);
    }
}
