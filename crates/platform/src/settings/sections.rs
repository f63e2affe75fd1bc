//! The sections that every process reads.

use std::{path::PathBuf, time::Duration};

use linnet_tls::CaFile;
use redis::ConnectionAddr;
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};

use super::{Problems, optional_path, redacted};
use crate::{
    redis_keys::KeyLayout,
    redis_master::SharedMasterWatch,
    redis_target::{self, RedisTarget, VoterKind},
};

const WITHOUT_SENTINELS: &str =
    "must be empty unless redis.url begins with redis+sentinel:// or rediss+sentinel://";

/// Section `redis`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RedisSettings {
    /// `redis://[user:password@]host:port/db`, or `rediss://…` for TLS. With sentinels
    /// `redis+sentinel://[user:password@]sentinel:port,…/name/db`, or `rediss+sentinel://…`. For a Redis Cluster
    /// `redis+cluster://[user:password@]node:port,…`, or `rediss+cluster://…`.
    #[serde(serialize_with = "redacted")]
    pub url: SecretString,
    /// User of the sentinels; empty for their default user.
    pub sentinel_username: String,
    /// Password of the sentinels; empty if they need none.
    #[serde(serialize_with = "redacted")]
    pub sentinel_password: SecretString,
    /// The CAs to trust with `rediss://`, `rediss+sentinel://` and `rediss+cluster://`, in PEM format. Without a file, the
    /// public CAs that browsers trust.
    #[serde(deserialize_with = "optional_path")]
    pub ca_file: Option<PathBuf>,
    /// Timeout for opening a connection, in milliseconds.
    pub connect_timeout_ms: u64,
    /// Timeout for the response to a command, in milliseconds.
    pub response_timeout_ms: u64,
    /// The master that the sentinels or nodes name. All clones follow it together.
    #[serde(skip)]
    pub master: SharedMasterWatch,
}

impl Default for RedisSettings {
    fn default() -> Self {
        Self {
            url: "redis://127.0.0.1:6379/0".into(),
            sentinel_username: String::new(),
            sentinel_password: SecretString::default(),
            ca_file: None,
            connect_timeout_ms: 500,
            response_timeout_ms: 250,
            master: SharedMasterWatch::default(),
        }
    }
}

impl RedisSettings {
    /// Checks the URL, the CA file and the ranges.
    pub fn validate(&self, problems: &mut Problems) {
        match RedisTarget::parse(self.url.expose_secret()) {
            Err(error) => problems.add("redis.url", error.to_string()),
            Ok(RedisTarget::Server(info)) => {
                match info.addr() {
                    ConnectionAddr::TcpTls { insecure: true, .. } => {
                        problems.add("redis.url", "must not end with #insecure; set redis.ca_file");
                    }
                    ConnectionAddr::TcpTls { .. } => {}
                    _ => self.require_no_ca_file(problems),
                }
                self.require_no_sentinel_login(problems);
            }
            Ok(RedisTarget::Voters(target)) => {
                if !target.has_tls {
                    self.require_no_ca_file(problems);
                }
                if target.kind == VoterKind::Nodes {
                    self.require_no_sentinel_login(problems);
                } else {
                    problems.require(
                        self.sentinel_username.is_empty() || !self.sentinel_password().is_empty(),
                        "redis.sentinel_password",
                        "must be set if redis.sentinel_username is set",
                    );
                }
            }
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

    fn require_no_ca_file(&self, problems: &mut Problems) {
        problems.require(
            self.ca_file.is_none(),
            "redis.ca_file",
            "must be empty unless redis.url begins with rediss://, rediss+sentinel:// or rediss+cluster://",
        );
    }

    fn require_no_sentinel_login(&self, problems: &mut Problems) {
        let is_empty = self.sentinel_username.is_empty();
        problems.require(is_empty, "redis.sentinel_username", WITHOUT_SENTINELS);
        let is_empty = self.sentinel_password().is_empty();
        problems.require(is_empty, "redis.sentinel_password", WITHOUT_SENTINELS);
    }

    /// How the keys of this Redis are named.
    pub fn key_layout(&self) -> KeyLayout {
        redis_target::key_layout(self.url.expose_secret())
    }

    /// [`Self::sentinel_password`] as text.
    pub(crate) fn sentinel_password(&self) -> &str {
        self.sentinel_password.expose_secret()
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
