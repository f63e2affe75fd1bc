//! The mark by which a gateway recognizes a key of this installation without a lookup.
//!
//! Invariants:
//! - The last 8 bytes of a secret are a keyed hash of the id and of the other 24 bytes, which are random. The hash's key is
//!   derived from the service token, so no client can make a key with the mark.
//! - The mark authenticates no request: a key may be revoked or expired. It only decides whether strangers at the client's
//!   address can use up the lookups of the key.
//! - A key from before the mark, or from before a change of the service token, has none. It is valid nevertheless.

use hmac::{Hmac, Mac as _};
use linnet_domain::{ApiKeySecret, RandomSourceError};
use sha2::Sha256;
use subtle::ConstantTimeEq as _;

use crate::settings::ServiceSettings;

/// Separates these hashes from any other use of the service token.
const CONTEXT: &[u8] = b"linnet issued key v1\0";

/// Makes keys with the mark, and recognizes them.
#[derive(Clone)]
pub struct IssuedKeys(Hmac<Sha256>);

impl IssuedKeys {
    /// Derives the key of the hash from the service token.
    pub fn new(settings: &ServiceSettings) -> Self {
        Self(settings.keyed_hash(CONTEXT))
    }

    /// A new key with the mark. Fails only if the operating system's random source fails.
    pub fn generate(&self) -> Result<ApiKeySecret, RandomSourceError> {
        ApiKeySecret::generate_marked(|id, random| self.mark(id, random))
    }

    /// Whether this installation has issued the key. The comparison takes the same time for every forged key.
    pub fn have_issued(&self, key: &str) -> bool {
        let Ok(key) = ApiKeySecret::parse(key) else { return false };
        let Some((random, mark)) = key.marked_parts() else { return false };
        self.mark(key.id().as_str(), &random).ct_eq(&mark).into()
    }

    fn mark(
        &self,
        id: &str,
        random: &[u8; ApiKeySecret::RANDOM_BYTES],
    ) -> [u8; ApiKeySecret::MARK_BYTES] {
        let mut mac = self.0.clone();
        mac.update(id.as_bytes());
        mac.update(random);
        let hash: [u8; 32] = mac.finalize().into_bytes().into();
        std::array::from_fn(|index| hash.get(index).copied().unwrap_or_default())
    }
}

impl std::fmt::Debug for IssuedKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("IssuedKeys")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(token: &str) -> IssuedKeys {
        IssuedKeys::new(&ServiceSettings { token: token.into() })
    }

    #[test]
    fn only_unchanged_keys_of_the_installation_have_the_mark() {
        let own = keys("0123456789abcdef0123456789abcdef");
        let key = own.generate().unwrap().reveal();
        assert!(own.have_issued(&key), "{key}");
        assert!(!keys("another 0123456789abcdef01234567").have_issued(&key));
        // Each character counts: id, random part and mark.
        for index in (4..12).chain(13..key.len() - 1) {
            let other = if key.as_bytes()[index] == b'a' { "b" } else { "a" };
            let mut forged = key.clone();
            forged.replace_range(index..=index, other);
            assert!(!own.have_issued(&forged), "{index}");
        }
        for foreign in [ApiKeySecret::generate().unwrap().reveal(), String::new(), "lnt_".into()] {
            assert!(!own.have_issued(&foreign), "{foreign}");
        }
    }
}
