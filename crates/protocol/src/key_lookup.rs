//! The key lookup: `POST /internal/v1/keys/lookup`, from the gateway to the shortener.
//!
//! The response is 200 with a [`KeyLookupResponse`], or 404 if the key is unknown, revoked or expired.

use std::borrow::Cow;

use chrono::{DateTime, Utc};
use linnet_domain::UserId;
use serde::{Deserialize, Serialize};

/// The path on the shortener's API listener.
pub const PATH: &str = "/internal/v1/keys/lookup";

/// The body of the request.
#[derive(Serialize, Deserialize)]
pub struct KeyLookupRequest<'a> {
    /// The whole key, as presented by the client.
    #[serde(borrow)]
    pub key: Cow<'a, str>,
}

/// The body of the response for a valid key.
#[derive(Debug, Serialize, Deserialize)]
pub struct KeyLookupResponse {
    /// The key's public id.
    pub key_id: String,
    /// The user that owns the key.
    pub user_id: UserId,
    /// Names of scopes. An unknown name, of a later release, grants nothing.
    pub scopes: Vec<String>,
    /// The key's expiry; absent if it does not expire.
    pub expires_at: Option<DateTime<Utc>>,
}
