//! State of one server thread.
//!
//! Connections belong to the runtime that opened them, so each thread has its own clients.

use std::{sync::Arc, time::Duration};

use http::HeaderValue;
use linnet_domain::Scopes;
use linnet_platform::lifecycle::Lifecycle;

use crate::{
    auth::KeyAuthenticator,
    body_budget::Bodies,
    config::{Anonymous, Network},
    counters::Counters,
    limit::RateLimiter,
    upstream::UpstreamClient,
};

/// Everything that the handlers of API requests use.
pub(crate) struct ThreadState {
    pub(crate) client: UpstreamClient,
    pub(crate) limiter: RateLimiter,
    pub(crate) counters: Arc<Counters>,
    pub(crate) authenticator: Arc<KeyAuthenticator>,
    pub(crate) lifecycle: Lifecycle,
    pub(crate) service_token: HeaderValue,
    pub(crate) anonymous: Anonymous,
    /// Granted to clients without a key while `anonymous` is `open`.
    pub(crate) all_scopes: Scopes,
    pub(crate) trusted_peers: Arc<[Network]>,
    pub(crate) request_timeout: Duration,
    /// Largest JSON body that is buffered, in bytes, for routes whose own limit is higher.
    pub(crate) body_limit: usize,
    /// The bounds of bodies in progress, which all server threads share.
    pub(crate) bodies: Bodies,
}
