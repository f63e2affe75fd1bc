//! Who is calling, as the gateway tells the shortener.
//!
//! The gateway drops these headers from whatever came in and always sets them itself; the shortener
//! believes them because the service token came along.

use actix_web::http::header::HeaderMap;
use linnet_domain::{Scope, Scopes};

/// Carries the user's id; absent for a caller without a key.
pub const USER_HEADER: &str = "x-linnet-user-id";
/// Carries the public id of the API key; absent for a caller without a key.
pub const KEY_HEADER: &str = "x-linnet-key-id";
/// Carries the scopes, space-separated.
pub const SCOPES_HEADER: &str = "x-linnet-scopes";
/// Every header of this kind; the gateway removes all that come from outside.
pub const HEADER_PREFIX: &str = "x-linnet-";

/// The caller of an API request.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Identity {
    /// The user that the key belongs to.
    pub user_id: Option<i64>,
    /// Public id of the API key.
    pub key_id: Option<String>,
    /// What the caller may do.
    pub scopes: Scopes,
}

impl Identity {
    /// Reads the identity that the gateway set. Absent or malformed headers give no scopes at all.
    pub fn from_headers(headers: &HeaderMap) -> Self {
        let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        Self {
            user_id: text(USER_HEADER).and_then(|id| id.parse().ok()),
            key_id: text(KEY_HEADER).map(ToOwned::to_owned),
            scopes: text(SCOPES_HEADER).and_then(Scopes::parse).unwrap_or_default(),
        }
    }

    /// Whether the caller may see and change everything.
    pub const fn is_admin(&self) -> bool {
        self.scopes.allow(Scope::Admin)
    }
}
