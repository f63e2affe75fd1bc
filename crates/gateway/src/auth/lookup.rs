//! Looks up an API key at a shortener.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use chrono::{DateTime, Utc};
use http::{
    HeaderMap, HeaderValue, Method, Response, StatusCode, header::CONTENT_TYPE, uri::PathAndQuery,
};
use http_body_util::{BodyExt as _, Limited};
use hyper::body::Incoming;
use linnet_domain::Scope;
use linnet_platform::{clock::Clock, single_flight::SingleFlightError};
use linnet_protocol::{
    key_lookup::{self, KeyLookupRequest, KeyLookupResponse},
    settings::ServiceSettings,
};
use secrecy::{ExposeSecret as _, SecretString};
use tokio::time::{Instant, timeout_at};

use super::{cache::KeyStatus, identity::KeyIdentity};
use crate::upstream::{Call, CallBody, UpstreamClient, UpstreamError};

/// Timeout of a lookup, including its response body. Requests wait for the lookup.
const TIMEOUT: Duration = Duration::from_secs(3);
/// Largest response body, in bytes.
const MAX_RESPONSE_BYTES: usize = 16 * 1_024;

/// Why a key lookup has no result.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LookupError {
    /// No shortener responded.
    #[error("no shortener responded to the key lookup")]
    Upstream(#[from] UpstreamError),
    /// The response does not follow the protocol.
    #[error("response to the key lookup is not valid: {0}")]
    Response(String),
    /// The server thread that made the lookup has stopped.
    #[error("key lookup was aborted")]
    Aborted(#[from] SingleFlightError),
    /// An invalidation arrived during each of the lookups for a new lease.
    #[error("key lookups were overtaken by invalidations")]
    Overtaken,
}

impl LookupError {
    fn response(error: impl std::fmt::Display) -> Self {
        Self::Response(error.to_string())
    }
}

/// The result of a key lookup.
#[derive(Debug, Clone)]
pub(super) struct VerifiedKey {
    pub(super) status: KeyStatus,
    /// Remaining lifetime of the key; `None` if it does not expire.
    pub(super) expires_in: Option<Duration>,
}

/// Makes one call to `POST /internal/v1/keys/lookup`.
pub(super) async fn look_up(
    client: &UpstreamClient,
    service: &ServiceSettings,
    traceparent: Option<&str>,
    key: &SecretString,
    clock: Clock,
) -> Result<VerifiedKey, LookupError> {
    let deadline = Instant::now() + TIMEOUT;
    let mut headers = HeaderMap::with_capacity(4);
    let mut token =
        HeaderValue::from_str(service.token.expose_secret()).map_err(LookupError::response)?;
    token.set_sensitive(true);
    headers.insert(ServiceSettings::TOKEN_HEADER, token);
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    if let Some(value) = traceparent.and_then(|text| HeaderValue::from_str(text).ok()) {
        headers.insert("traceparent", value);
    }
    let request = serde_json::to_vec(&KeyLookupRequest { key: key.expose_secret().into() })
        .map_err(LookupError::response)?;
    let response = client
        .call(Call {
            method: Method::POST,
            path: PathAndQuery::from_static(key_lookup::PATH),
            headers,
            body: CallBody::Buffered(Bytes::from(request)),
            deadline: Some(deadline),
        })
        .await?;
    match response.status() {
        StatusCode::NOT_FOUND => Ok(VerifiedKey { status: KeyStatus::Invalid, expires_in: None }),
        StatusCode::OK => parse(&read(response, deadline).await?, clock.now()),
        status => Err(LookupError::response(status)),
    }
}

async fn read(response: Response<Incoming>, deadline: Instant) -> Result<Bytes, LookupError> {
    let body = Limited::new(response.into_body(), MAX_RESPONSE_BYTES).collect();
    match timeout_at(deadline, body).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) => Err(LookupError::response(error)),
        Err(_) => Err(UpstreamError::TimedOut.into()),
    }
}

fn parse(body: &[u8], now: DateTime<Utc>) -> Result<VerifiedKey, LookupError> {
    let response: KeyLookupResponse =
        serde_json::from_slice(body).map_err(LookupError::response)?;
    // An unknown scope, for example of a later release, grants nothing.
    let scopes = response.scopes.iter().filter_map(|name| Scope::parse(name)).collect();
    // `to_std` fails for an expiry in the past.
    let expires_in = response.expires_at.map(|at| (at - now).to_std().unwrap_or(Duration::ZERO));
    let status = if expires_in == Some(Duration::ZERO) {
        KeyStatus::Invalid
    } else {
        let identity = KeyIdentity::new(&response.key_id, response.user_id, scopes)
            .map_err(LookupError::response)?;
        KeyStatus::Valid(Arc::new(identity))
    };
    Ok(VerifiedKey { status, expires_in })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::identity::Caller;

    fn parse_at_new_year(body: &str) -> Result<VerifiedKey, LookupError> {
        parse(body.as_bytes(), "2026-01-01T00:00:00Z".parse().unwrap())
    }

    #[test]
    fn response_becomes_identity_headers() {
        let verified = parse_at_new_year(
            r#"{"key_id":"Ab3xYz01","user_id":7,"scopes":["urls:read","later:scope"],
                "expires_at":"2026-01-01T00:01:00Z"}"#,
        )
        .unwrap();
        assert_eq!(verified.expires_in, Some(Duration::from_mins(1)));
        let KeyStatus::Valid(identity) = verified.status else { panic!("valid") };
        let mut headers = HeaderMap::new();
        let caller = Caller::Key(identity);
        caller.write_headers(&mut headers);
        assert_eq!(headers["x-linnet-user-id"], "7");
        assert_eq!(headers["x-linnet-key-id"], "Ab3xYz01");
        assert_eq!(headers["x-linnet-scopes"], "urls:read");
        assert!(caller.has_scope(Scope::UrlsRead) && !caller.has_scope(Scope::UrlsWrite));
    }

    #[test]
    fn expired_key_is_invalid_and_a_malformed_response_is_an_error() {
        let verified = parse_at_new_year(
            r#"{"key_id":"a","user_id":7,"scopes":[],"expires_at":"2025-12-31T23:59:59Z"}"#,
        );
        assert!(matches!(verified.unwrap().status, KeyStatus::Invalid));
        assert!(parse_at_new_year("{}").is_err());
        let line_break = r#"{"key_id":"a\n","user_id":7,"scopes":[],"expires_at":null}"#;
        assert!(parse_at_new_year(line_break).is_err());
    }
}
