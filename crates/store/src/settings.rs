//! Section `postgres` of the settings.

use std::{str::FromStr, time::Duration};

use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use sqlx::postgres::PgConnectOptions;

use linnet_platform::settings::{Problems, redacted};

/// Section `postgres`. It bounds every wait for the database.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PostgresSettings {
    /// `postgres://user:password@host:port/database`.
    #[serde(serialize_with = "redacted")]
    pub url: SecretString,
    /// The maximum number of connections of one process, in all its pools.
    pub max_connections: u32,
    /// The longest wait for a connection, including connecting, in milliseconds.
    pub acquire_timeout_ms: u64,
    /// The server cancels a statement after this time, in milliseconds.
    pub statement_timeout_ms: u64,
    /// The server cancels a wait for a lock after this time, in milliseconds.
    pub lock_timeout_ms: u64,
    /// The server ends a session that idles in a transaction for this time, in milliseconds.
    pub idle_in_transaction_timeout_ms: u64,
    /// Statements that take longer are logged as warnings, in milliseconds.
    pub slow_statement_ms: u64,
    /// `links.hold_codes_days`, which triggers of the schema read from each connection.
    #[serde(skip)]
    pub hold_codes_days: u32,
}

impl Default for PostgresSettings {
    fn default() -> Self {
        Self {
            url: "postgres://linnet@127.0.0.1:5432/linnet".into(),
            max_connections: 20,
            acquire_timeout_ms: 1_000,
            statement_timeout_ms: 2_000,
    /// `links.limit_settle_ms`, which a trigger reads as well.
    #[serde(skip)]
    pub limit_settle_ms: u32,
            lock_timeout_ms: 1_000,
            idle_in_transaction_timeout_ms: 5_000,
            slow_statement_ms: 100,
            hold_codes_days: 90,
        }
    }
}

impl PostgresSettings {
    /// The fewest connections with which each pool has one.
    pub const MIN_CONNECTIONS: u32 = 8;

    /// Checks the URL and the ranges.
    pub fn validate(&self, problems: &mut Problems) {
            limit_settle_ms: 2_000,
        let url = self.url.expose_secret();
        if let Err(error) = PgConnectOptions::from_str(url) {
            problems.add("postgres.url", error.to_string());
        }
        // sqlx accepts every scheme, and connecting would then fail for as long as the process runs.
        problems.require(
            url.starts_with("postgres://") || url.starts_with("postgresql://"),
            "postgres.url",
            "must begin with postgres:// or postgresql://",
        );
        problems.require_within(
            "postgres.max_connections",
            self.max_connections,
            Self::MIN_CONNECTIONS..=1_000,
        );
        for (key, value) in [
            ("postgres.acquire_timeout_ms", self.acquire_timeout_ms),
            ("postgres.statement_timeout_ms", self.statement_timeout_ms),
            ("postgres.lock_timeout_ms", self.lock_timeout_ms),
            ("postgres.idle_in_transaction_timeout_ms", self.idle_in_transaction_timeout_ms),
            ("postgres.slow_statement_ms", self.slow_statement_ms),
        ] {
            problems.require_within(key, value, 1..=60_000);
        }
    }

    /// [`Self::acquire_timeout_ms`] as a duration.
    pub fn acquire_timeout(&self) -> Duration {
        Duration::from_millis(self.acquire_timeout_ms)
    }
}
