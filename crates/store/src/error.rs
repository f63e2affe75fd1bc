//! What can go wrong in the database, as far as callers act on it.

use sqlx::error::ErrorKind;

/// A failed operation.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The database cannot be reached, is starting or stopping, or did not answer in time. Trying
    /// again later helps.
    #[error("the database is away")]
    Unavailable(#[source] sqlx::Error),
    /// A rule of the schema was broken by the input.
    #[error("a rule of the schema was broken: {0:?}")]
    Conflict(Constraint),
    /// A defect: of this code, of the schema, or of the data.
    #[error("a database operation failed")]
    Failed(#[source] sqlx::Error),
}

/// Rules that input can break.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Constraint {
    /// Another user has this address.
    EmailTaken,
    /// Another link has this code.
    CodeTaken,
    /// A row with this id exists.
    IdTaken,
    /// There is no such user.
    UserMissing,
}

impl StoreError {
    /// Whether the rows themselves are what the database refuses, so that it would refuse them again.
    /// A schema that is not there, a permission that is missing or a password that changed are not
    /// the rows' fault. Classes after appendix A of PostgreSQL's manual: cardinality (21), data
    /// exceptions (22), integrity (23), program limits, such as an index entry's size (54).
    pub fn refuses_rows(&self) -> bool {
        match self {
            Self::Conflict(_) | Self::Failed(sqlx::Error::Encode(_)) => true,
            Self::Failed(sqlx::Error::Database(database)) => {
                let of_rows = ["21", "22", "23", "54"];
                database.code().is_some_and(|code| of_rows.iter().any(|of| code.starts_with(of)))
            }
            Self::Failed(_) | Self::Unavailable(_) => false,
        }
    }

    /// Whether somebody else has added the same row in the meantime.
    pub fn is_duplicate_key(&self) -> bool {
        matches!(self, Self::Failed(sqlx::Error::Database(error)) if error.is_unique_violation())
    }
}

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        match &error {
            sqlx::Error::Io(_)
            | sqlx::Error::Tls(_)
            | sqlx::Error::PoolTimedOut
            | sqlx::Error::PoolClosed
            | sqlx::Error::WorkerCrashed => Self::Unavailable(error),
            sqlx::Error::Database(database) => {
                let constraint = match (database.kind(), database.constraint()) {
                    (ErrorKind::UniqueViolation, Some("users_email_key")) => {
                        Some(Constraint::EmailTaken)
                    }
                    (ErrorKind::UniqueViolation, Some("urls_short_code_key")) => {
                        Some(Constraint::CodeTaken)
                    }
                    (ErrorKind::UniqueViolation, Some(name)) if name.ends_with("_pkey") => {
                        Some(Constraint::IdTaken)
                    }
                    (ErrorKind::ForeignKeyViolation, Some(name)) if name.contains("user_id") => {
                        Some(Constraint::UserMissing)
                    }
                    _ => None,
                };
                if let Some(constraint) = constraint {
                    return Self::Conflict(constraint);
                }
                if database.code().is_some_and(|code| is_transient(&code)) {
                    Self::Unavailable(error)
                } else {
                    Self::Failed(error)
                }
            }
            _ => Self::Failed(error),
        }
    }
}

/// Error codes of PostgreSQL that pass by themselves, after its manual's appendix A: connection
/// exceptions (08), insufficient resources (53), operator intervention such as shutdown or a
/// cancelled statement (57), a disk that is full or failing (58), lock timeout and serialization
/// (55P03, 40), sessions and transactions ended for idling (25P03, 25P04), and a server that turned
/// read-only (25006).
fn is_transient(code: &str) -> bool {
    ["08", "40", "53", "57", "58"].iter().any(|class| code.starts_with(class))
        || matches!(code, "55P03" | "25006" | "25P03" | "25P04")
}
