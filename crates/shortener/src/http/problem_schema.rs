//! The OpenAPI schema of a problem.

use utoipa::ToSchema;

/// An error (RFC 9457). `docs/API.md` lists the codes.
#[derive(ToSchema)]
#[expect(dead_code, reason = "documents `linnet_protocol::problem::Problem`")]
pub(super) struct Problem {
    /// The URL of a page about the code, or the registered type `quota-exceeded`.
    r#type: String,
    /// The title of the code.
    title: String,
    /// The HTTP status.
    status: u16,
    /// Describes this occurrence.
    detail: String,
    /// Stable, for programs.
    code: String,
    /// The id of the request in the logs.
    #[schema(required)]
    request_id: Option<String>,
    /// The errors of all fields.
    #[schema(nullable = false)]
    errors: Option<Vec<FieldError>>,
}

/// The error of one field.
#[derive(ToSchema)]
#[expect(dead_code, reason = "documents `linnet_protocol::problem::FieldError`")]
pub(super) struct FieldError {
    /// The name of the field; `body` for the body as a whole.
    field: String,
    /// Stable, for programs.
    code: String,
    /// For people; begins with the rule.
    message: String,
}
