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
