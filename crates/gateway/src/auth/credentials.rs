//! Finds the API key in a request, and rejects malformed keys without a lookup.

use actix_web::{
    HttpRequest,
    http::{
        Method,
        header::{AUTHORIZATION, HeaderMap},
    },
};
use chrono::{DateTime, Utc};
use linnet_protocol::{
    settings::ServiceSettings,
    stream_token::{PARAMETER, StreamToken},
};
use sha2::{Digest as _, Sha256};

const KEY_HEADER: &str = "x-api-key";
const SCHEME: &str = "bearer";
const PREFIX: &str = "lnt_";
const ID_LENGTH: usize = 8;
const SECRET_LENGTH: usize = 43;

/// Query parameters in which clients send keys. They are rejected, because URLs are logged and shared.
const QUERY_PARAMETERS: [&str; 4] = ["api_key", "key", "access_token", "token"];

/// The SHA-256 of a whole API key.
pub(crate) type KeyHash = [u8; 32];

/// A well-formed API key, or a well-formed stream token in its place. Either may be invalid.
#[derive(Clone, Copy)]
pub(crate) struct PresentedKey<'a> {
    text: &'a str,
    id: &'a str,
    token: Option<StreamToken<'a>>,
}

impl std::fmt::Debug for PresentedKey<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "PresentedKey({})", self.id())
    }
}

/// Why credentials are rejected without a lookup.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum CredentialError {
    /// The query has a parameter for a key.
    #[error("API key in the URL")]
    InUrl,
    /// Two different keys.
    #[error("two different API keys")]
    Conflicting,
    /// The text does not have the form of a key, or the scheme is not `Bearer`.
    #[error("malformed API key")]
    Malformed,
    /// A stream token that does not open this path now.
    #[error("invalid stream token")]
    StreamToken,
}

impl<'a> PresentedKey<'a> {
    /// Parses `lnt_`, 8 letters or digits, `_`, and 43 characters of base64url.
    pub(crate) fn parse(text: &'a str) -> Option<Self> {
        let (id, secret) = text.strip_prefix(PREFIX)?.split_at_checked(ID_LENGTH)?;
        let secret = secret.strip_prefix('_')?;
        let is_base64url = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
        let is_well_formed = id.bytes().all(|byte| byte.is_ascii_alphanumeric())
            && secret.len() == SECRET_LENGTH
            && secret.bytes().all(is_base64url);
        is_well_formed.then_some(Self { text, id, token: None })
    }

    /// Parses a stream token.
    pub(super) fn parse_token(text: &'a str) -> Option<Self> {
        let token = StreamToken::parse(text)?;
        Some(Self { text, id: token.key_id(), token: Some(token) })
    }

    /// The public id of the key, or of the key that made the token.
    pub(crate) fn id(&self) -> &'a str {
        self.id
    }

    /// Whether it is a stream token.
    pub(crate) fn is_stream_token(&self) -> bool {
        self.token.is_some()
    }

    /// Whether a stream token may open the request's path now; true for an API key, which has no such limits.
    pub(crate) fn opens(
        &self,
        request: &HttpRequest,
        service: &ServiceSettings,
        now: DateTime<Utc>,
    ) -> bool {
        self.token.is_none_or(|token| {
            request.method() == Method::GET
                && request.path() == token.stream().path()
                && !token.has_expired(now)
                && token.is_authentic(service)
        })
    }

    /// The whole key. Send it to a shortener only.
    pub(crate) fn expose(&self) -> &'a str {
        self.text
    }

    /// The hash under which the key is cached.
    pub(crate) fn hash(&self) -> KeyHash {
        Sha256::digest(self.text.as_bytes()).into()
    }
}

/// The request's key or stream token, if it has one. An empty header counts as absent. A key that is sent twice counts
/// once.
pub(crate) fn find_key<'a>(
    headers: &'a HeaderMap,
    query: &'a str,
) -> Result<Option<PresentedKey<'a>>, CredentialError> {
    if has_key_parameter(query) {
        return Err(CredentialError::InUrl);
    }
    let token = stream_token(query)?;
    let mut found: Option<&str> = None;
    for value in headers.get_all(AUTHORIZATION) {
        let value = value.to_str().map_err(|_| CredentialError::Malformed)?.trim();
        if value.is_empty() {
            continue;
        }
        let (scheme, key) = value.split_once(' ').ok_or(CredentialError::Malformed)?;
        if !scheme.eq_ignore_ascii_case(SCHEME) {
            return Err(CredentialError::Malformed);
        }
        merge(&mut found, key.trim_start())?;
    }
    for value in headers.get_all(KEY_HEADER) {
        let value = value.to_str().map_err(|_| CredentialError::Malformed)?.trim();
        if !value.is_empty() {
            merge(&mut found, value)?;
        }
    }
    let key = found.map(|text| PresentedKey::parse(text).ok_or(CredentialError::Malformed));
    match (key.transpose()?, token) {
        (Some(_), Some(_)) => Err(CredentialError::Conflicting),
        (key, token) => Ok(key.or(token)),
    }
}

/// The token in the query. A token needs no percent-encoding, so a percent-encoded one is malformed.
fn stream_token(query: &str) -> Result<Option<PresentedKey<'_>>, CredentialError> {
    let mut tokens = query.split('&').filter_map(|pair| {
        let (name, text) = pair.split_once('=').unwrap_or((pair, ""));
        (name == PARAMETER).then_some(text)
    });
    match (tokens.next(), tokens.next()) {
        (None, _) => Ok(None),
        (Some(text), None) => {
            PresentedKey::parse_token(text).map(Some).ok_or(CredentialError::StreamToken)
        }
        (Some(_), Some(_)) => Err(CredentialError::StreamToken),
    }
}

fn merge<'a>(found: &mut Option<&'a str>, value: &'a str) -> Result<(), CredentialError> {
    match found {
        Some(other) if *other != value => Err(CredentialError::Conflicting),
        _ => {
            *found = Some(value);
            Ok(())
        }
    }
}

fn has_key_parameter(query: &str) -> bool {
    let is_for_key =
        |name: &str| QUERY_PARAMETERS.iter().any(|parameter| name.eq_ignore_ascii_case(parameter));
    if query.contains('%') {
        // Decoded, because `%61pi_key` is `api_key`.
        url::form_urlencoded::parse(query.as_bytes()).any(|(name, _)| is_for_key(&name))
    } else {
        query.split('&').any(|pair| is_for_key(pair.split('=').next().unwrap_or(pair)))
    }
}

#[cfg(test)]
mod tests {
    use actix_web::{
        http::header::{HeaderName, HeaderValue},
        test::TestRequest,
    };
    use linnet_protocol::stream_token::{Stream, mint};

    use super::*;

    const KEY: &str = "lnt_Ab3xYz01_0123456789abcdefghijklmnopqrstuvwxyzABCDEF-";
    const OTHER: &str = "lnt_Ab3xYz02_0123456789abcdefghijklmnopqrstuvwxyzABCDEF_";

    fn find_in(
        pairs: &[(&'static str, &str)],
        query: &str,
    ) -> Result<Option<String>, CredentialError> {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(HeaderName::from_static(name), HeaderValue::from_str(value).unwrap());
        }
        find_key(&headers, query).map(|key| key.map(|key| key.expose().to_owned()))
    }

    #[test]
    fn key_is_accepted_in_either_header() {
        let bearer = format!("Bearer {KEY}");
        assert_eq!(find_in(&[("authorization", &bearer)], ""), Ok(Some(KEY.into())));
        assert_eq!(find_in(&[("x-api-key", KEY)], "limit=3"), Ok(Some(KEY.into())));
        let both = [("authorization", bearer.as_str()), ("x-api-key", KEY)];
        assert_eq!(find_in(&both, ""), Ok(Some(KEY.into())));
        assert_eq!(find_in(&[], ""), Ok(None));
        assert_eq!(find_in(&[("x-api-key", "")], ""), Ok(None));
    }

    #[test]
    fn two_different_keys_are_rejected() {
        let bearer = format!("bearer {KEY}");
        let both = [("authorization", bearer.as_str()), ("x-api-key", OTHER)];
        assert_eq!(find_in(&both, ""), Err(CredentialError::Conflicting));
        let twice = [("x-api-key", KEY), ("x-api-key", OTHER)];
        assert_eq!(find_in(&twice, ""), Err(CredentialError::Conflicting));
    }

    #[test]
    fn must_16_a_key_in_the_url_is_rejected() {
        for query in [
            "api_key=x",
            "a=b&key=x",
            "access_token=",
            "TOKEN=x",
            "token",
            "%61pi_key=x",
            "api%5Fkey=x",
            "a=%20&%74oken",
        ] {
            assert_eq!(
                find_in(&[("x-api-key", KEY)], query),
                Err(CredentialError::InUrl),
                "{query}"
            );
        }
        assert!(find_in(&[], "search=key&user_id=token&tokens=1&a=%26token%3D1").is_ok());
    }

    #[test]
    fn a_stream_token_is_accepted_in_the_query_only_and_alone() {
        let settings = ServiceSettings { token: "0123456789abcdef0123456789abcdef".into() };
        let stream = Stream::of_path("/api/v1/urls/7/live").unwrap();
        let (token, _) = mint(&settings, "Ab3xYz01", stream, Utc::now());
        let query = format!("stream_token={token}");
        assert_eq!(find_in(&[], &query), Ok(Some(token.clone())));
        assert_eq!(find_in(&[], &format!("a=b&{query}&c")), Ok(Some(token.clone())));
        assert_eq!(find_in(&[("x-api-key", KEY)], &query), Err(CredentialError::Conflicting));
        for bad in [
            "stream_token".to_owned(),
            "stream_token=".to_owned(),
            format!("stream_token={KEY}"),
            format!("{query}&{query}"),
            format!("{query}x"),
            query.replace('_', "%5F").replace("stream%5F", "stream_"),
        ] {
            assert_eq!(find_in(&[], &bad), Err(CredentialError::StreamToken), "{bad}");
        }
        assert_eq!(find_in(&[("x-api-key", &token)], ""), Err(CredentialError::Malformed));
        let bearer = format!("Bearer {token}");
        assert_eq!(find_in(&[("authorization", &bearer)], ""), Err(CredentialError::Malformed));
        for parameter in ["token", "key", "access_token"] {
            let query = format!("{parameter}={token}");
            assert_eq!(find_in(&[], &query), Err(CredentialError::InUrl), "{parameter}");
        }
    }

    #[test]
    fn a_stream_token_opens_its_path_until_it_expires() {
        let settings = ServiceSettings { token: "0123456789abcdef0123456789abcdef".into() };
        let other = ServiceSettings { token: "another token of 32 characters .".into() };
        let now: DateTime<Utc> = "2026-11-27T10:00:00Z".parse().unwrap();
        let path = "/api/v1/urls/7/live";
        let (token, expires_at) = mint(&settings, "Ab3xYz01", Stream::of_path(path).unwrap(), now);
        let key = PresentedKey::parse_token(&token).unwrap();
        let opens = |request: TestRequest, service: &ServiceSettings, now| {
            key.opens(&request.to_http_request(), service, now)
        };
        assert!(opens(TestRequest::get().uri(path), &settings, now));
        assert!(!opens(TestRequest::get().uri(path), &settings, expires_at));
        assert!(!opens(TestRequest::get().uri(path), &other, now));
        assert!(!opens(TestRequest::with_uri(path).method(Method::HEAD), &settings, now));
        for path in [
            "/api/v1/urls/8/live",
            "/api/v1/urls/7",
            "/api/v1/urls/7/stats",
            "/api/v1/jobs/7/events",
        ] {
            assert!(!opens(TestRequest::get().uri(path), &settings, now), "{path}");
        }
        let key = PresentedKey::parse(KEY).unwrap();
        assert!(key.opens(
            &TestRequest::delete().uri("/x").to_http_request(),
            &settings,
            expires_at
        ));
    }

    #[test]
    fn text_without_the_form_of_a_key_is_malformed() {
        let long = format!("{KEY}x");
        let short = &KEY[..KEY.len() - 1];
        for bad in [
            "x",
            "lnt_",
            "lnt_Ab3xYz01",
            &long,
            short,
            &KEY.replace('A', "ä"),
            &KEY.replace("lnt", "LNT"),
        ] {
            assert!(PresentedKey::parse(bad).is_none(), "{bad}");
        }
        for bad in [format!("Basic {KEY}"), KEY.to_owned(), "Bearer".into()] {
            assert_eq!(find_in(&[("authorization", &bad)], ""), Err(CredentialError::Malformed));
        }
    }

    #[test]
    fn debug_output_contains_only_the_public_id() {
        assert_eq!(format!("{:?}", PresentedKey::parse(KEY).unwrap()), "PresentedKey(Ab3xYz01)");
    }
}
