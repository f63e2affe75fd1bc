//! The gateway's own problems: every error response that did not come from a shortener.

use actix_web::{
    HttpResponse, ResponseError as _,
    http::header::{ALLOW, HeaderName, HeaderValue},
};
use linnet_domain::Scope;
use linnet_protocol::{
    problem::{PROBLEM_HEADER, Problem},
    problem_code::ProblemCode,
};

use crate::{
    auth::{Caller, CredentialError, LeaseEnd, LookupError},
    limit::AppliedLimit,
    upstream::UpstreamError,
};

/// Marks the gateway's own problems.
const ORIGIN: HeaderName = HeaderName::from_static("x-linnet-origin");

/// Seconds after which a client may retry while no shortener is available.
const RETRY_AFTER_S: u64 = 1;

/// A response with the problem and the mark of its origin.
pub(crate) fn response(problem: &Problem) -> HttpResponse {
    let mut response = problem.error_response();
    response.headers_mut().insert(ORIGIN, HeaderValue::from_static("gateway"));
    response.headers_mut().remove(PROBLEM_HEADER);
    response
}

/// 404 for a path that has no route.
pub(crate) fn not_found() -> HttpResponse {
    response(&Problem::not_found("Nothing exists at this path."))
}

/// 405; `allow` is the value of the `Allow` header.
pub(crate) fn method_not_allowed(allow: &str) -> Problem {
    Problem::of(ProblemCode::MethodNotAllowed)
        .detail(format!("This path supports {allow}."))
        .header(ALLOW, HeaderValue::from_str(allow).unwrap_or(HeaderValue::from_static("")))
}

/// 431; `limit` is the accepted number of headers.
pub(crate) fn too_many_headers(limit: usize) -> Problem {
    Problem::of(ProblemCode::TooManyHeaders)
        .detail(format!("A request may have at most {limit} headers."))
}

/// 400 for a request line that cannot be forwarded.
pub(crate) fn bad_request() -> Problem {
    Problem::of(ProblemCode::BadRequest).detail("The method or path of the request is malformed.")
}

/// 408 for a body that is incomplete at its deadline.
pub(crate) fn body_timeout() -> Problem {
    Problem::of(ProblemCode::BodyTimeout).detail("The request body did not arrive in time.")
}

/// 400 for a body that ended early.
pub(crate) fn body_broken() -> Problem {
    Problem::of(ProblemCode::BodyBroken)
        .detail("The request body ended early, or its encoding is not valid.")
}

/// 503 for a body that does not fit beside those in progress.
pub(crate) fn too_many_bodies() -> Problem {
    Problem::unavailable(
        format!("Too many request bodies are in progress; retry after {RETRY_AFTER_S} s."),
        RETRY_AFTER_S,
    )
}

/// 429 for a request over a limit.
pub(crate) fn rate_limited(limit: &AppliedLimit<'_>) -> Problem {
    let retry_after_s = limit.retry_after_s();
    let policies = limit.violated_policies();
    Problem::of(ProblemCode::RateLimited)
        .detail(format!(
            "The quota of the policy `{}` is exhausted. Retry after {retry_after_s} s.",
            policies.join("`, `")
        ))
        .retry_after(retry_after_s)
        .violated_policies(policies)
}

/// 401 for a request without a key.
pub(crate) fn key_required() -> Problem {
    Problem::unauthorized("Send an API key as `Authorization: Bearer …` or `X-Api-Key: …`.")
}

/// 401 or 503 for a streamed request whose lease ended before the response began.
pub(crate) fn from_lease(end: LeaseEnd) -> Problem {
    match end {
        LeaseEnd::KeyEnded => {
            Problem::unauthorized("The API key was revoked or expired during the request.")
        }
        LeaseEnd::KeyUnverified => Problem::unavailable(
            format!(
                "The API key can no longer be verified, and the result of the request is unknown; \
                 retry after {RETRY_AFTER_S} s."
            ),
            RETRY_AFTER_S,
        ),
    }
}

/// 401 for a key that no shortener accepts.
pub(crate) fn invalid_key() -> Problem {
    Problem::unauthorized("The API key is unknown, revoked or expired.")
}

/// 403 for a key without the scope; 401 for a caller that could present a key.
pub(crate) fn missing_scope(caller: &Caller, scope: Scope) -> Problem {
    let scope = scope.as_str();
    match caller {
        Caller::Key(_) => Problem::forbidden(format!("The key lacks the scope `{scope}`.")),
        Caller::Anonymous(_) => Problem::unauthorized(format!(
            "This request needs an API key with the scope `{scope}`."
        )),
    }
}

/// 400 or 401 for credentials that are rejected without a lookup.
pub(crate) fn from_credentials(error: CredentialError) -> Problem {
    match error {
        CredentialError::InUrl => Problem::of(ProblemCode::KeyInUrl)
            .detail("Send the API key in a header, not in the URL, which is logged and shared."),
        CredentialError::Conflicting => Problem::of(ProblemCode::ConflictingKeys)
            .detail("The request carries two different API keys; send one."),
        CredentialError::Malformed => Problem::unauthorized("The API key is malformed."),
        CredentialError::StreamToken => Problem::unauthorized(
            "The stream token is malformed, expired, or for another path. Create one with `POST /api/v1/stream-tokens`.",
        ),
    }
}

/// 503 for a failed key lookup, whatever its cause: the request was not sent to a shortener.
pub(crate) fn from_lookup(error: &LookupError) -> Problem {
    match error {
        LookupError::Upstream(
            error @ (UpstreamError::NoneAvailable | UpstreamError::Unreachable(_)),
        ) => from_upstream(error),
        LookupError::Upstream(UpstreamError::Broken(_) | UpstreamError::TimedOut)
        | LookupError::Response(_)
        | LookupError::Aborted(_)
        | LookupError::Overtaken => Problem::unavailable(
            format!("The API key cannot be verified; retry after {RETRY_AFTER_S} s."),
            RETRY_AFTER_S,
        ),
    }
}

/// 502, 503 or 504 for a failed call.
pub(crate) fn from_upstream(error: &UpstreamError) -> Problem {
    match error {
        UpstreamError::NoneAvailable | UpstreamError::Unreachable(_) => Problem::unavailable(
            format!("No shortener can be reached; retry after {RETRY_AFTER_S} s."),
            RETRY_AFTER_S,
        ),
        UpstreamError::Broken(_) => Problem::of(ProblemCode::BadGateway)
            .detail("The connection to the shortener broke; the result of the request is unknown."),
        UpstreamError::TimedOut => Problem::of(ProblemCode::UpstreamTimeout)
            .detail("The shortener did not respond in time; the result of the request is unknown."),
    }
}
