//! Replaces a client's address by a keyed hash wherever the address would outlive its request.
//!
//! * The key is derived from the service token, so all processes of an installation compute the same hash.
//! * There are few enough IPv4 addresses to hash all of them, but only a process with the token can compute the hashes.
//!   After the token has changed, no address matches an old hash.

use std::{fmt::Write as _, net::IpAddr};

use hmac::{Hmac, Mac as _};
use linnet_platform::client_network::ClientNetwork;
use sha2::Sha256;

use crate::settings::ServiceSettings;

/// Separates these hashes from any other use of the token.
const CONTEXT: &[u8] = b"linnet client address v1\0";
/// Length of a hash, in hexadecimal digits. 128 bits make collisions of networks impossible in practice.
const HASH_DIGITS: usize = 32;

/// Computes the keyed hash of client addresses.
#[derive(Clone)]
pub struct AddressHasher(Hmac<Sha256>);

impl AddressHasher {
    /// Derives the key from the service token.
    pub fn new(settings: &ServiceSettings) -> Self {
        Self(settings.keyed_hash(CONTEXT))
    }

    /// The hash of the network that counts as one client, as 32 hexadecimal digits.
    pub fn hash(&self, address: IpAddr) -> String {
        let mut mac = self.0.clone();
        match ClientNetwork::from(address).first_address() {
            IpAddr::V4(address) => mac.update(&address.octets()),
            IpAddr::V6(address) => mac.update(&address.octets()),
        }
        let mut text = String::with_capacity(HASH_DIGITS);
        for byte in mac.finalize().into_bytes().iter().take(HASH_DIGITS / 2) {
            // Writing to a string cannot fail.
            let _ = write!(text, "{byte:02x}");
        }
        text
    }
}

impl std::fmt::Debug for AddressHasher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("AddressHasher")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hasher(token: &str) -> AddressHasher {
        AddressHasher::new(&ServiceSettings { token: token.into() })
    }

    fn hash(address: &str) -> String {
        hasher("0123456789abcdef0123456789abcdef").hash(address.parse().unwrap())
    }

    #[test]
    fn addresses_of_one_client_have_one_hash() {
        assert_eq!(hash("2001:db8::1"), hash("2001:db8::ffff:1"));
        assert_ne!(hash("2001:db8::1"), hash("2001:db8:0:1::1"));
        assert_eq!(hash("::ffff:192.0.2.1"), hash("192.0.2.1"));
        assert_ne!(hash("192.0.2.1"), hash("192.0.2.2"));
    }

    #[test]
    fn must_31_a_hash_depends_on_the_token_and_contains_no_address() {
        let other = hasher("another-token-0123456789abcdef0123").hash("192.0.2.1".parse().unwrap());
        assert_ne!(hash("192.0.2.1"), other);
        for text in [hash("192.0.2.1"), hash("2001:db8:1:2::3")] {
            assert_eq!(text.len(), 32, "{text}");
            assert!(text.bytes().all(|byte| byte.is_ascii_hexdigit()), "{text}");
        }
    }

    /// The values are those of Python's `hmac`.
    #[test]
    fn a_hash_is_the_same_in_every_release() {
        assert_eq!(hash("192.0.2.1"), "18fe32a54cc251daddc86e3b9c24c7f6");
        assert_eq!(hash("2001:db8:1:2::3"), "56378e2b9f72a70da04e4aa11fa2663a");
        assert_eq!(format!("{:?}", hasher("0123456789abcdef0123456789abcdef")), "AddressHasher");
    }
}
