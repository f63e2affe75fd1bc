//! A JSON object as the body of a request.

use actix_web::{
    FromRequest, HttpRequest,
    dev::Payload,
    http::{StatusCode, header::CONTENT_TYPE},
    web::Bytes,
};
use futures::future::LocalBoxFuture;
use linnet_domain::rules::Violation;
use linnet_protocol::{problem::Problem, problem_code::ProblemCode};
use serde_json::Value;

use super::{
    super::super::error::{ApiError, body_error, field_error},
    Fields,
};

/// The maximum size of an ordinary request's body, in bytes. The gateway has the same limit.
pub const MAX_BODY_BYTES: usize = 1024 * 1024;

/// A JSON object as the body, with its bytes.
#[derive(Debug)]
pub(crate) struct JsonObject {
    /// The fields.
    pub(in super::super) fields: Fields,
    /// The body as sent, for `Idempotency-Key`.
    pub(in super::super) raw: Bytes,
}

impl FromRequest for JsonObject {
    type Error = ApiError;
    type Future = LocalBoxFuture<'static, Result<Self, ApiError>>;

    fn from_request(request: &HttpRequest, payload: &mut Payload) -> Self::Future {
        let content_type = check_content_type(request);
        let body = Bytes::from_request(request, payload);
        Box::pin(async move {
            content_type?;
            // The app's payload limit is MAX_BODY_BYTES.
            let raw = body.await.map_err(|error| {
                if error.as_response_error().status_code() == StatusCode::PAYLOAD_TOO_LARGE {
                    Problem::too_large(MAX_BODY_BYTES)
                } else {
                    malformed("must arrive completely")
                }
            })?;
            let value = serde_json::from_slice(&raw)
                .map_err(|error| malformed(&format!("must be valid JSON: {error}")))?;
            match value {
                Value::Object(map) => Ok(Self { fields: Fields::new(map), raw }),
                other => {
                    let violation = Violation::wrong_type("a JSON object", &other);
                    let error = field_error("body", violation.code, &violation.message);
                    Err(Problem::invalid(vec![error]).into())
                }
            }
        })
    }
}

fn malformed(rule: &str) -> Problem {
    body_error(ProblemCode::MalformedJson, rule)
}

fn check_content_type(request: &HttpRequest) -> Result<(), ApiError> {
    let value = request.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let media_type = value.and_then(|value| value.split(';').next()).map(str::trim);
    let is_json = media_type.is_some_and(|media_type| {
        media_type.eq_ignore_ascii_case("application/json")
            || (media_type.starts_with("application/") && media_type.ends_with("+json"))
    });
    if is_json {
        return Ok(());
    }
    let rule = "must have the Content-Type application/json";
    Err(body_error(ProblemCode::UnsupportedMediaType, rule).into())
}
