//! API keys: `lnt_<8-character id>_<43-character secret>`.
//!
//! The id is public and finds the row; the secret is 32 random bytes in base64url. Only the secret's
//! SHA-256 is stored: it has 256 bits of entropy, so a slow hash would protect nothing.

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

/// The public part of a key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct KeyId(String);

/// The stored form of a key's secret.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct SecretHash([u8; 32]);

/// A whole key. Shown once, when it is made; never logged.
pub struct ApiKeySecret {
    id: KeyId,
    secret: String,
}

/// The text does not have the shape of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not an API key")]
pub struct ParseApiKeyError;

/// A key as stored and listed.
#[derive(Debug, Clone)]
pub struct ApiKey {
    /// Public id.
    pub id: String,
    /// Whose key it is.
    pub user_id: UserId,
    /// What the owner calls it.
    pub name: String,
    /// What it allows.
    pub scopes: Scopes,
    /// When it was made.
    pub created_at: DateTime<Utc>,
    /// When it ends by itself.
    pub expires_at: Option<DateTime<Utc>>,
}

impl ApiKey {
    /// Longest name, in characters.
    pub const MAX_NAME: usize = 100;
}

impl KeyId {
    /// Checks the shape of an id.
    pub fn parse(text: &str) -> Result<Self, ParseApiKeyError> {
        let ok = text.len() == ID_LENGTH && text.bytes().all(|b| b.is_ascii_alphanumeric());
        if ok { Ok(Self(text.to_owned())) } else { Err(ParseApiKeyError) }
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl ApiKeySecret {
    /// Draws a new key. Fails only when the operating system has no randomness to give.
    pub fn generate() -> Result<Self, rand::rngs::SysError> {
        let mut id = String::with_capacity(ID_LENGTH);
        while id.len() < ID_LENGTH {
            let mut byte = [0_u8; 1];
            SysRng.try_fill_bytes(&mut byte)?;
            // 248 = 4 × 62: rejecting the rest keeps the draw uniform.
            if let [byte @ ..248] = byte
                && let Some(letter) = ID_ALPHABET.get(usize::from(byte % 62))
            {
                id.push(char::from(*letter));
            }
        }
        let mut secret = [0_u8; 32];
        SysRng.try_fill_bytes(&mut secret)?;
        Ok(Self { id: KeyId(id), secret: URL_SAFE_NO_PAD.encode(secret) })
    }

    /// Takes a presented key apart.
    pub fn parse(text: &str) -> Result<Self, ParseApiKeyError> {
        let (id, secret) = text
            .strip_prefix(PREFIX)
            .and_then(|rest| rest.split_once('_'))
            .ok_or(ParseApiKeyError)?;
        let secret_ok = secret.len() == SECRET_LENGTH
            && secret.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
        if !secret_ok {
            return Err(ParseApiKeyError);
        }
        Ok(Self { id: KeyId::parse(id)?, secret: secret.to_owned() })
    }

    /// The public part.
    pub fn id(&self) -> &KeyId {
        &self.id
    }

    /// What is stored of the secret.
    pub fn hash(&self) -> SecretHash {
        SecretHash(Sha256::digest(self.secret.as_bytes()).into())
    }

    /// The whole key, for the one time that it is shown.
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
        let again = ApiKeySecret::parse(&text).unwrap();
        assert_eq!(again.id(), key.id());
        assert!(again.hash().matches(key.hash().as_bytes()));
        assert!(!ApiKeySecret::generate().unwrap().hash().matches(key.hash().as_bytes()));
        assert!(!format!("{key:?}").contains(&text[13..]));
    }

    #[test]
    fn odd_keys_are_refused() {
        let good = ApiKeySecret::generate().unwrap().reveal();
        let short = &good[..good.len() - 1];
        for bad in
            ["", "lnt_", "lnt_a_b", short, &good.replacen("lnt", "lnx", 1), &format!("{good} ")]
        {
            assert!(ApiKeySecret::parse(bad).is_err(), "{bad}");
        }
    }
}
