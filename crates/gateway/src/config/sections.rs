//! The settings sections that only the gateway reads.

use std::{num::NonZeroU32, time::Duration};

use linnet_platform::{listener::Address, settings::Problems};
use linnet_protocol::routes::MAX_BODY_BYTES;
use serde::{Deserialize, Serialize};

use super::values::{Network, addresses, networks, optional_address};

/// Permissions of a client without an API key.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Anonymous {
    /// Nothing (the default).
    #[default]
    Off,
    /// Create links.
    Create,
    /// Everything; for trials on a private machine.
    Open,
}

/// Section `gateway`: listeners and requests.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct GatewaySettings {
    /// Address of the API and the web pages, `host:port` or `unix:/path`.
    pub listen: Address,
    /// Address of `/metrics`, `/livez` and `/readyz`; keep it private.
    pub admin_listen: Address,
    /// Address at which nginx reports the requests that it refuses: `host:port` (UDP) or `unix:/path`
    /// (datagrams). Without it, they are not counted.
    #[serde(deserialize_with = "optional_address")]
    pub refusals_listen: Option<Address>,
    /// Server threads; 0 means one for each core.
    pub server_threads: usize,
    /// Permissions of a client without an API key.
    pub anonymous: Anonymous,
    /// Peers whose `X-Real-IP` is trusted, in addition to loopback and unix sockets.
    #[serde(deserialize_with = "networks")]
    pub trusted_peers: Vec<Network>,
    /// Idle timeout of a connection, in seconds.
    pub keep_alive_s: u64,
    /// Connections for each server thread.
    pub max_connections: usize,
    /// Memory of the process, in bytes. The other settings must fit into it. 0 means the limit of the
    /// process's control group.
    pub memory_bytes: u64,
    /// Longest time from a request's head to the end of its response, in milliseconds. Event
    /// streams, exports and bulk uploads have an idle timeout instead.
    pub request_timeout_ms: u64,
}

impl Default for GatewaySettings {
    fn default() -> Self {
        Self {
            listen: Address::Tcp("127.0.0.1:8081".into()),
            admin_listen: Address::Tcp("127.0.0.1:9081".into()),
            refusals_listen: None,
            server_threads: 0,
            anonymous: Anonymous::Off,
            trusted_peers: Vec::new(),
            keep_alive_s: 75,
            max_connections: 10_000,
            memory_bytes: 0,
            request_timeout_ms: 10_000,
        }
    }
}

impl GatewaySettings {
    pub(super) fn validate(&self, problems: &mut Problems) {
        problems.require_within("gateway.server_threads", self.server_threads, 0..=256);
        problems.require_within("gateway.keep_alive_s", self.keep_alive_s, 1..=3_600);
        problems.require_within("gateway.max_connections", self.max_connections, 1..=100_000);
        let timeout = self.request_timeout_ms;
        problems.require_within("gateway.request_timeout_ms", timeout, 1..=120_000);
    }

    /// [`Self::request_timeout_ms`] as a duration.
    pub fn request_timeout(&self) -> Duration {
        Duration::from_millis(self.request_timeout_ms)
    }
}

/// Section `upstream`: the shorteners and how to call them.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct UpstreamSettings {
    /// Addresses of the shorteners' API listeners. A host name stands for all its addresses.
    #[serde(deserialize_with = "addresses")]
    pub shorteners: Vec<Address>,
    /// Connect timeout, in milliseconds.
    pub connect_timeout_ms: u64,
    /// Timeout for the head of a response, in milliseconds.
    pub response_timeout_ms: u64,
    /// Idle connections of one server thread to one shortener.
    pub max_idle_per_host: usize,
    /// Consecutive failed calls that open a shortener's circuit breaker.
    pub breaker_failures: u32,
    /// How long a circuit breaker stays open, in milliseconds, plus up to half of it as jitter.
    pub breaker_open_ms: u64,
}

impl Default for UpstreamSettings {
    fn default() -> Self {
        Self {
            shorteners: vec![Address::Tcp("127.0.0.1:8083".into())],
            connect_timeout_ms: 500,
            response_timeout_ms: 5_000,
            max_idle_per_host: 128,
            breaker_failures: 5,
            breaker_open_ms: 1_000,
        }
    }
}

impl UpstreamSettings {
    pub(super) fn validate(&self, problems: &mut Problems) {
        problems.require(
            (1..=64).contains(&self.shorteners.len()),
            "upstream.shorteners",
            "must be a list of 1 to 64 addresses",
        );
        for (key, value, max) in [
            ("upstream.connect_timeout_ms", self.connect_timeout_ms, 10_000),
            ("upstream.response_timeout_ms", self.response_timeout_ms, 120_000),
            ("upstream.breaker_open_ms", self.breaker_open_ms, 60_000),
        ] {
            problems.require_within(key, value, 1..=max);
        }
        problems.require_within("upstream.max_idle_per_host", self.max_idle_per_host, 1..=100_000);
        problems.require_within("upstream.breaker_failures", self.breaker_failures, 1..=1_000);
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

/// Section `auth`: the key cache.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AuthSettings {
    /// TTL of a valid key, in milliseconds; at most 1 s while the invalidation bus is stale. A
    /// revocation takes effect within 1 s, whether the bus is live or stale.
    pub cache_ttl_ms: u64,
    /// TTL of a key that is unknown, revoked or expired, in milliseconds; at most 1 s while the bus is
    /// stale.
    pub negative_ttl_ms: u64,
    /// Cached keys, valid and invalid together.
    pub cache_entries: usize,
}

impl Default for AuthSettings {
    fn default() -> Self {
        Self { cache_ttl_ms: 30_000, negative_ttl_ms: 5_000, cache_entries: 10_000 }
    }
}

impl AuthSettings {
    pub(super) fn validate(&self, problems: &mut Problems) {
        problems.require_within("auth.cache_ttl_ms", self.cache_ttl_ms, 1..=3_600_000);
        problems.require_within("auth.negative_ttl_ms", self.negative_ttl_ms, 1..=60_000);
        problems.require_within("auth.cache_entries", self.cache_entries, 16..=1_000_000);
    }
}

/// Section `limits`: rate limits and body size.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LimitSettings {
    /// Average rate of one API key, in requests per minute.
    pub key_per_minute: u32,
    /// Burst of one API key, in requests.
    pub key_burst: u32,
    /// Average rate of one user, over all keys, in requests per minute.
    pub user_per_minute: u32,
    /// Burst of one user, over all keys, in requests.
    pub user_burst: u32,
    /// Average rate of one client address without a valid key, in requests per minute.
    pub address_per_minute: u32,
    /// Burst of one client address without a valid key, in requests.
    pub address_burst: u32,
    /// Largest JSON body that the gateway buffers, in bytes; at most [`MAX_BODY_BYTES`], the limit of the routes. It
    /// does not apply to streamed bodies: bulk changes have the limit of their route, and uploads none here.
    pub body_bytes: usize,
    /// Bytes of all request bodies in progress. One user, or one network without a key, can take an
    /// eighth.
    pub body_bytes_in_progress: usize,
}

impl Default for LimitSettings {
    fn default() -> Self {
        Self {
            key_per_minute: 600,
            key_burst: 100,
            user_per_minute: 600,
            user_burst: 100,
            address_per_minute: 120,
            address_burst: 60,
            body_bytes: MAX_BODY_BYTES,
            body_bytes_in_progress: 8 * 1_048_576,
        }
    }
}

impl LimitSettings {
    pub(super) fn validate(&self, problems: &mut Problems) {
        for (key, value) in [
            ("limits.key_per_minute", self.key_per_minute),
            ("limits.key_burst", self.key_burst),
            ("limits.user_per_minute", self.user_per_minute),
            ("limits.user_burst", self.user_burst),
            ("limits.address_per_minute", self.address_per_minute),
            ("limits.address_burst", self.address_burst),
        ] {
            problems.require_within(key, value, 1..=60_000_000);
        }
        // A higher value would have no effect.
        problems.require_within("limits.body_bytes", self.body_bytes, 1_024..=MAX_BODY_BYTES);
        problems.require_within(
            "limits.body_bytes_in_progress",
            self.body_bytes_in_progress,
            1_048_576..=1_024 * 1_048_576,
        );
    }

    /// Rate per minute and burst of a key.
    pub fn key(&self) -> (NonZeroU32, NonZeroU32) {
        pair(self.key_per_minute, self.key_burst)
    }

    /// Rate per minute and burst of a user.
    pub fn user(&self) -> (NonZeroU32, NonZeroU32) {
        pair(self.user_per_minute, self.user_burst)
    }

    /// Rate per minute and burst of an address.
    pub fn address(&self) -> (NonZeroU32, NonZeroU32) {
        pair(self.address_per_minute, self.address_burst)
    }
}

/// The fallback is unreachable, because validation rejects 0.
fn pair(rate: u32, burst: u32) -> (NonZeroU32, NonZeroU32) {
    (
        NonZeroU32::new(rate).unwrap_or(NonZeroU32::MIN),
        NonZeroU32::new(burst).unwrap_or(NonZeroU32::MIN),
    )
}

/// Section `cors`: web origins that may call the API from a browser.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CorsSettings {
    /// Origins (`scheme://host[:port]`), or `*` for all. Empty means none.
    #[serde(deserialize_with = "linnet_platform::settings::comma_list")]
    pub allowed_origins: Vec<String>,
}

impl CorsSettings {
    pub(super) fn validate(&self, problems: &mut Problems) {
        let is_origin = |origin: &String| {
            origin == "*"
                || origin.split_once("://").is_some_and(|(scheme, host)| {
                    matches!(scheme, "http" | "https")
                        && !host.is_empty()
                        && host.bytes().all(|b| b.is_ascii_graphic() && !b"/?#@,".contains(&b))
                })
        };
        problems.require(
            self.allowed_origins.iter().all(is_origin),
            "cors.allowed_origins",
            "must be a list of origins, scheme://host[:port] without a path, or *",
        );
    }
}
