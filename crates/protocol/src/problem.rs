//! The body of every error response: RFC 9457 `application/problem+json`.
//!
//! Each process maps its errors to a [`Problem`] in one place, and only this module turns a problem into a response.

use std::{fmt, sync::OnceLock};

use actix_web::{
    HttpResponse, ResponseError,
    body::BoxBody,
    http::{
        StatusCode,
        header::{CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE},
    },
};
use serde::Serialize;

use crate::problem_code::ProblemCode;

/// The media type of a problem.
pub const CONTENT_TYPE_PROBLEM: &str = "application/problem+json";

/// The header with the code of a shortener's problem, for the gateway. Clients do not get it.
pub const PROBLEM_HEADER: &str = "x-linnet-problem";

/// The registered type of problems about quotas, of draft-ietf-httpapi-ratelimit-headers-10.
const QUOTA_EXCEEDED: &str = "https://iana.org/assignments/http-problem-types#quota-exceeded";

/// The URL before the code in a problem's type; the gateway's own pages unless [`set_types_url`] was called.
static TYPES_URL: OnceLock<String> = OnceLock::new();

/// Sets the URL under which the types of problems are described, without a trailing slash. Only the first call in a
/// process has an effect.
pub fn set_types_url(url: String) {
    // A test starts several gateways in one process.
    let _ = TYPES_URL.set(url);
}

/// The type of problems with this code: the URL of its description.
fn type_url(code: ProblemCode) -> String {
    format!("{}/{}", TYPES_URL.get().map_or("/problems", String::as_str), code.as_str())
}

/// One rule that a field of the input breaks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FieldError {
    /// The field's name in the body or the query; `body` for the body as a whole.
    pub field: String,
    /// Stable code of the rule, in snake_case.
    pub code: &'static str,
    /// Begins with the rule, such as "must be a whole number from 1 to 200".
    pub message: String,
}

/// An error for a client.
#[derive(Debug, Clone)]
pub struct Problem {
    code: ProblemCode,
    detail: String,
    errors: Vec<FieldError>,
    headers: Vec<(HeaderName, HeaderValue)>,
    violated_policies: Vec<&'static str>,
}

impl Problem {
    /// A problem with the code's status and title.
    pub fn of(code: ProblemCode) -> Self {
        Self {
            code,
            detail: String::new(),
            errors: Vec::new(),
            headers: Vec::new(),
            violated_policies: Vec::new(),
        }
    }

    /// Sets the detail: one sentence with the specifics and the way out. It must not contain a secret or the text of an
    /// internal error.
    #[must_use]
    pub fn detail(mut self, detail: impl Into<String>) -> Self {
        self.detail = detail.into();
        self
    }

    /// Sets the errors of the fields.
    #[must_use]
    pub fn errors(mut self, errors: Vec<FieldError>) -> Self {
        self.errors = errors;
        self
    }

    /// Names the quota policies that the request exceeds, as in the `RateLimit-Policy` header.
    #[must_use]
    pub fn violated_policies(mut self, policies: Vec<&'static str>) -> Self {
        self.violated_policies = policies;
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

    /// 422 with the errors of all fields.
    pub fn invalid(errors: Vec<FieldError>) -> Self {
        let detail = match errors.as_slice() {
            [only] => format!("{}: {}.", only.field, only.message),
            several => format!("{} fields are not valid.", several.len()),
        };
        Self::of(ProblemCode::Invalid).detail(detail).errors(errors)
    }

    /// 404.
    pub fn not_found(detail: impl Into<String>) -> Self {
        Self::of(ProblemCode::NotFound).detail(detail)
    }

    /// 401, with the challenge that RFC 9110 requires.
    pub fn unauthorized(detail: impl Into<String>) -> Self {
        Self::of(ProblemCode::Unauthorized)
            .detail(detail)
            .header(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"linnet\""))
    }

    /// 403.
    pub fn forbidden(detail: impl Into<String>) -> Self {
        Self::of(ProblemCode::Forbidden).detail(detail)
    }

    /// 413; `limit` in bytes.
    pub fn too_large(limit: usize) -> Self {
        Self::of(ProblemCode::TooLarge)
            .detail(format!("A request body may have at most {limit} bytes."))
            .errors(vec![FieldError {
                field: "body".into(),
                code: "too_large",
                message: format!("must be at most {limit} bytes"),
            }])
    }

    /// 503 for an unavailable dependency; `retry_after` in seconds.
    pub fn unavailable(detail: impl Into<String>, retry_after: u64) -> Self {
        Self::of(ProblemCode::Unavailable).detail(detail).retry_after(retry_after)
    }

    /// 500. The body does not contain the cause, so log the cause within the request.
    pub fn internal() -> Self {
        Self::of(ProblemCode::Internal)
            .detail("The operator's log has the cause under this request id.")
    }

    /// The status of the response.
    pub fn status(&self) -> StatusCode {
        self.code.status()
    }

    /// The rules that fields break.
    pub fn errors_by_field(&self) -> &[FieldError] {
        &self.errors
    }

    /// The stable code.
    pub fn code(&self) -> ProblemCode {
        self.code
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}: {}", self.status().as_u16(), self.code.as_str(), self.detail)
    }
}

impl ResponseError for Problem {
    fn status_code(&self) -> StatusCode {
        self.status()
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
            #[serde(rename = "violated-policies", skip_serializing_if = "<[_]>::is_empty")]
            violated_policies: &'a [&'static str],
        }
        let body = Body {
            r#type: if self.violated_policies.is_empty() {
                type_url(self.code)
            } else {
                QUOTA_EXCEEDED.to_owned()
            },
            title: self.code.title(),
            status: self.status().as_u16(),
            detail: &self.detail,
            code: self.code.as_str(),
            request_id: linnet_telemetry::context::request_id(),
            errors: &self.errors,
            violated_policies: &self.violated_policies,
        };
        let mut response = HttpResponse::build(self.status());
        for (name, value) in &self.headers {
            response.insert_header((name.clone(), value.clone()));
        }
        response.insert_header((CONTENT_TYPE, HeaderValue::from_static(CONTENT_TYPE_PROBLEM)));
        response.insert_header((PROBLEM_HEADER, self.code.as_str()));
        response.json(body)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use actix_web::body::to_bytes;

    #[actix_web::test]
    async fn a_problem_becomes_an_rfc_9457_response() {
        let problem = Problem::invalid(vec![FieldError {
            field: "original_url".into(),
            code: "required",
            message: "must be present".into(),
        }]);
        let response = problem.error_response();
        assert_eq!(response.status(), 422);
        assert_eq!(response.headers().get(CONTENT_TYPE).unwrap(), CONTENT_TYPE_PROBLEM);
        let body = to_bytes(response.into_body()).await.unwrap();
        let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(body["status"], 422);
        assert_eq!(body["code"], "invalid");
        assert_eq!(body["type"], "/problems/invalid");
        assert_eq!(body["errors"][0]["field"], "original_url");
    }

    #[test]
    fn an_unavailable_dependency_has_retry_after() {
        let response = Problem::unavailable("PostgreSQL cannot be reached.", 2).error_response();
        assert_eq!(response.status(), 503);
        assert_eq!(response.headers().get(RETRY_AFTER).unwrap(), "2");
    }

    async fn body(problem: &Problem) -> serde_json::Value {
        let body = to_bytes(problem.error_response().into_body()).await.unwrap();
        serde_json::from_slice(&body).unwrap()
    }

    fn error(field: &str) -> FieldError {
        FieldError { field: field.into(), code: "required", message: "must be present".into() }
    }

    // Long because it lists the constructors.
    #[actix_web::test]
    async fn each_constructor_has_its_status_code_and_detail() {
        let detail = "A detail.";
        for (problem, status, code, expected) in [
            (Problem::not_found(detail), 404, ProblemCode::NotFound, detail),
            (Problem::unauthorized(detail), 401, ProblemCode::Unauthorized, detail),
            (Problem::forbidden(detail), 403, ProblemCode::Forbidden, detail),
            (Problem::unavailable(detail, 2), 503, ProblemCode::Unavailable, detail),
            (
                Problem::too_large(7),
                413,
                ProblemCode::TooLarge,
                "A request body may have at most 7 bytes.",
            ),
            (
                Problem::internal(),
                500,
                ProblemCode::Internal,
                "The operator's log has the cause under this request id.",
            ),
            (
                Problem::invalid(vec![error("title")]),
                422,
                ProblemCode::Invalid,
                "title: must be present.",
            ),
            (
                Problem::invalid(vec![error("title"), error("email")]),
                422,
                ProblemCode::Invalid,
                "2 fields are not valid.",
            ),
        ] {
            let response = problem.error_response();
            assert_eq!((problem.code(), problem.status().as_u16()), (code, status));
            assert_eq!(
                (problem.status_code(), response.status()),
                (problem.status(), problem.status())
            );
            assert_eq!(response.headers().get(PROBLEM_HEADER).unwrap(), code.as_str());
            let body = body(&problem).await;
            assert_eq!((&body["detail"], &body["title"]), (&expected.into(), &code.title().into()));
            assert_eq!(problem.to_string(), format!("{status} {}: {expected}", code.as_str()));
        }
    }

    #[actix_web::test]
    async fn headers_errors_and_violated_policies_are_in_the_response() {
        let challenge = Problem::unauthorized("A detail.").error_response();
        assert_eq!(challenge.headers().get(WWW_AUTHENTICATE).unwrap(), "Bearer realm=\"linnet\"");
        let limited = Problem::of(ProblemCode::RateLimited)
            .violated_policies(vec!["key", "user"])
            .errors(vec![error("body")])
            .retry_after(3);
        assert_eq!(limited.error_response().headers().get(RETRY_AFTER).unwrap(), "3");
        let body = body(&limited).await;
        assert_eq!(body["type"], QUOTA_EXCEEDED);
        assert_eq!(limited.errors_by_field(), [error("body")]);
        assert_eq!(body["violated-policies"], serde_json::json!(["key", "user"]));
        assert_eq!(body["errors"][0]["field"], "body");
    }
}
