//! Section `postgres` of the settings.

use std::{path::PathBuf, time::Duration};

use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use sqlx::postgres::PgConnectOptions;

use linnet_platform::settings::{Problems, optional_path, redacted};
use linnet_tls::CaFile;

use crate::server_url::ServerUrl;

/// Section `postgres`. It bounds every wait for the database.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PostgresSettings {
    /// `postgres://user:password@host:port/database`. `?sslmode=` selects TLS. Several hosts, `a:5432,b:5432`, need
    /// `target_session_attrs=read-write`.
    #[serde(serialize_with = "redacted")]
    pub url: SecretString,
    /// The same server without the pooler, in the form of [`Self::url`]. It is set if and only if [`Self::url`] leads to a
    /// pooler in transaction mode. Locks, migrations and commands use it.
    #[serde(serialize_with = "redacted")]
    pub direct_url: SecretString,
    /// A standby for statistics, lists and exports, in the form of [`Self::url`] with one host; empty if there is none.
    #[serde(serialize_with = "redacted")]
    pub replica_url: SecretString,
    /// The lag from which the replica is not used, in milliseconds.
    pub replica_max_lag_ms: u64,
    /// CAs to trust besides those of browsers, in PEM format. If it is set and the URL has no `sslmode`, the mode is
    /// `verify-full`.
    #[serde(deserialize_with = "optional_path")]
    pub ca_file: Option<PathBuf>,
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
    /// `links.limit_settle_ms`, which a trigger reads in the same way.
    #[serde(skip)]
    pub limit_settle_ms: u32,
    /// The quotas, which triggers and statements read.
    #[serde(skip)]
    pub quotas: RowQuotas,
}

/// The most rows and bytes of one owner, by kind; 0 is no quota.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RowQuotas {
    /// `links.per_user`.
    pub links: u32,
    /// `links.events_per_user`.
    pub events: u32,
    /// `shortener.idempotency_keys_per_user`.
    pub idempotency_keys: u32,
    /// `links.bytes_per_user`.
    pub link_bytes: u64,
    /// `links.event_bytes_per_user`.
    pub event_bytes: u64,
    /// `shortener.idempotency_key_bytes_per_user`.
    pub idempotency_key_bytes: u64,
}

impl Default for PostgresSettings {
    fn default() -> Self {
        Self {
            url: "postgres://linnet@127.0.0.1:5432/linnet".into(),
            direct_url: "".into(),
            replica_url: "".into(),
            replica_max_lag_ms: 10_000,
            ca_file: None,
            max_connections: 20,
            acquire_timeout_ms: 1_000,
            statement_timeout_ms: 2_000,
            lock_timeout_ms: 1_000,
            idle_in_transaction_timeout_ms: 5_000,
            slow_statement_ms: 100,
            hold_codes_days: 90,
            limit_settle_ms: 2_000,
            quotas: RowQuotas::default(),
        }
    }
}

impl PostgresSettings {
    /// The lowest `max_connections` that gives each pool at least one connection.
    pub const MIN_CONNECTIONS: u32 = 8;

    /// Checks the URL and the ranges.
    pub fn validate(&self, problems: &mut Problems) {
        self.primary_url().validate(problems);
        if let Some(url) = self.replica() {
            url.validate(problems);
            problems.require(
                url.names_one_host(),
                url.key,
                "must name one host, without target_session_attrs",
            );
        }
        if let Some(url) = self.direct_server() {
            url.validate(problems);
            // A pooler outlives its servers: the connection of a client would lead to another one unnoticed.
            problems.require(
                self.primary_url().names_one_host(),
                "postgres.url",
                "must name one host, without target_session_attrs, if there is postgres.direct_url",
            );
            problems.require(
                self.replica().is_none(),
                "postgres.replica_url",
                "must be empty if there is postgres.direct_url",
            );
        }
        problems.require_within(
            "postgres.replica_max_lag_ms",
            self.replica_max_lag_ms,
            100..=30_000,
        );
        if let Some(Err(error)) = self.ca_file.as_deref().map(CaFile::read) {
            problems.add("postgres.ca_file", error.to_string());
        }
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

    /// [`Self::statement_timeout_ms`] as a duration.
    pub fn statement_timeout(&self) -> Duration {
        Duration::from_millis(self.statement_timeout_ms)
    }

    /// [`Self::replica_max_lag_ms`] as a duration.
    pub(crate) fn replica_max_lag(&self) -> Duration {
        Duration::from_millis(self.replica_max_lag_ms)
    }

    fn primary_url(&self) -> ServerUrl<'_> {
        let ca_file = self.ca_file.as_deref();
        ServerUrl { key: "postgres.url", url: self.url.expose_secret(), ca_file }
    }

    fn replica(&self) -> Option<ServerUrl<'_>> {
        let (url, ca_file) = (self.replica_url.expose_secret(), self.ca_file.as_deref());
        (!url.is_empty()).then_some(ServerUrl { key: "postgres.replica_url", url, ca_file })
    }

    fn direct_server(&self) -> Option<ServerUrl<'_>> {
        let (url, ca_file) = (self.direct_url.expose_secret(), self.ca_file.as_deref());
        (!url.is_empty()).then_some(ServerUrl { key: "postgres.direct_url", url, ca_file })
    }

    /// Whether [`Self::url`] leads to a pooler in transaction mode.
    pub fn is_pooled(&self) -> bool {
        !self.direct_url.expose_secret().is_empty()
    }

    /// These settings without the pooler, for code that needs sessions.
    #[must_use]
    pub fn direct(&self) -> Self {
        let mut direct = self.clone();
        if self.is_pooled() {
            direct.url = std::mem::take(&mut direct.direct_url);
        }
        direct
    }

    /// Whether connections are made to the primary of several hosts, or only to a server that accepts writes.
    pub(crate) fn follows_primary(&self) -> bool {
        self.primary_url().hosts().is_ok_and(|hosts| hosts.is_primary_required)
    }

    /// The options of a connection to each host.
    pub fn connect_options(&self) -> Result<Vec<PgConnectOptions>, sqlx::Error> {
        self.primary_url().connect_options()
    }

    /// The options of a connection to the replica, if there is one.
    pub fn replica_options(&self) -> Result<Option<PgConnectOptions>, sqlx::Error> {
        let options = self.replica().map(|url| url.connect_options()).transpose()?;
        Ok(options.and_then(|options| options.into_iter().next()))
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use linnet_platform::settings::load_from;

    use super::*;

    #[derive(Default, Serialize, Deserialize)]
    #[serde(default)]
    struct Only {
        postgres: PostgresSettings,
    }

    impl linnet_platform::settings::Settings for Only {
        fn validate(&self, problems: &mut Problems) {
            self.postgres.validate(problems);
        }
    }

    fn problems(query: &str, ca_file: &str) -> String {
        let environment = [
            (
                "LINNET__POSTGRES__URL".to_owned(),
                format!("postgres://linnet@db.example/linnet{query}"),
            ),
            ("LINNET__POSTGRES__CA_FILE".to_owned(), ca_file.to_owned()),
        ];
        match load_from::<Only>(None, &environment.into()) {
            Ok(_) => String::new(),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn pooler_has_one_host_and_no_replica() {
        let problems = |url: &str, replica: &str| {
            let mut problems = Problems::default();
            let settings = PostgresSettings {
                url: url.into(),
                replica_url: replica.into(),
                direct_url: "postgres://linnet@a,b/linnet?target_session_attrs=read-write".into(),
                ..Default::default()
            };
            settings.validate(&mut problems);
            format!("{problems:?}")
        };
        let pooler = "postgres://linnet@pooler:6432/linnet";
        assert_eq!(problems(pooler, ""), format!("{:?}", Problems::default()));
        let several = problems("postgres://linnet@a,b/linnet?target_session_attrs=primary", "");
        assert!(several.contains("must name one host"), "{several}");
        assert!(problems(pooler, pooler).contains("must be empty"), "the replica");
    }

    #[test]
    fn commands_leave_the_pooler_out() {
        let settings = PostgresSettings {
            direct_url: "postgres://direct/linnet".into(),
            ..Default::default()
        };
        assert!(settings.is_pooled());
        let direct = settings.direct();
        assert_eq!(direct.url.expose_secret(), "postgres://direct/linnet");
        assert!(!direct.is_pooled() && !direct.direct().is_pooled());
    }

    #[test]
    fn tls_modes_are_those_of_libpq_without_allow() {
        for mode in ["disable", "prefer", "require", "verify-ca", "verify-full"] {
            assert_eq!(problems(&format!("?sslmode={mode}"), ""), "");
        }
        for mode in ["allow", "verify_full", "on", ""] {
            let problems = problems(&format!("?sslmode={mode}"), "");
            assert!(problems.contains("postgres.url"), "{mode}: {problems}");
        }
    }

    #[test]
    fn a_ca_file_is_checked_wherever_it_is_named() {
        let found = problems("?sslmode=verify-full", "/nonexistent/ca.pem");
        assert!(
            found.contains("postgres.ca_file") && found.contains("must be a readable file"),
            "{found}"
        );
        let found = problems("?sslmode=verify-full&sslrootcert=/nonexistent/ca.pem", "");
        assert!(
            found.contains("postgres.url") && found.contains("sslrootcert must be a readable file"),
            "{found}"
        );
        assert_eq!(problems("?sslmode=verify-full&sslrootcert=system", ""), "");
        // Both files, and a mode that verifies nothing: all problems at once.
        let found = problems("?sslmode=require&sslrootcert=/nonexistent/a", "/nonexistent/b");
        assert!(found.contains("4 problem(s)"), "{found}");
    }

    #[test]
    fn each_host_has_its_own_name_in_every_form() {
        let settings = PostgresSettings {
            url: "postgres://u@a:1,[::1]:2,%2Frun%2Fc/x?target_session_attrs=read-write".into(),
            ..Default::default()
        };
        let options = settings.connect_options().unwrap();
        assert_eq!((options[0].get_host(), options[0].get_port()), ("a", 1));
        assert_eq!((options[1].get_host(), options[1].get_port()), ("::1", 2));
        assert_eq!(options[2].get_socket().unwrap(), Path::new("/run/c"));
        assert!(settings.follows_primary());
    }

    #[test]
    fn without_a_mode_a_ca_file_means_full_verification() {
        let settings = |url: &str| PostgresSettings { url: url.into(), ..Default::default() };
        let mode = |settings: &PostgresSettings| {
            format!("{:?}", settings.connect_options().unwrap()[0].get_ssl_mode())
        };
        assert_eq!(mode(&settings("postgres://db.example/x")), "Prefer");
        assert_eq!(mode(&settings("postgres://db.example/x?sslmode=disable")), "Disable");
        let file = tempfile::NamedTempFile::new().unwrap();
        let pem = rcgen::generate_simple_self_signed(["db.example".to_owned()]).unwrap().cert.pem();
        std::fs::write(file.path(), pem).unwrap();
        let mut settings = settings("postgres://db.example/x");
        settings.ca_file = Some(file.path().to_owned());
        assert_eq!(mode(&settings), "VerifyFull");
    }
}
