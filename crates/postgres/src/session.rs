//! Sessions of one client, and connections through a pooler that shares sessions.
//!
//! A pooler in transaction mode, such as PgBouncer, gives a server connection to a client for one transaction. Then:
//!
//! * A lock of a session would stay behind in a session that another client continues. Code that needs a session
//!   connects with [`connect_session`] to `postgres.direct_url`.
//! * The pooler sets the parameters of its server connections ([`connect_query`]), because no client can. Each new
//!   connection verifies them ([`verify_pooled`]).
//! * The pooler renames prepared statements, so that the names of two clients never collide.

use sqlx::{Connection as _, PgConnection, Row as _, postgres::PgConnectOptions};

/// The parameter by which a session proves that it is of one client.
const NONCE: &str = "linnet.session";
const FIND_NONCE: &str = "SELECT current_setting('linnet.session', true)";
/// The error of PgBouncer for a client that sends other parameters than it tracks.
const REFUSED_PARAMETER: &str = "unsupported startup parameter";
/// `SQLSTATE` of a prepared statement that exists already, or does not exist.
const OTHERS_STATEMENT: [&str; 2] = ["42P05", "26000"];

/// The values of these parameters, and whether statements have the names that sqlx gives to them.
const SESSION: &str = r"SELECT parameter.name, COALESCE(setting, current_setting(parameter.name, true)),
        EXISTS (SELECT FROM pg_prepared_statements WHERE name LIKE 'sqlx\_s\_%')
   FROM unnest($1::text[]) AS parameter (name) LEFT JOIN pg_settings USING (name)";

/// A parameter of a session, with its value in the unit of `pg_settings`.
pub type SessionParameter = (&'static str, u64);

/// A connection that cannot be used, because of a pooler.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PoolerFault {
    /// The session may be another client's as well.
    #[error(
        "a connection pooler shares this session with other clients; set postgres.direct_url to a URL without the \
         pooler"
    )]
    Shared,
    /// The pooler forwards the names of prepared statements as they are.
    #[error(
        "the server is reached without a pooler, or the pooler does not rename prepared statements; PgBouncer needs \
         release 1.21, pool_mode = transaction and max_prepared_statements > 0"
    )]
    PreparedStatements,
    /// The pooler's sessions have other parameters.
    #[error(
        "the pooler's sessions have other parameters ({names}); set connect_query of PgBouncer to: {expected}"
    )]
    Parameters {
        /// The parameters that differ.
        names: String,
        /// The statements that set all of them.
        expected: String,
    },
}

impl PoolerFault {
    /// The fault behind an error, if it is one.
    pub fn find(error: &sqlx::Error) -> Option<Self> {
        match error {
            sqlx::Error::Configuration(reason) => reason.downcast_ref::<Self>().cloned(),
            sqlx::Error::Database(error) if error.message().starts_with(REFUSED_PARAMETER) => {
                Some(Self::Shared)
            }
            _ => None,
        }
    }
}

impl From<PoolerFault> for sqlx::Error {
    fn from(fault: PoolerFault) -> Self {
        Self::Configuration(fault.into())
    }
}

/// Connects, and verifies that the session is of this client alone: a pooler that shares sessions does not forward the
/// client's own parameters.
///
/// # Errors
/// [`PoolerFault::Shared`] in the error's source, or the connection failed.
pub async fn connect_session(options: &PgConnectOptions) -> Result<PgConnection, sqlx::Error> {
    let nonce = format!("{:016x}", rand::random::<u64>());
    let options = options.clone().options([(NONCE, nonce.as_str())]);
    let mut connection = PgConnection::connect_with(&options).await?;
    // The simple protocol also works through a pooler.
    let found = sqlx::raw_sql(FIND_NONCE).fetch_one(&mut connection).await?;
    let found: Option<String> = found.try_get(0)?;
    if found.as_deref() == Some(nonce.as_str()) {
        Ok(connection)
    } else {
        Err(PoolerFault::Shared.into())
    }
}

/// The statements by which a pooler sets these parameters of a server connection, once when it opens it.
pub fn connect_query(parameters: &[SessionParameter]) -> String {
    let statements: Vec<String> =
        parameters.iter().map(|(name, value)| format!("SET {name} = {value}")).collect();
    statements.join("; ")
}

/// Options of a connection to a pooler, which refuses parameters that it does not track.
pub fn pooled_options(options: PgConnectOptions) -> PgConnectOptions {
    options.extra_float_digits(None)
}

/// Checks that the pooler renames prepared statements, and that its sessions have these parameters.
///
/// # Errors
/// A [`PoolerFault`] in the error's source, or the statement failed.
pub async fn verify_pooled(
    connection: &mut PgConnection,
    parameters: &[SessionParameter],
) -> Result<(), sqlx::Error> {
    let names: Vec<&str> = parameters.iter().map(|(name, _)| *name).collect();
    let rows = sqlx::query_as::<_, (String, Option<String>, bool)>(SESSION).bind(names);
    let rows = match rows.fetch_all(connection).await {
        Err(sqlx::Error::Database(error))
            if error.code().is_some_and(|code| OTHERS_STATEMENT.contains(&code.as_ref())) =>
        {
            return Err(PoolerFault::PreparedStatements.into());
        }
        rows => rows?,
    };
    if rows.iter().any(|(_, _, has_own_names)| *has_own_names) {
        return Err(PoolerFault::PreparedStatements.into());
    }
    let value_of = |wanted: &str| {
        let row = rows.iter().find(|(name, _, _)| name == wanted);
        row.and_then(|(_, value, _)| value.as_deref())
    };
    let differing: Vec<&str> = parameters
        .iter()
        .filter(|(name, value)| value_of(name) != Some(value.to_string().as_str()))
        .map(|(name, _)| *name)
        .collect();
    if differing.is_empty() {
        return Ok(());
    }
    let fault = PoolerFault::Parameters {
        names: differing.join(", "),
        expected: connect_query(parameters),
    };
    Err(fault.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statements_of_a_pooler_need_no_quotes() {
        let parameters = [("statement_timeout", 2_000), ("linnet.links_per_user", 0)];
        let expected = "SET statement_timeout = 2000; SET linnet.links_per_user = 0";
        assert_eq!(connect_query(&parameters), expected);
    }

    #[test]
    fn fault_is_found_in_its_error() {
        let error = sqlx::Error::from(PoolerFault::Shared);
        assert_eq!(PoolerFault::find(&error), Some(PoolerFault::Shared));
        assert_eq!(PoolerFault::find(&sqlx::Error::PoolTimedOut), None);
    }
}
