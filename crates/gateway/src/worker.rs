//! What one worker thread holds: connections belong to the runtime that made them.

use std::{sync::Arc, time::Duration};

use http::HeaderValue;
use linnet_domain::Scopes;
use linnet_platform::lifecycle::Lifecycle;

use crate::{
    auth::Authority,
    config::{Anonymous, Network},
    limit::Limiter,
    upstream::UpstreamClient,
};

/// Everything that handling a request needs.
pub(crate) struct Worker {
    pub(crate) client: UpstreamClient,
    pub(crate) limiter: Limiter,
    pub(crate) authority: Arc<Authority>,
    pub(crate) lifecycle: Lifecycle,
    pub(crate) service_token: HeaderValue,
    pub(crate) anonymous: Anonymous,
    /// What `anonymous = open` grants.
    pub(crate) all_scopes: Scopes,
    pub(crate) trusted_peers: Arc<[Network]>,
    pub(crate) request_timeout: Duration,
    /// Largest body of a route that does not stream, in bytes.
    pub(crate) body_limit: usize,
}
