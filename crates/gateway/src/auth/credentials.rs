//! Finds the API key in a request, and refuses what could not be one without asking anybody.

use actix_web::http::header::{AUTHORIZATION, HeaderMap};
use sha2::{Digest as _, Sha256};

const KEY_HEADER: &str = "x-api-key";
const SCHEME: &str = "bearer";
const PREFIX: &str = "lnt_";
const ID_LENGTH: usize = 8;
const SECRET_LENGTH: usize = 43;

/// Query parameters that people put keys into. A URL is logged and shared, a key must not be.
const QUERY_NAMES: [&str; 4] = ["api_key", "key", "access_token", "token"];

/// SHA-256 of a whole presented key.
pub(crate) type KeyHash = [u8; 32];

/// A key of the right shape; whether it is valid only the shortener knows.
#[derive(Clone, Copy)]
pub(crate) struct PresentedKey<'a> {
    text: &'a str,
}

impl std::fmt::Debug for PresentedKey<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "PresentedKey({})", self.id())
    }
}

/// Why a request's credentials are refused without a look-up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum CredentialError {
    /// The query has a parameter for a key.
    #[error("an API key belongs in a header, never in the URL, where it is logged and shared")]
    InUrl,
    /// Two different keys.
    #[error("the request carries two different API keys")]
    Conflicting,
    /// Not the shape of a key.
    #[error("the API key is malformed")]
    Malformed,
}

impl<'a> PresentedKey<'a> {
    /// `lnt_`, 8 letters or digits, `_`, 43 characters of base64url.
    pub(crate) fn parse(text: &'a str) -> Option<Self> {
        let (id, secret) = text.strip_prefix(PREFIX)?.split_at_checked(ID_LENGTH)?;
        let secret = secret.strip_prefix('_')?;
        let url_safe = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
        let ok = id.bytes().all(|byte| byte.is_ascii_alphanumeric())
            && secret.len() == SECRET_LENGTH
            && secret.bytes().all(url_safe);
        ok.then_some(Self { text })
    }

    /// The key's public part.
    pub(crate) fn id(&self) -> &'a str {
        self.text.get(PREFIX.len()..PREFIX.len() + ID_LENGTH).unwrap_or_default()
    }

    /// The whole key. It goes to the shortener and nowhere else.
    pub(crate) fn expose(&self) -> &'a str {
        self.text
    }

    /// What the key is remembered by.
    pub(crate) fn hash(&self) -> KeyHash {
        Sha256::digest(self.text.as_bytes()).into()
    }
}

/// The request's key, if it has one. An empty header counts as absent.
pub(crate) fn find<'a>(
    headers: &'a HeaderMap,
    query: &str,
) -> Result<Option<PresentedKey<'a>>, CredentialError> {
    if names_a_key(query) {
        return Err(CredentialError::InUrl);
    }
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
    found.map(|text| PresentedKey::parse(text).ok_or(CredentialError::Malformed)).transpose()
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

fn names_a_key(query: &str) -> bool {
    !query.is_empty()
        && query.split('&').any(|pair| {
            let name = pair.split('=').next().unwrap_or(pair);
            QUERY_NAMES.iter().any(|known| name.eq_ignore_ascii_case(known))
        })
}

#[cfg(test)]
mod tests {
    use actix_web::http::header::{HeaderName, HeaderValue};

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
        find(&headers, query).map(|key| key.map(|key| key.expose().to_owned()))
    }

    #[test]
    fn a_key_is_found_in_either_header() {
        let bearer = format!("Bearer {KEY}");
        assert_eq!(find_in(&[("authorization", &bearer)], ""), Ok(Some(KEY.into())));
        assert_eq!(find_in(&[("x-api-key", KEY)], "limit=3"), Ok(Some(KEY.into())));
        let both = [("authorization", bearer.as_str()), ("x-api-key", KEY)];
        assert_eq!(find_in(&both, ""), Ok(Some(KEY.into())));
        assert_eq!(find_in(&[], ""), Ok(None));
        assert_eq!(find_in(&[("x-api-key", "")], ""), Ok(None));
    }

    #[test]
    fn two_different_keys_are_refused() {
        let bearer = format!("bearer {KEY}");
        let both = [("authorization", bearer.as_str()), ("x-api-key", OTHER)];
        assert_eq!(find_in(&both, ""), Err(CredentialError::Conflicting));
        let twice = [("x-api-key", KEY), ("x-api-key", OTHER)];
        assert_eq!(find_in(&twice, ""), Err(CredentialError::Conflicting));
    }

    #[test]
    fn must_16_a_key_is_never_taken_from_the_url() {
        for query in ["api_key=x", "a=b&key=x", "access_token=", "TOKEN=x", "token"] {
            assert_eq!(
                find_in(&[("x-api-key", KEY)], query),
                Err(CredentialError::InUrl),
                "{query}"
            );
        }
        assert!(find_in(&[], "search=key&user_id=token&tokens=1").is_ok());
    }

    #[test]
    fn what_has_not_the_shape_of_a_key_is_malformed() {
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
    fn a_key_is_not_shown() {
        assert_eq!(format!("{:?}", PresentedKey::parse(KEY).unwrap()), "PresentedKey(Ab3xYz01)");
    }
}
