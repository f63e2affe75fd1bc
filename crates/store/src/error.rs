//! Database errors, by what callers can do about them.

use linnet_postgres::{PoolerFault, tls_fault};
use sqlx::error::ErrorKind;

use crate::timeouts;

/// A failed database operation.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The database cannot be reached, is starting or stopping, accepts no writes, lacks resources, or did not respond
    /// in time. A retry may succeed.
    #[error("the database is unavailable")]
    Unavailable(#[source] sqlx::Error),
    /// Another transaction held a row or table for longer than the statement may wait, or the two were in a deadlock.
    /// The database works.
    #[error("another transaction holds the row")]
    Locked(#[source] sqlx::Error),
    /// The input violates a constraint of the schema.
    #[error("the input violates a constraint: {0:?}")]
    Conflict(Constraint),
    /// A defect of the code, the schema or the data.
    #[error("a database operation failed")]
    Failed(#[source] sqlx::Error),
}

/// A constraint that input can violate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Constraint {
    /// Another user has the e-mail address.
    EmailTaken,
    /// Another link has the short code.
    CodeTaken,
    /// Another row has the id.
    IdTaken,
    /// The target's host is banned.
    HostBanned,
    /// The owner has as many links as `links.per_user` allows, or as many bytes as `links.bytes_per_user` does.
    LinkQuota,
    /// The user has as many events as `links.events_per_user` allows, or as many bytes as `links.event_bytes_per_user`
    /// does.
    EventQuota,
    /// The user does not exist.
    UserMissing,
    /// The link does not exist.
    LinkMissing,
}

impl Constraint {
    /// The field of the API and the column of imports that violates the constraint.
    pub const fn field(self) -> &'static str {
        match self {
            Self::EmailTaken => "email",
            Self::CodeTaken => "short_code",
            Self::IdTaken => "id",
            Self::HostBanned => "original_url",
            Self::LinkQuota | Self::EventQuota | Self::UserMissing => "user_id",
            Self::LinkMissing => "url_id",
        }
    }

    /// The error code of the field in the API and in imports.
    pub const fn code(self) -> &'static str {
        match self {
            Self::EmailTaken | Self::CodeTaken | Self::IdTaken => "taken",
            Self::HostBanned => "invalid",
            Self::LinkQuota => "too_many_links",
            Self::EventQuota => "too_many_events",
            Self::UserMissing | Self::LinkMissing => "not_found",
        }
    }

    /// The error message of the field in the API and in imports.
    pub const fn message(self) -> &'static str {
        match self {
            Self::EmailTaken => "must be unique; another user has this address",
            Self::CodeTaken => "must be unique; another link has this code",
            Self::IdTaken => "must be unique; another row has this id",
            Self::HostBanned => "must not be on a banned host",
            Self::LinkQuota => "must be a user within `links.per_user` and `links.bytes_per_user`",
            Self::EventQuota => {
                "must be a user within `links.events_per_user` and `links.event_bytes_per_user`"
            }
            Self::UserMissing => "must be an existing user",
            Self::LinkMissing => "must be an existing link",
        }
    }
}

/// Classes of `SQLSTATE` that rows themselves cause: cardinality violation (21), data exception (22), integrity
/// constraint violation (23), program limit exceeded (54), such as the size of an index entry.
const ROW_ERROR_CLASSES: [&str; 4] = ["21", "22", "23", "54"];

/// Classes of `SQLSTATE` for transient errors, which a retry can resolve: connection exception (08), transaction
/// rollback (40), insufficient resources (53), operator intervention (57), system error (58).
const TRANSIENT_CLASSES: [&str; 5] = ["08", "40", "53", "57", "58"];

/// Other transient `SQLSTATE` codes: a server that has become read-only (25006), and sessions and transactions that
/// were ended because they were idle (25P03, 25P04).
const TRANSIENT_CODES: [&str; 3] = ["25006", "25P03", "25P04"];

/// `SQLSTATE` codes of [`StoreError::Locked`]: lock timeout and deadlock. They take precedence over the classes above.
const LOCKED_CODES: [&str; 2] = ["55P03", "40P01"];

/// sqlx's error when the server closes a new connection before it responds to the request for TLS, as a server that is
/// killed does. The buffer for the response is still zero. sqlx appends its source line.
const CLOSED_BEFORE_TLS: &str = "unexpected response from SSLRequest: 0x00";

impl StoreError {
    /// The error of an operation that its caller has given up.
    pub fn timed_out() -> Self {
        Self::Unavailable(sqlx::Error::Io(std::io::ErrorKind::TimedOut.into()))
    }

    /// Whether the rows caused the error, so that a retry would fail too. A missing table, a missing permission or a
    /// changed password are not errors of the rows.
    pub fn refuses_rows(&self) -> bool {
        match self {
            Self::Conflict(_) | Self::Failed(sqlx::Error::Encode(_)) => true,
            Self::Failed(sqlx::Error::Database(database)) => {
                database.code().is_some_and(|code| has_class(&code, &ROW_ERROR_CLASSES))
            }
            Self::Failed(_) | Self::Unavailable(_) | Self::Locked(_) => false,
        }
    }

    /// The error for readiness, with the reason if the TLS handshake failed or a pooler is in the way.
    pub fn with_reason(&self) -> String {
        let error = match self {
            Self::Unavailable(error) | Self::Failed(error) => error,
            Self::Locked(_) | Self::Conflict(_) => return self.to_string(),
        };
        let fault = tls_fault(error).map(|fault| fault.to_string());
        let fault = fault.or_else(|| Some(PoolerFault::find(error)?.to_string()));
        fault.map_or_else(|| self.to_string(), |fault| format!("{self}: {fault}"))
    }

    /// Whether a concurrent transaction has inserted the same row.
    pub fn is_duplicate_key(&self) -> bool {
        matches!(self, Self::Failed(sqlx::Error::Database(error)) if error.is_unique_violation())
    }
}

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        timeouts::count(&error);
        match &error {
            sqlx::Error::Io(_)
            | sqlx::Error::Tls(_)
            | sqlx::Error::PoolTimedOut
            | sqlx::Error::PoolClosed
            | sqlx::Error::WorkerCrashed => Self::Unavailable(error),
            sqlx::Error::Protocol(reason) if reason.starts_with(CLOSED_BEFORE_TLS) => {
                Self::Unavailable(error)
            }
            sqlx::Error::Database(database) => {
                if let Some(constraint) = violated_constraint(database.as_ref()) {
                    Self::Conflict(constraint)
                } else if is_locked(&error) {
                    Self::Locked(error)
                } else if database.code().is_some_and(|code| is_transient(&code)) {
                    Self::Unavailable(error)
                } else {
                    Self::Failed(error)
                }
            }
            _ => Self::Failed(error),
        }
    }
}

/// Whether PostgreSQL ended the statement at its `statement_timeout`.
pub(crate) fn is_statement_timeout(error: &sqlx::Error) -> bool {
    error.as_database_error().and_then(sqlx::error::DatabaseError::code).as_deref() == Some("57014")
}

/// Whether another transaction held a lock for too long, or the two were in a deadlock.
pub(crate) fn is_locked(error: &sqlx::Error) -> bool {
    let code = error.as_database_error().and_then(sqlx::error::DatabaseError::code);
    code.is_some_and(|code| LOCKED_CODES.contains(&&*code))
}

fn violated_constraint(error: &dyn sqlx::error::DatabaseError) -> Option<Constraint> {
    let name = error.constraint()?;
    match error.kind() {
        ErrorKind::UniqueViolation if name == "users_email_key" => Some(Constraint::EmailTaken),
        ErrorKind::UniqueViolation if name == "urls_short_code_key" => Some(Constraint::CodeTaken),
        ErrorKind::UniqueViolation if name.ends_with("_pkey") => Some(Constraint::IdTaken),
        ErrorKind::CheckViolation if name == "urls_host_banned" => Some(Constraint::HostBanned),
        ErrorKind::CheckViolation if name == "urls_quota" => Some(Constraint::LinkQuota),
        ErrorKind::CheckViolation if name == "events_quota" => Some(Constraint::EventQuota),
        ErrorKind::ForeignKeyViolation if name.contains("user_id") => Some(Constraint::UserMissing),
        _ => None,
    }
}

fn is_transient(code: &str) -> bool {
    has_class(code, &TRANSIENT_CLASSES) || TRANSIENT_CODES.contains(&code)
}

fn has_class(code: &str, classes: &[&str]) -> bool {
    classes.iter().any(|class| code.starts_with(class))
}

#[cfg(test)]
mod tests {
    use sqlx::{
        Connection as _, PgConnection,
        postgres::{PgConnectOptions, PgSslMode},
    };
    use tokio::{io::AsyncReadExt as _, net::TcpListener};

    use super::*;

    #[tokio::test]
    async fn server_that_closes_a_connection_before_tls_is_unavailable() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let server = tokio::spawn(async move {
            let (mut connection, _) = listener.accept().await.unwrap();
            // Otherwise the close would be a reset, which is an I/O error.
            connection.read_exact(&mut [0; 8]).await.unwrap();
        });
        let options = PgConnectOptions::new_without_pgpass().host("127.0.0.1").port(port);
        let error =
            PgConnection::connect_with(&options.ssl_mode(PgSslMode::Prefer)).await.unwrap_err();
        server.await.unwrap();
        assert!(matches!(&error, sqlx::Error::Protocol(_)), "sqlx reports this now as {error:?}");
        assert!(matches!(StoreError::from(error), StoreError::Unavailable(_)));
    }
}
