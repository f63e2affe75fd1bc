//! Observes queries, with the reason for which one failed.

use std::borrow::Cow;

use linnet_telemetry::context::{QueryFailure, observe_fallible_query};

use super::StoreError;

/// An error of a query.
pub(crate) trait QueryError {
    /// The reason, as one of few values.
    fn failure(&self) -> QueryFailure;
}

impl QueryError for sqlx::Error {
    fn failure(&self) -> QueryFailure {
        let without_status = |error_type| QueryFailure { error_type, status_code: None };
        match self {
            Self::Database(error) => match error.code() {
                Some(code) => QueryFailure {
                    error_type: code.clone().into_owned().into(),
                    status_code: Some(code.into_owned()),
                },
                None => without_status("database".into()),
            },
            Self::Io(_) => without_status("io".into()),
            Self::Tls(_) => without_status("tls".into()),
            Self::PoolTimedOut => without_status("pool_timed_out".into()),
            Self::PoolClosed => without_status("pool_closed".into()),
            Self::RowNotFound => without_status("row_not_found".into()),
            // The fallback value of the semantic conventions.
            _ => without_status(Cow::Borrowed("_OTHER")),
        }
    }
}

impl QueryError for StoreError {
    fn failure(&self) -> QueryFailure {
        match self {
            Self::Unavailable(error) | Self::Locked(error) | Self::Failed(error) => error.failure(),
            Self::Conflict(_) => {
                QueryFailure { error_type: "constraint".into(), status_code: None }
            }
        }
    }
}

/// Runs a query of the current request as a span named `operation`; see [`observe_fallible_query`].
pub(crate) async fn observe_query<T, E: QueryError>(
    operation: &'static str,
    query: impl Future<Output = Result<T, E>>,
) -> Result<T, E> {
    observe_fallible_query(operation, query, E::failure).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_have_few_values() {
        let failure = |error: sqlx::Error| error.failure().error_type.into_owned();
        assert_eq!(failure(sqlx::Error::PoolTimedOut), "pool_timed_out");
        assert_eq!(failure(sqlx::Error::Io(std::io::ErrorKind::TimedOut.into())), "io");
        assert_eq!(failure(sqlx::Error::Protocol("x".to_owned())), "_OTHER");
        let store = StoreError::from(sqlx::Error::PoolTimedOut);
        assert_eq!(store.failure().error_type, "pool_timed_out");
    }
}
