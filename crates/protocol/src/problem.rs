//! The body of every error answer: RFC 9457 `application/problem+json`.
//!
//! Domain errors become a [`Problem`] in one place per process; this is the one place where a
//! problem becomes a response. `code` is stable: clients branch on it, and `docs/API.md` lists it.

use std::fmt;

use actix_web::{
    HttpResponse, ResponseError,
    body::BoxBody,
    http::{
        StatusCode,
        header::{CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER},
    },
};
use serde::Serialize;

/// The media type of a problem.
pub const CONTENT_TYPE_PROBLEM: &str = "application/problem+json";

/// One thing that is wrong with one field of the input.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FieldError {
    /// The field's name in the body or the query; `body` for the body as a whole.
    pub field: String,
    /// Stable, snake_case.
    pub code: &'static str,
    /// For a person.
    pub message: String,
}

/// An error as a client sees it.
#[derive(Debug, Clone)]
pub struct Problem {
    status: StatusCode,
    code: &'static str,
    title: &'static str,
    detail: String,
    errors: Vec<FieldError>,
    headers: Vec<(HeaderName, HeaderValue)>,
}

impl Problem {
    /// A problem with a stable `code`; `title` is the same for every occurrence of the code.
    pub fn new(status: StatusCode, code: &'static str, title: &'static str) -> Self {
        Self { status, code, title, detail: String::new(), errors: Vec::new(), headers: Vec::new() }
    }

    /// Says what happened this time. Never carries a secret or an internal error's text.
    #[must_use]
    pub fn detail(mut self, detail: impl Into<String>) -> Self {
        self.detail = detail.into();
        self
    }

    /// Adds what is wrong with the fields.
    #[must_use]
    pub fn errors(mut self, errors: Vec<FieldError>) -> Self {
        self.errors = errors;
        self
    }

    /// Adds `Retry-After`, in seconds.
    #[must_use]
    pub fn retry_after(self, seconds: u64) -> Self {
        self.header(RETRY_AFTER, seconds.into())
    }

    /// Adds a header.
    #[must_use]
    pub fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.push((name, value));
        self
    }

    /// 422 with a list of what is wrong.
    pub fn invalid(errors: Vec<FieldError>) -> Self {
        let detail = match errors.as_slice() {
            [only] => format!("{}: {}", only.field, only.message),
            several => format!("{} fields are not valid", several.len()),
        };
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid", "The input is not valid")
            .detail(detail)
            .errors(errors)
    }

    /// 404.
    pub fn not_found(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not_found", "There is no such thing, or not for you")
            .detail(detail)
    }

    /// 401, with the challenge that RFC 9110 asks for.
    pub fn unauthorized(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "unauthorized", "A valid API key is needed")
            .detail(detail)
            .header(
                actix_web::http::header::WWW_AUTHENTICATE,
                HeaderValue::from_static("Bearer realm=\"linnet\""),
            )
    }

    /// 403.
    pub fn forbidden(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, "forbidden", "Not yours to do").detail(detail)
    }

    /// 413; `limit` in bytes.
    pub fn too_large(limit: usize) -> Self {
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "too_large", "The body is too large")
            .detail(format!("at most {limit} bytes are accepted here"))
            .errors(vec![FieldError {
                field: "body".into(),
                code: "too_large",
                message: format!("must be at most {limit} bytes"),
            }])
    }

    /// 503: something that is needed to answer is away; `retry_after` in seconds.
    pub fn unavailable(detail: impl Into<String>, retry_after: u64) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", "Something needed is away")
            .detail(detail)
            .retry_after(retry_after)
    }

    /// 500. The cause is in the log under the request's id.
    pub fn internal() -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", "Something broke here")
            .detail("the cause is in the log under this request's id")
    }

    /// The status that the answer will have.
    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// The stable code.
    pub fn code(&self) -> &'static str {
        self.code
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}: {}", self.status.as_u16(), self.code, self.detail)
    }
}

impl ResponseError for Problem {
    fn status_code(&self) -> StatusCode {
        self.status
    }

    fn error_response(&self) -> HttpResponse<BoxBody> {
        #[derive(Serialize)]
        struct Body<'a> {
            r#type: String,
            title: &'a str,
            status: u16,
            detail: &'a str,
            code: &'a str,
            request_id: Option<String>,
            #[serde(skip_serializing_if = "<[_]>::is_empty")]
            errors: &'a [FieldError],
        }
        let body = Body {
            r#type: format!("urn:linnet:problem:{}", self.code),
            title: self.title,
            status: self.status.as_u16(),
            detail: &self.detail,
            code: self.code,
            request_id: linnet_telemetry::context::request_id(),
            errors: &self.errors,
        };
        let mut response = HttpResponse::build(self.status);
        for (name, value) in &self.headers {
            response.insert_header((name.clone(), value.clone()));
        }
        response.insert_header((CONTENT_TYPE, HeaderValue::from_static(CONTENT_TYPE_PROBLEM)));
        response.json(body)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use actix_web::body::to_bytes;

    #[actix_web::test]
    async fn a_problem_is_rfc_9457() {
        let problem = Problem::invalid(vec![FieldError {
            field: "original_url".into(),
            code: "required",
            message: "is required".into(),
        }]);
        let response = problem.error_response();
        assert_eq!(response.status(), 422);
        assert_eq!(response.headers().get(CONTENT_TYPE).unwrap(), CONTENT_TYPE_PROBLEM);
        let body = to_bytes(response.into_body()).await.unwrap();
        let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(body["status"], 422);
        assert_eq!(body["code"], "invalid");
        assert_eq!(body["errors"][0]["field"], "original_url");
    }

    #[test]
    fn an_absent_dependency_says_when_to_retry() {
        let response = Problem::unavailable("the database is away", 2).error_response();
        assert_eq!(response.status(), 503);
        assert_eq!(response.headers().get(RETRY_AFTER).unwrap(), "2");
    }
}
