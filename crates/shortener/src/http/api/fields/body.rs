//! A JSON object as the body of a request.

use actix_web::{
    FromRequest, HttpRequest,
    dev::Payload,
    http::header::{CONTENT_LENGTH, CONTENT_TYPE},
    web::{self, BytesMut},
};
use chrono::{DateTime, Utc};
use futures::{StreamExt as _, future::LocalBoxFuture};
use linnet_domain::{TargetPolicy, rules::Violation};
use linnet_platform::byte_budget::Reservation;
use linnet_protocol::{
    problem::Problem,
    problem_code::ProblemCode,
    routes::{MAX_BODY_BYTES, RequestBody, Route},
};
use sha2::{Digest as _, Sha256};
use tokio::time::timeout;

use super::{
    super::{
        super::error::{ApiError, RETRY_AFTER_UNAVAILABLE, body_error, field_error},
        ApiState, Caller,
    },
    declare::{Body, ReadContext},
    json::read_body,
};

/// A body that was read and checked.
pub(crate) struct JsonBody<B> {
    /// Its fields.
    pub(in super::super) fields: B,
    /// The hash of its bytes, for `Idempotency-Key`.
    pub(in super::super) hash: [u8; 32],
    /// The bytes of the body, reserved until the response: the fields take at most as many.
    _reserved: Reservation<String>,
}

impl<B: Body + 'static> FromRequest for JsonBody<B> {
    type Error = ApiError;
    type Future = LocalBoxFuture<'static, Result<Self, ApiError>>;

    fn from_request(request: &HttpRequest, payload: &mut Payload) -> Self::Future {
        let content_type = check_content_type(request);
        let state = request.app_data::<web::Data<ApiState>>().cloned();
        let owner = Caller::of(request).idempotency_owner();
        let max_bytes = limit_of(request);
        let declared = request.headers().get(CONTENT_LENGTH);
        let declared = declared.and_then(|value| value.to_str().ok()?.parse::<usize>().ok());
        let payload = payload.take();
        Box::pin(async move {
            content_type?;
            let state = state.ok_or_else(Problem::internal)?;
            if declared.is_some_and(|bytes| bytes > max_bytes) {
                return Err(Problem::too_large(max_bytes).into());
            }
            let mut reserved = state.bodies.reserve(owner);
            let body = receive(payload, max_bytes, &mut reserved);
            let raw = timeout(state.body_timeout, body).await.unwrap_or_else(|_| {
                let detail = "The request body did not arrive in time.";
                Err(Problem::of(ProblemCode::BodyTimeout).detail(detail).into())
            })?;
            let hash = Sha256::digest(&raw).into();
            let fields = parse_body(&raw, &state.targets, Utc::now())?;
            Ok(Self { fields, hash, _reserved: reserved })
        })
    }
}

/// The limit of the route's body, in bytes, from the table that the gateway also uses.
fn limit_of(request: &HttpRequest) -> usize {
    let route = request.match_pattern().and_then(|path| Route::of_path(&path));
    match route.map(|route| route.body(request.method())) {
        Some(RequestBody::Json { max_bytes }) => max_bytes,
        _ => MAX_BODY_BYTES,
    }
}

async fn receive(
    mut payload: Payload,
    max_bytes: usize,
    reserved: &mut Reservation<String>,
) -> Result<BytesMut, ApiError> {
    let mut raw = BytesMut::new();
    while let Some(chunk) = payload.next().await {
        let chunk = chunk.map_err(|error| {
            tracing::debug!(%error, "request body ended early");
            malformed("must arrive completely")
        })?;
        if raw.len() + chunk.len() > max_bytes {
            return Err(Problem::too_large(max_bytes).into());
        }
        reserved.grow(chunk.len()).map_err(|error| {
            tracing::debug!(%error, "request body rejected");
            let detail = "Too many request bodies are in progress. Retry later.";
            Problem::unavailable(detail, RETRY_AFTER_UNAVAILABLE)
        })?;
        raw.extend_from_slice(&chunk);
    }
    Ok(raw)
}

/// Reads a whole body. `now` is the time of the request.
pub(in super::super) fn parse_body<B: Body>(
    raw: &[u8],
    targets: &TargetPolicy,
    now: DateTime<Utc>,
) -> Result<B, ApiError> {
    let object = read_body(raw, B::member)
        .map_err(|error| malformed(&format!("must be valid JSON: {error}")))?;
    let mut fields = object.map_err(|other| {
        let violation = Violation::wrong_type("a JSON object", &other);
        let error = field_error("body", violation.code, &violation.message);
        Problem::invalid(vec![error])
    })?;
    let body = B::read(&mut fields, &ReadContext { targets, now });
    fields.finish_with(body)
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
