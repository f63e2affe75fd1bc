//! Sections that gateway and shortener both read.

use linnet_platform::settings::{Problems, redacted};
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use subtle::ConstantTimeEq;

/// Section `public`: what the world calls this service.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PublicSettings {
    /// Origin of every short URL, `http(s)://host[:port]`. The `Host` header decides nothing.
    pub base_url: String,
    /// Further host names of this service; a link to one of them is refused, since it would loop.
    #[serde(deserialize_with = "linnet_platform::settings::comma_list")]
    pub own_hosts: Vec<String>,
}

impl Default for PublicSettings {
    fn default() -> Self {
        Self { base_url: "http://localhost:8080".into(), own_hosts: Vec::new() }
    }
}

impl PublicSettings {
    /// Checks that `base_url` looks like an origin; the shortener parses it fully.
    pub fn validate(&self, problems: &mut Problems) {
        let scheme = self
            .base_url
            .strip_prefix("https://")
            .or_else(|| self.base_url.strip_prefix("http://"));
        let ok = scheme
            .is_some_and(|rest| !rest.is_empty() && !rest.contains(['/', '?', '#', '@', ' ']));
        problems.require(
            ok,
            "public.base_url",
            "must be http(s)://host[:port] without a path or trailing slash",
        );
    }
}

/// Section `service`: how the processes of one installation know each other.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ServiceSettings {
    /// Shared secret of the gateway and the shortener's internal API, at least 32 characters.
    #[serde(serialize_with = "redacted")]
    pub token: SecretString,
}

impl ServiceSettings {
    /// The header that carries the token.
    pub const TOKEN_HEADER: &'static str = "x-linnet-service-token";

    /// Shortest accepted token, in bytes.
    pub const MIN_TOKEN_BYTES: usize = 32;

    /// Checks the token's length and that it can stand in a header.
    pub fn validate(&self, problems: &mut Problems) {
        let token = self.token.expose_secret();
        problems.require(
            token.len() >= Self::MIN_TOKEN_BYTES && token.bytes().all(|b| b.is_ascii_graphic()),
            "service.token",
            "must be at least 32 printable ASCII characters",
        );
    }

    /// Compares in constant time (for tokens of equal length).
    pub fn accepts(&self, presented: &[u8]) -> bool {
        self.token.expose_secret().as_bytes().ct_eq(presented).into()
    }
}
