//! The caller of a request, in headers from the gateway to the shortener.
//!
//! The gateway removes these headers from client requests and sets them itself. The shortener trusts them, because only the
//! gateway has the service token.

use actix_web::http::header::HeaderMap;
use linnet_domain::{Scope, Scopes, UserId};

/// The header with the user's id; absent for an anonymous caller.
pub const USER_HEADER: &str = "x-linnet-user-id";
/// The header with the public id of the API key; absent for an anonymous caller.
pub const KEY_HEADER: &str = "x-linnet-key-id";
/// The header with the scopes, separated by spaces.
pub const SCOPES_HEADER: &str = "x-linnet-scopes";
/// The prefix of these headers. The gateway removes all of them from client requests.
pub const HEADER_PREFIX: &str = "x-linnet-";

/// The caller of an API request.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Identity {
    /// The user that owns the key.
    pub user_id: Option<UserId>,
    /// Public id of the API key.
    pub key_id: Option<String>,
    /// The caller's permissions.
    pub scopes: Scopes,
}

impl Identity {
    /// Reads the gateway's headers. An absent or malformed scopes header grants nothing.
    pub fn from_headers(headers: &HeaderMap) -> Self {
        let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        Self {
            user_id: text(USER_HEADER).and_then(|id| id.parse().ok()),
            key_id: text(KEY_HEADER).map(ToOwned::to_owned),
            scopes: text(SCOPES_HEADER).and_then(Scopes::parse).unwrap_or_default(),
        }
    }

    /// Whether the caller may read and change every user's resources.
    pub const fn is_admin(&self) -> bool {
        self.scopes.allows(Scope::Admin)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use actix_web::http::header::{HeaderName, HeaderValue};

    fn identity(headers: &[(&'static str, &'static [u8])]) -> Identity {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.insert(HeaderName::from_static(name), HeaderValue::from_bytes(value).unwrap());
        }
        Identity::from_headers(&map)
    }

    #[test]
    fn identity_is_that_of_the_headers() {
        let user = identity(&[
            (USER_HEADER, b"7"),
            (KEY_HEADER, b"Ab3xYz01"),
            (SCOPES_HEADER, b"urls:read urls:write"),
        ]);
        assert_eq!(user.user_id, UserId::new(7));
        assert_eq!(user.key_id.as_deref(), Some("Ab3xYz01"));
        assert_eq!(user.scopes.to_string(), "urls:read urls:write");
        assert!(!user.is_admin());
        let admin = identity(&[(USER_HEADER, b"1"), (SCOPES_HEADER, b"admin")]);
        assert!(admin.is_admin());
    }

    #[test]
    fn must_16_absent_and_malformed_headers_grant_nothing() {
        assert_eq!(identity(&[]), Identity::default());
        for value in [&b""[..], b"0", b"-1", b"x", b"7 ", b"\xff"] {
            assert_eq!(identity(&[(USER_HEADER, value)]).user_id, None, "{value:?}");
        }
        for value in [&b""[..], b"root", b"admin root", b"admin,urls:read", b"ADMIN", b"\xff"] {
            let scopes = identity(&[(SCOPES_HEADER, value)]).scopes;
            assert_eq!(scopes, Scopes::default(), "{value:?}");
        }
    }

    #[test]
    fn gateway_removes_every_identity_header_by_its_prefix() {
        for name in [USER_HEADER, KEY_HEADER, SCOPES_HEADER] {
            assert!(name.starts_with(HEADER_PREFIX), "{name}");
        }
    }
}
