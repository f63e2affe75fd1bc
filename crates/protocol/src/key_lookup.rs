//! The key lookup: `POST /internal/v1/keys/lookup`, which the gateway calls and the shortener answers.
//!
//! 200 with a [`KeyLookupResponse`], or 404 for a key that does not exist, has been revoked, or has
//! expired.

use std::borrow::Cow;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

/// The path on the shortener's API listener.
pub const PATH: &str = "/internal/v1/keys/lookup";

/// The question.
#[derive(Serialize, Deserialize)]
pub struct KeyLookupRequest<'a> {
    /// The whole key, as the client presented it.
    #[serde(borrow)]
    pub key: Cow<'a, str>,
}

/// The answer about a valid key.
#[derive(Debug, Serialize, Deserialize)]
pub struct KeyLookupResponse {
    /// The key's public id.
    pub key_id: String,
    /// The user that the key belongs to.
    pub user_id: i64,
    /// Names of scopes. A name that only a later release knows grants nothing.
    pub scopes: Vec<String>,
    /// When the key expires by itself.
    pub expires_at: Option<DateTime<Utc>>,
}
