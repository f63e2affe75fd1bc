//! A caller, in the form in which the shortener is told.

use std::sync::Arc;

use http::{HeaderMap, HeaderName, HeaderValue, header::InvalidHeaderValue};
use linnet_domain::{Scope, Scopes};
use linnet_protocol::identity::{KEY_HEADER, SCOPES_HEADER, USER_HEADER};

const USER: HeaderName = HeaderName::from_static(USER_HEADER);
const KEY: HeaderName = HeaderName::from_static(KEY_HEADER);
const SCOPES: HeaderName = HeaderName::from_static(SCOPES_HEADER);

/// The owner of a valid key. The headers are made once, not for each request.
#[derive(Debug)]
pub(crate) struct KeyIdentity {
    key_id: Box<str>,
    scopes: Scopes,
    user_header: HeaderValue,
    key_header: HeaderValue,
    scopes_header: HeaderValue,
}

impl KeyIdentity {
    /// Fails when `key_id` can't stand in a header.
    pub(crate) fn new(
        key_id: &str,
        user_id: i64,
        scopes: Scopes,
    ) -> Result<Self, InvalidHeaderValue> {
        Ok(Self {
            key_id: key_id.into(),
            scopes,
            user_header: user_id.into(),
            key_header: HeaderValue::from_str(key_id)?,
            scopes_header: HeaderValue::from_str(&scopes.to_string())?,
        })
    }

    /// The key's public id.
    pub(crate) fn key_id(&self) -> &str {
        &self.key_id
    }
}

/// Who calls.
#[derive(Debug, Clone)]
pub(crate) enum Caller {
    /// Somebody with a valid key.
    Key(Arc<KeyIdentity>),
    /// Nobody in particular, with what the configuration grants.
    Anonymous(Scopes),
}

impl Caller {
    /// Whether the caller has the scope.
    pub(crate) fn may(&self, scope: Scope) -> bool {
        match self {
            Self::Key(identity) => identity.scopes.allow(scope),
            Self::Anonymous(scopes) => scopes.allow(scope),
        }
    }

    /// Tells the shortener. Whatever came in under these names must be gone already.
    pub(crate) fn write(&self, headers: &mut HeaderMap) {
        match self {
            Self::Key(identity) => {
                headers.insert(USER, identity.user_header.clone());
                headers.insert(KEY, identity.key_header.clone());
                headers.insert(SCOPES, identity.scopes_header.clone());
            }
            Self::Anonymous(scopes) => {
                if let Ok(scopes) = HeaderValue::from_str(&scopes.to_string()) {
                    headers.insert(SCOPES, scopes);
                }
            }
        }
    }
}
