//! The caller of a request, and the identity headers that shorteners trust.

use std::sync::Arc;

use http::{HeaderMap, HeaderName, HeaderValue, header::InvalidHeaderValue};
use linnet_domain::{Scope, Scopes, UserId};
use linnet_protocol::identity::{KEY_HEADER, SCOPES_HEADER, USER_HEADER};

const USER: HeaderName = HeaderName::from_static(USER_HEADER);
const KEY: HeaderName = HeaderName::from_static(KEY_HEADER);
const SCOPES: HeaderName = HeaderName::from_static(SCOPES_HEADER);

/// The identity of a valid key. Its headers are encoded once and reused for each request.
#[derive(Debug)]
pub(crate) struct KeyIdentity {
    key_id: Box<str>,
    user_id: UserId,
    scopes: Scopes,
    user_header: HeaderValue,
    key_header: HeaderValue,
    scopes_header: HeaderValue,
}

impl KeyIdentity {
    /// Fails if `key_id` is not a valid header value.
    pub(crate) fn new(
        key_id: &str,
        user_id: UserId,
        scopes: Scopes,
    ) -> Result<Self, InvalidHeaderValue> {
        Ok(Self {
            key_id: key_id.into(),
            user_id,
            scopes,
            user_header: user_id.get().into(),
            key_header: HeaderValue::from_str(key_id)?,
            scopes_header: HeaderValue::from_str(&scopes.to_string())?,
        })
    }

    /// The user who owns the key.
    pub(crate) fn user_id(&self) -> UserId {
        self.user_id
    }

    /// The public id of the key.
    pub(crate) fn key_id(&self) -> &str {
        &self.key_id
    }
}

/// The caller of a request.
#[derive(Debug, Clone)]
pub(crate) enum Caller {
    /// The owner of a valid key.
    Key(Arc<KeyIdentity>),
    /// A client without a key, with the scopes that the configuration grants.
    Anonymous(Scopes),
}

impl Caller {
    /// Whether the caller has the scope.
    pub(crate) fn has_scope(&self, scope: Scope) -> bool {
        match self {
            Self::Key(identity) => identity.scopes.allows(scope),
            Self::Anonymous(scopes) => scopes.allows(scope),
        }
    }

    /// Adds the identity headers. The same headers from the client must have been removed before.
    pub(crate) fn write_headers(&self, headers: &mut HeaderMap) {
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
