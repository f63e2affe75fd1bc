//! The sections that every process reads.

use std::{path::PathBuf, time::Duration};

use linnet_tls::CaFile;
use redis::{ConnectionAddr, IntoConnectionInfo as _};
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};

use super::{Problems, optional_path, redacted};

/// Section `redis`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RedisSettings {
    /// `redis://[user:password@]host:port/db`, or `rediss://…` for TLS.
    #[serde(serialize_with = "redacted")]
    pub url: SecretString,
    /// The CAs to trust with `rediss://`, in PEM format. Without a file, the public CAs that browsers trust.
    #[serde(deserialize_with = "optional_path")]
    pub ca_file: Option<PathBuf>,
    /// Timeout for opening a connection, in milliseconds.
    pub connect_timeout_ms: u64,
    /// Timeout for the response to a command, in milliseconds.
    pub response_timeout_ms: u64,
}

impl Default for RedisSettings {
    fn default() -> Self {
        Self {
            url: "redis://127.0.0.1:6379/0".into(),
            ca_file: None,
            connect_timeout_ms: 500,
            response_timeout_ms: 250,
        }
    }
}

impl RedisSettings {
    /// Checks the URL, the CA file and the ranges.
    pub fn validate(&self, problems: &mut Problems) {
        let url = self.url.expose_secret();
        match url.into_connection_info() {
            Err(error) => problems.add("redis.url", error.to_string()),
            Ok(info) => match info.addr() {
                ConnectionAddr::TcpTls { insecure: true, .. } => {
                    problems.add("redis.url", "must not end with #insecure; set redis.ca_file");
                }
                ConnectionAddr::TcpTls { .. } => {}
                _ => problems.require(
                    self.ca_file.is_none(),
                    "redis.ca_file",
                    "must be empty unless redis.url begins with rediss://",
                ),
            },
        }
        if let Some(Err(error)) = self.ca_file.as_deref().map(CaFile::read) {
            problems.add("redis.ca_file", error.to_string());
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
    /// Time for which a draining process still accepts connections, in milliseconds. Keep it longer than nginx's
    /// `keepalive_timeout` to upstreams (1 s), so that no idle connection is closed while a request is sent on it.
    pub drain_ms: u64,
    /// Grace period for running requests after that, in seconds.
    pub grace_s: u64,
}

impl Default for ShutdownSettings {
    fn default() -> Self {
        Self { drain_ms: 2_500, grace_s: 15 }
    }
}

impl ShutdownSettings {
    /// Checks that a shutdown fits into the 30 s that supervisors allow.
    pub fn validate(&self, problems: &mut Problems) {
        problems.require_within("shutdown.drain_ms", self.drain_ms, 0..=10_000);
        problems.require_within("shutdown.grace_s", self.grace_s, 1..=25);
    }
}
