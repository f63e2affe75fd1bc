//! Maps every error of a handler to a problem, in one place.

use actix_web::http::StatusCode;
use linnet_protocol::{
    problem::{FieldError, Problem},
    problem_code::ProblemCode,
};

use linnet_store::{Constraint, StoreError};

/// `Retry-After` in seconds when a dependency is unavailable.
pub(super) const RETRY_AFTER_UNAVAILABLE: u64 = 1;

/// PostgreSQL's `query_canceled`, which its `statement_timeout` raises.
const QUERY_CANCELED: &str = "57014";

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Unavailable(sqlx::Error::Database(source))
                if source.code().as_deref() == Some(QUERY_CANCELED) =>
            {
                tracing::warn!(error = %source, "statement timed out");
                let detail = "The database took too long. Request less, or retry later.";
                Self(Problem::unavailable(detail, RETRY_AFTER_UNAVAILABLE))
            }
            StoreError::Unavailable(source @ sqlx::Error::PoolTimedOut) => {
                tracing::warn!(error = %source, "no database connection in time");
                let detail = "PostgreSQL cannot be reached, or has too many requests. Retry later.";
                Self(Problem::unavailable(detail, RETRY_AFTER_UNAVAILABLE))
            }
            StoreError::Unavailable(source) => {
                tracing::warn!(error = %source, "database unavailable");
                let detail = "PostgreSQL cannot be reached. Retry later.";
                Self(Problem::unavailable(detail, RETRY_AFTER_UNAVAILABLE))
            }
            StoreError::Locked(source) => {
                tracing::warn!(error = %source, "lock not obtained in time");
                let detail = "Other requests or jobs are changing the same resource. Retry later.";
                let problem = Problem::of(ProblemCode::Locked).detail(detail);
                Self(problem.retry_after(RETRY_AFTER_UNAVAILABLE))
            }
            StoreError::Conflict(constraint) => constraint.into(),
            StoreError::Failed(_) => {
                let error: &dyn std::error::Error = &error;
                tracing::error!(error, "database operation failed");
                Self(Problem::internal())
            }
        }
    }
}

impl From<Constraint> for ApiError {
    fn from(constraint: Constraint) -> Self {
        let code = match constraint {
            Constraint::EmailTaken | Constraint::CodeTaken | Constraint::IdTaken => {
                ProblemCode::Taken
            }
            Constraint::HostBanned => ProblemCode::Invalid,
            Constraint::LinkQuota => ProblemCode::TooManyLinks,
            Constraint::EventQuota => ProblemCode::TooManyEvents,
            Constraint::UserMissing | Constraint::LinkMissing => ProblemCode::NotFound,
        };
        Self(of_field(code, constraint.field(), constraint.message()))
    }
}

/// The error of a handler.
#[derive(Debug)]
pub struct ApiError(pub Problem);

impl ApiError {
    /// 404 for the resource of the path, such as "link".
    pub fn not_found(what: &str) -> Self {
        let detail = format!("The {what} does not exist or belongs to another user.");
        Self(Problem::not_found(detail))
    }

    /// 403.
    pub fn forbidden(detail: &str) -> Self {
        Self(Problem::forbidden(detail))
    }

    /// 422 for one field.
    pub(super) fn invalid(field: &str, code: &'static str, rule: &str) -> Self {
        Self(Problem::invalid(vec![field_error(field, code, rule)]))
    }
}

/// A [`FieldError`] from borrowed parts.
pub(super) fn field_error(field: &str, code: &'static str, message: &str) -> FieldError {
    FieldError { field: field.to_owned(), code, message: message.to_owned() }
}

/// A problem of the body as a whole.
pub(super) fn body_error(code: ProblemCode, rule: &str) -> Problem {
    of_field(code, "body", rule)
}

fn of_field(code: ProblemCode, field: &str, rule: &str) -> Problem {
    Problem::of(code).detail(format!("{field}: {rule}.")).errors(vec![field_error(
        field,
        code.as_str(),
        rule,
    )])
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
