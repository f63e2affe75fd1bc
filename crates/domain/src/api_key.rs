//! API keys: `lnt_<8-character id>_<43-character secret>`.
//!
//! * The id is public and identifies the row. The secret is 32 bytes in base64url, of which at least 24 are random. The
//!   others may mark the key as one of this installation.
//! * Only the secret's SHA-256 is stored. A slow hash would not help, because the secret has at least 192 bits of entropy.

use std::fmt;

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use chrono::{DateTime, Utc};
use rand::{TryRng, rngs::SysRng};
use serde::Serialize;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use crate::{Scopes, UserId};

const PREFIX: &str = "lnt_";
const ID_LENGTH: usize = 8;
const SECRET_LENGTH: usize = 43;
const ID_ALPHABET: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// The public id of a key: 8 letters and digits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct KeyId(String);

/// The stored form of a key's secret.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct SecretHash([u8; 32]);

/// A whole key. It is shown once, when it is created, and never logged.
pub struct ApiKeySecret {
    id: KeyId,
    secret: String,
}

/// The text does not have the form of a key or of a key's id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be an API key")]
pub struct ParseApiKeyError;

/// A key as it is listed.
#[derive(Debug, Clone)]
pub struct ApiKey {
    /// Public id.
    pub id: String,
    /// The owner.
    pub user_id: UserId,
    /// The owner's label for it, at most [`ApiKey::MAX_NAME`] characters.
    pub name: String,
    /// The permissions that it grants.
    pub scopes: Scopes,
    /// When it was created.
    pub created_at: DateTime<Utc>,
    /// When it expires.
    pub expires_at: Option<DateTime<Utc>>,
}

impl ApiKey {
    /// The longest name, in characters.
    pub const MAX_NAME: usize = 100;
}

impl KeyId {
    /// Checks the form of an id.
    pub fn parse(text: &str) -> Result<Self, ParseApiKeyError> {
        let is_valid = text.len() == ID_LENGTH && text.bytes().all(|b| b.is_ascii_alphanumeric());
        if is_valid { Ok(Self(text.to_owned())) } else { Err(ParseApiKeyError) }
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The operating system's random source has failed.
pub type RandomSourceError = rand::rngs::SysError;

impl ApiKeySecret {
    /// Bytes of a secret that are always random.
    pub const RANDOM_BYTES: usize = 24;
    /// Bytes of a secret that can be a mark.
    pub const MARK_BYTES: usize = 8;

    /// Generates a key without a mark from the operating system's CSPRNG. Fails only if the CSPRNG fails.
    pub fn generate() -> Result<Self, RandomSourceError> {
        let mut mark = [0_u8; Self::MARK_BYTES];
        SysRng.try_fill_bytes(&mut mark)?;
        Self::generate_marked(|_, _| mark)
    }

    /// [`Self::generate`] with a mark, which `mark` computes from the id and the random bytes.
    pub fn generate_marked(
        mark: impl FnOnce(&str, &[u8; Self::RANDOM_BYTES]) -> [u8; Self::MARK_BYTES],
    ) -> Result<Self, RandomSourceError> {
        let mut id = String::with_capacity(ID_LENGTH);
        while id.len() < ID_LENGTH {
            let mut byte = [0_u8; 1];
            SysRng.try_fill_bytes(&mut byte)?;
            // 248 = 4 × 62. The distribution is uniform because the other 8 values are rejected.
            if let [byte @ ..248] = byte
                && let Some(letter) = ID_ALPHABET.get(usize::from(byte % 62))
            {
                id.push(char::from(*letter));
            }
        }
        let mut random = [0_u8; Self::RANDOM_BYTES];
        SysRng.try_fill_bytes(&mut random)?;
        let mark = mark(&id, &random);
        let secret = URL_SAFE_NO_PAD.encode([random.as_slice(), mark.as_slice()].concat());
        Ok(Self { id: KeyId(id), secret })
    }

    /// The random bytes of the secret, and those that can be a mark. `None` if the secret does not encode 32 bytes.
    pub fn marked_parts(&self) -> Option<([u8; Self::RANDOM_BYTES], [u8; Self::MARK_BYTES])> {
        let bytes = URL_SAFE_NO_PAD.decode(&self.secret).ok()?;
        let (random, mark) = bytes.split_first_chunk()?;
        Some((*random, mark.try_into().ok()?))
    }

    /// Parses a presented key.
    pub fn parse(text: &str) -> Result<Self, ParseApiKeyError> {
        let (id, secret) = text
            .strip_prefix(PREFIX)
            .and_then(|rest| rest.split_once('_'))
            .ok_or(ParseApiKeyError)?;
        let is_secret = secret.len() == SECRET_LENGTH
            && secret.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
        if !is_secret {
            return Err(ParseApiKeyError);
        }
        Ok(Self { id: KeyId::parse(id)?, secret: secret.to_owned() })
    }

    /// The public id.
    pub fn id(&self) -> &KeyId {
        &self.id
    }

    /// The hash of the secret, which is stored instead of the secret.
    pub fn hash(&self) -> SecretHash {
        SecretHash(Sha256::digest(self.secret.as_bytes()).into())
    }

    /// The whole key. Only the response that creates the key may contain it.
    pub fn reveal(&self) -> String {
        format!("{PREFIX}{}_{}", self.id.0, self.secret)
    }
}

impl SecretHash {
    /// The bytes to store.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Compares with a stored hash in constant time.
    pub fn matches(&self, stored: &[u8]) -> bool {
        self.0.as_slice().ct_eq(stored).into()
    }
}

impl fmt::Debug for ApiKeySecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ApiKeySecret({PREFIX}{}_[redacted])", self.id.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn must_16_keys_round_trip_and_are_stored_hashed() {
        let key = ApiKeySecret::generate().unwrap();
        let text = key.reveal();
        assert_eq!(text.len(), 4 + 8 + 1 + 43);
        let parsed = ApiKeySecret::parse(&text).unwrap();
        assert_eq!(parsed.id(), key.id());
        assert!(parsed.hash().matches(key.hash().as_bytes()));
        assert!(!ApiKeySecret::generate().unwrap().hash().matches(key.hash().as_bytes()));
        assert!(!format!("{key:?}").contains(&text[13..]));
    }

    #[test]
    fn malformed_keys_are_refused() {
        let good = ApiKeySecret::generate().unwrap().reveal();
        let short = &good[..good.len() - 1];
        for bad in
            ["", "lnt_", "lnt_a_b", short, &good.replacen("lnt", "lnx", 1), &format!("{good} ")]
        {
            assert!(ApiKeySecret::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn key_ids_are_eight_letters_and_digits() {
        for good in ["Ab3xYz01", "00000000"] {
            assert_eq!(KeyId::parse(good).unwrap().as_str(), good);
        }
        // The last one has eight bytes.
        for bad in ["", "Ab3xYz0", "Ab3xYz012", "Ab3xYz0_", "Ab3xYz0 ", "Ab3xYz\u{e9}"] {
            assert_eq!(KeyId::parse(bad), Err(ParseApiKeyError), "{bad}");
        }
    }

    #[test]
    fn generated_ids_use_every_letter_equally_often() {
        let mut seen = [0_u32; 256];
        for _ in 0..2_000 {
            let key = ApiKeySecret::generate().unwrap();
            assert_eq!(key.id().as_str().len(), ID_LENGTH);
            key.id().as_str().bytes().for_each(|b| seen[usize::from(b)] += 1);
        }
        // 16,000 characters of 62: 258 each with a standard deviation of 16. The bounds are 8 deviations away.
        for letter in ID_ALPHABET {
            let count = seen[usize::from(*letter)];
            assert!((130..=386).contains(&count), "{} occurs {count} times", char::from(*letter));
        }
    }

    #[test]
    fn a_secret_is_43_characters_of_base64url() {
        let id = "lnt_Ab3xYz01_";
        for secret in ["a", "Z", "0", "-", "_"] {
            let text = format!("{id}{}", secret.repeat(43));
            assert_eq!(ApiKeySecret::parse(&text).unwrap().reveal(), text);
        }
        for wrong in [".", "=", "+", "/", " ", "\0", "\u{e9}"] {
            let text = format!("{id}{}{wrong}", "a".repeat(43 - wrong.len()));
            assert!(ApiKeySecret::parse(&text).is_err(), "{wrong:?}");
        }
        let key = ApiKeySecret::parse(&format!("{id}{}", "a".repeat(43))).unwrap();
        assert_eq!(format!("{key:?}"), "ApiKeySecret(lnt_Ab3xYz01_[redacted])");
    }
}
