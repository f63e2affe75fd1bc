//! The request's id: the client's own if it is safe to log, or else a new one.

use std::sync::Arc;

use actix_web::{
    Error, HttpResponse, ResponseError,
    http::{
        StatusCode,
        header::{HeaderMap, HeaderValue},
    },
};

use super::{REQUEST_ID_HEADER, RequestContext};

/// The client's id if it is 8 to 64 of `[0-9A-Za-z_-]`, which is safe to log and to forward; or else a new one.
pub(super) fn request_id(headers: &HeaderMap) -> String {
    headers
        .get(REQUEST_ID_HEADER)
        .and_then(|value| value.to_str().ok())
        .filter(|id| is_acceptable(id))
        .map_or_else(|| uuid::Uuid::new_v4().simple().to_string(), str::to_owned)
}

fn is_acceptable(id: &str) -> bool {
    (8..=64).contains(&id.len())
        && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'))
}

/// An error that an inner middleware returned. actix builds its response outside of this middleware, so this
/// wrapper adds the id, and builds the body within the request's context.
pub(super) struct IdentifiedError {
    error: Error,
    id: HeaderValue,
    context: Arc<RequestContext>,
}

impl IdentifiedError {
    pub(super) fn wrap(
        error: Error,
        id: Option<HeaderValue>,
        context: Arc<RequestContext>,
    ) -> Error {
        match id {
            Some(id) => Self { error, id, context }.into(),
            None => error,
        }
    }
}

impl std::fmt::Debug for IdentifiedError {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Debug::fmt(&self.error, formatter)
    }
}

impl std::fmt::Display for IdentifiedError {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.error.fmt(formatter)
    }
}

impl ResponseError for IdentifiedError {
    fn status_code(&self) -> StatusCode {
        self.error.as_response_error().status_code()
    }

    fn error_response(&self) -> HttpResponse {
        let mut response = self.context.enter(|| self.error.error_response());
        response.headers_mut().insert(REQUEST_ID_HEADER, self.id.clone());
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn safe_ids_are_kept_and_others_are_replaced() {
        for (id, kept) in [
            ("abcdefgh", true),
            ("A-b_9999", true),
            (&"x".repeat(64) as &str, true),
            ("short12", false),
            (&"x".repeat(65) as &str, false),
            ("has space", false),
            ("has\"quote", false),
            ("", false),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(REQUEST_ID_HEADER, HeaderValue::from_str(id).unwrap());
            let chosen = request_id(&headers);
            assert_eq!(chosen == id, kept, "{id}");
            assert!(is_acceptable(&chosen));
        }
    }
}
