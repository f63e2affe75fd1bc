//! Asks the shortener who a key is.

use std::time::Duration;

use bytes::Bytes;
use chrono::{DateTime, Utc};
use http::{
    HeaderMap, HeaderValue, Method, Response, StatusCode, header::CONTENT_TYPE, uri::PathAndQuery,
};
use http_body_util::{BodyExt as _, Limited};
use hyper::body::Incoming;
use linnet_domain::Scope;
use linnet_protocol::{
    key_lookup::{self, KeyLookupRequest, KeyLookupResponse},
    settings::ServiceSettings,
};
use secrecy::{ExposeSecret as _, SecretString};
use tokio::time::{Instant, timeout_at};

use super::{cache::Known, identity::KeyIdentity};
use crate::upstream::{Call, CallBody, UpstreamClient, UpstreamError};

/// Longest wait for an answer: a request waits for it.
const TIMEOUT: Duration = Duration::from_secs(3);
/// Largest answer that is read, in bytes.
const MAX_ANSWER: usize = 16 * 1_024;

/// Why nothing was learnt about a key.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LookupError {
    /// No shortener answered.
    #[error("no shortener could say who a key is")]
    Upstream(#[from] UpstreamError),
    /// The answer is not what was agreed on.
    #[error("a shortener's answer about a key was not understood: {0}")]
    Answer(String),
    /// Whoever asked on behalf of several has gone.
    #[error("the look-up was given up")]
    GivenUp,
}

/// What the shortener said.
#[derive(Debug, Clone)]
pub(crate) struct Found {
    pub(crate) known: Known,
    /// What the key has left to live; `None` if it does not expire.
    pub(crate) expires_in: Option<Duration>,
}

/// One call to `POST /internal/v1/keys/lookup`.
pub(crate) async fn ask(
    client: &UpstreamClient,
    service: &ServiceSettings,
    traceparent: Option<&str>,
    key: &SecretString,
) -> Result<Found, LookupError> {
    let broken = |error: &dyn std::fmt::Display| LookupError::Answer(error.to_string());
    let deadline = Instant::now() + TIMEOUT;
    let mut headers = HeaderMap::with_capacity(4);
    let mut token =
        HeaderValue::from_str(service.token.expose_secret()).map_err(|error| broken(&error))?;
    token.set_sensitive(true);
    headers.insert(ServiceSettings::TOKEN_HEADER, token);
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    if let Some(value) = traceparent.and_then(|text| HeaderValue::from_str(text).ok()) {
        headers.insert("traceparent", value);
    }
    let question = serde_json::to_vec(&KeyLookupRequest { key: key.expose_secret().into() })
        .map_err(|error| broken(&error))?;
    let response = client
        .call(Call {
            method: Method::POST,
            path: PathAndQuery::from_static(key_lookup::PATH),
            headers,
            body: CallBody::Whole(Bytes::from(question)),
            idempotent: true,
            deadline: Some(deadline),
        })
        .await?;
    match response.status() {
        StatusCode::NOT_FOUND => Ok(Found { known: Known::Invalid, expires_in: None }),
        StatusCode::OK => {
            let answer = read(response, deadline).await?;
            understand(&answer, Utc::now())
        }
        status => Err(broken(&status)),
    }
}

async fn read(response: Response<Incoming>, deadline: Instant) -> Result<Bytes, LookupError> {
    let body = Limited::new(response.into_body(), MAX_ANSWER).collect();
    match timeout_at(deadline, body).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) => Err(LookupError::Answer(error.to_string())),
        Err(_) => Err(UpstreamError::TimedOut.into()),
    }
}

fn understand(answer: &[u8], now: DateTime<Utc>) -> Result<Found, LookupError> {
    let broken = |error: &dyn std::fmt::Display| LookupError::Answer(error.to_string());
    let answer: KeyLookupResponse =
        serde_json::from_slice(answer).map_err(|error| broken(&error))?;
    // A scope that only a later release knows gives nothing here.
    let scopes = answer.scopes.iter().filter_map(|name| Scope::parse(name)).collect();
    // A time in the past is no time left.
    let expires_in = answer.expires_at.map(|at| (at - now).to_std().unwrap_or(Duration::ZERO));
    let known = if expires_in == Some(Duration::ZERO) {
        Known::Invalid
    } else {
        let identity = KeyIdentity::new(&answer.key_id, answer.user_id, scopes)
            .map_err(|error| broken(&error))?;
        Known::Valid(std::sync::Arc::new(identity))
    };
    Ok(Found { known, expires_in })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::identity::Caller;

    fn understood(answer: &str) -> Result<Found, LookupError> {
        understand(answer.as_bytes(), "2026-01-01T00:00:00Z".parse().unwrap())
    }

    #[test]
    fn an_answer_becomes_an_identity() {
        let found = understood(
            r#"{"key_id":"Ab3xYz01","user_id":7,"scopes":["urls:read","later:scope"],
                "expires_at":"2026-01-01T00:01:00Z"}"#,
        )
        .unwrap();
        assert_eq!(found.expires_in, Some(Duration::from_mins(1)));
        let Known::Valid(identity) = found.known else { panic!("valid") };
        let mut headers = HeaderMap::new();
        let caller = Caller::Key(identity);
        caller.write(&mut headers);
        assert_eq!(headers["x-linnet-user-id"], "7");
        assert_eq!(headers["x-linnet-key-id"], "Ab3xYz01");
        assert_eq!(headers["x-linnet-scopes"], "urls:read");
        assert!(caller.may(Scope::UrlsRead) && !caller.may(Scope::UrlsWrite));
    }

    #[test]
    fn an_expired_key_is_invalid_and_nonsense_an_error() {
        let found = understood(
            r#"{"key_id":"a","user_id":7,"scopes":[],"expires_at":"2025-12-31T23:59:59Z"}"#,
        );
        assert!(matches!(found.unwrap().known, Known::Invalid));
        assert!(understood("{}").is_err());
        assert!(
            understood(r#"{"key_id":"a\n","user_id":7,"scopes":[],"expires_at":null}"#).is_err()
        );
    }
}
