//! The one place where what went wrong becomes a status code.

use actix_web::http::StatusCode;
use linnet_protocol::{
    problem::{FieldError, Problem},
    problem_code::ProblemCode,
};

use linnet_store::{Constraint, StoreError};

/// Seconds after which a client may try again when a dependency is away.
pub(super) const RETRY_AFTER_AWAY: u64 = 1;

/// PostgreSQL's `query_canceled`, which is what its `statement_timeout` raises.
const STATEMENT_ENDED: &str = "57014";

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Unavailable(sqlx::Error::Database(source))
                if source.code().as_deref() == Some(STATEMENT_ENDED) =>
            {
                tracing::warn!(error = %source, "a statement took too long");
                let detail = "the database took too long: ask for less, or try again later";
                Self(Problem::unavailable(detail, RETRY_AFTER_AWAY))
            }
            StoreError::Unavailable(source) => {
                tracing::warn!(error = %source, "the database is away");
                Self(Problem::unavailable("the database is away", RETRY_AFTER_AWAY))
            }
            StoreError::Conflict(constraint) => constraint.into(),
            StoreError::Failed(_) => {
                let error: &dyn std::error::Error = &error;
                tracing::error!(error, "a database operation failed");
                Self(Problem::internal())
            }
        }
    }
}

impl From<Constraint> for ApiError {
    fn from(constraint: Constraint) -> Self {
        let (field, message) = (constraint.field(), constraint.message());
        match constraint {
            Constraint::EmailTaken | Constraint::CodeTaken | Constraint::IdTaken => {
                Self::taken(field, message)
            }
            Constraint::UserMissing | Constraint::LinkMissing => {
                Self::missing_reference(field, message)
            }
        }
    }
}

/// An error on its way out of a handler.
#[derive(Debug)]
pub struct ApiError(pub Problem);

impl ApiError {
    /// 404 for the resource of the path.
    pub fn not_found(what: &str) -> Self {
        Self(Problem::not_found(format!("there is no such {what}, or it is not yours to see")))
    }

    /// 409 for a value that must be unique.
    pub fn taken(field: &str, message: &str) -> Self {
        let problem = Problem::of(ProblemCode::Taken)
            .detail(format!("{field}: {message}"))
            .errors(vec![field_error(field, "taken", message)]);
        Self(problem)
    }

    /// 404 for something that the body refers to.
    pub fn missing_reference(field: &str, message: &str) -> Self {
        Self(Problem::not_found(format!("{field}: {message}")).errors(vec![field_error(
            field,
            "not_found",
            message,
        )]))
    }

    /// 403.
    pub fn forbidden(detail: &str) -> Self {
        Self(Problem::forbidden(detail))
    }
}

/// A [`FieldError`] from borrowed parts.
pub(super) fn field_error(field: &str, code: &'static str, message: &str) -> FieldError {
    FieldError { field: field.to_owned(), code, message: message.to_owned() }
}

impl From<Problem> for ApiError {
    fn from(problem: Problem) -> Self {
        Self(problem)
    }
}

impl std::fmt::Display for ApiError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

impl actix_web::ResponseError for ApiError {
    fn status_code(&self) -> StatusCode {
        self.0.status()
    }

    fn error_response(&self) -> actix_web::HttpResponse {
        self.0.error_response()
    }
}
