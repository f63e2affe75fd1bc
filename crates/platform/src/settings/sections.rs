//! Sections that more than one process reads.

use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use subtle::ConstantTimeEq;

use super::{Problems, redacted};

/// Section `public`: what the world calls this service.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PublicSettings {
    /// Origin of every short URL, `http(s)://host[:port]`. The `Host` header decides nothing.
    pub base_url: String,
    /// Further host names of this service; a link to one of them is refused, since it would loop.
    #[serde(deserialize_with = "super::comma_list")]
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

/// Section `redis`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RedisSettings {
    /// `redis://[user:password@]host:port/db`.
    #[serde(serialize_with = "redacted")]
    pub url: SecretString,
    /// Longest wait for a connection, in milliseconds.
    pub connect_timeout_ms: u64,
    /// Longest wait for an answer, in milliseconds.
    pub response_timeout_ms: u64,
}

impl Default for RedisSettings {
    fn default() -> Self {
        Self {
            url: "redis://127.0.0.1:6379/0".into(),
            connect_timeout_ms: 500,
            response_timeout_ms: 250,
        }
    }
}

impl RedisSettings {
    /// Checks the URL and the ranges.
    pub fn validate(&self, problems: &mut Problems) {
        if let Err(error) = redis::Client::open(self.url.expose_secret()) {
            problems.add("redis.url", error.to_string());
        }
        for (key, value) in [
            ("redis.connect_timeout_ms", self.connect_timeout_ms),
            ("redis.response_timeout_ms", self.response_timeout_ms),
        ] {
            problems.require_within(key, value, 1..=10_000);
        }
    }

    /// [`Self::connect_timeout_ms`] as a duration.
    pub fn connect_timeout(&self) -> Duration {
        Duration::from_millis(self.connect_timeout_ms)
    }

    /// [`Self::response_timeout_ms`] as a duration.
    pub fn response_timeout(&self) -> Duration {
        Duration::from_millis(self.response_timeout_ms)
    }
}

/// Section `shutdown`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ShutdownSettings {
    /// How long a process goes on accepting after it turned unready, in milliseconds. Longer than
    /// nginx's `keepalive_timeout` to upstreams (1 s), so that no idle connection is left to race.
    pub drain_ms: u64,
    /// Longest wait for running requests after that, in seconds.
    pub grace_s: u64,
}

impl Default for ShutdownSettings {
    fn default() -> Self {
        Self { drain_ms: 2_500, grace_s: 15 }
    }
}

impl ShutdownSettings {
    /// Checks that a stop fits the 30 s that supervisors give.
    pub fn validate(&self, problems: &mut Problems) {
        problems.require(self.drain_ms <= 10_000, "shutdown.drain_ms", "must be at most 10000");
        problems.require_within("shutdown.grace_s", self.grace_s, 1..=25);
    }
}
