//! Single connections to the primary, for commands that need one.

use std::{fmt, io, time::Duration};

use sqlx::{PgConnection, postgres::PgConnectOptions};
use tokio::time::timeout;

use crate::{PoolerFault, PostgresSettings, connect_session, tls_fault::tls_fault};

use super::name_of;

/// No host of `postgres.url` has accepted the connection.
#[derive(Debug)]
pub struct NoPrimary(Vec<HostFailure>);

/// Why a host was not used.
#[derive(Debug)]
pub struct HostFailure {
    /// The host, with its port.
    pub host: String,
    /// The reason.
    pub error: sqlx::Error,
}

impl NoPrimary {
    /// The reasons, one for each host.
    pub fn failures(&self) -> &[HostFailure] {
        &self.0
    }
}

impl fmt::Display for NoPrimary {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let [only] = self.failures() {
            return only.write_reason(formatter);
        }
        formatter.write_str("no host accepts writes")?;
        for (number, failure) in self.failures().iter().enumerate() {
            let separator = if number == 0 { ": " } else { "; " };
            write!(formatter, "{separator}{}: ", failure.host)?;
            failure.write_reason(formatter)?;
        }
        Ok(())
    }
}

impl std::error::Error for NoPrimary {}

impl HostFailure {
    /// The reason in words, with the error in brackets.
    fn write_reason(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (tls_fault(&self.error), PoolerFault::find(&self.error)) {
            (Some(fault), _) => write!(formatter, "{fault} ({})", self.error),
            (None, Some(fault)) => write!(formatter, "{fault}"),
            (None, None) => write!(formatter, "{}", self.error),
        }
    }
}

impl PostgresSettings {
    /// Opens a session of its own, without a pooler, at the first host that can be used; each has `host_timeout`.
    /// `adjust` may change the options.
    ///
    /// # Errors
    /// No host accepted the connection, or the settings are invalid.
    pub async fn connect(
        &self,
        host_timeout: Duration,
        adjust: impl Fn(PgConnectOptions) -> PgConnectOptions,
    ) -> Result<PgConnection, NoPrimary> {
        let direct = self.direct();
        let hosts = direct.connect_options().map_err(|error| {
            NoPrimary(vec![HostFailure { host: "postgres.url".to_owned(), error }])
        })?;
        let mut failures = Vec::new();
        for options in hosts {
            let host = name_of(&options);
            let options = adjust(options);
            let attempt = async {
                let mut connection = connect_session(&options).await?;
                if direct.follows_primary() {
                    verify_accepts_writes(&mut connection).await?;
                }
                Ok(connection)
            };
            let error = match timeout(host_timeout, attempt).await {
                Ok(Ok(connection)) => return Ok(connection),
                Ok(Err(error)) => error,
                Err(_) => {
                    let reason = format!("no connection within {} s", host_timeout.as_secs());
                    sqlx::Error::Io(io::Error::new(io::ErrorKind::TimedOut, reason))
                }
            };
            failures.push(HostFailure { host, error });
        }
        Err(NoPrimary(failures))
    }
}

/// Checks that the server is no standby and not read-only, as `target_session_attrs=read-write` of libpq does.
pub(crate) async fn verify_accepts_writes(
    connection: &mut PgConnection,
) -> Result<(), sqlx::Error> {
    // The simple protocol also works through a pooler.
    sqlx::raw_sql(
        "DO $$ BEGIN
            IF pg_is_in_recovery() OR current_setting('transaction_read_only')::boolean THEN
                RAISE read_only_sql_transaction USING MESSAGE = 'the server accepts no writes';
            END IF;
         END $$",
    )
    .execute(connection)
    .await?;
    Ok(())
}
