//! Calls shorteners over the connections of one runtime, and retries failed calls.
//!
//! Retry rules:
//! - A failed connect is retried for any method, because no shortener has received the call. The HTTP
//!   client itself does the same if an idle connection closes before it wrote a byte of the call.
//! - A broken connection is never retried, even if the call is idempotent: the call may be what broke
//!   the shortener, and would break the next one.
//! - A timeout is never retried: the shortener may still process the call.
//! - A call has at most two attempts.

use std::{sync::Arc, time::Duration};

use http::{HeaderMap, Method, Request, Response, Uri, uri::PathAndQuery, uri::Scheme};
use hyper::body::Incoming;
use hyper_util::{
    client::legacy::Client,
    rt::{TokioExecutor, TokioTimer},
};
use tokio::time::{Instant, timeout_at};

use super::{
    balancer::{Admission, Upstreams},
    body::CallBody,
    connector::Connector,
};
use crate::{config::UpstreamSettings, counters::Counters};

/// Time after which an idle connection is closed. It is shorter than a shortener's drain, so that the
/// gateway closes the connection first.
const POOL_IDLE_TIMEOUT: Duration = Duration::from_secs(1);

/// The HTTP client of one runtime; clones share the connections.
#[derive(Clone)]
pub(crate) struct UpstreamClient {
    http: Client<Connector, CallBody>,
    upstreams: Arc<Upstreams>,
    counters: Arc<Counters>,
    response_timeout: Duration,
}

/// A call to any shortener.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    pub(crate) method: Method,
    pub(crate) path: PathAndQuery,
    /// Without hop-by-hop headers.
    pub(crate) headers: HeaderMap,
    pub(crate) body: CallBody,
    /// Deadline of the response's head. `None` waits without a limit; the response timeout of the
    /// settings applies only together with a deadline.
    pub(crate) deadline: Option<Instant>,
}

/// Why a call has no response.
#[derive(Debug, thiserror::Error)]
pub(crate) enum UpstreamError {
    /// Every shortener's circuit breaker is open.
    #[error("no shortener is available")]
    NoneAvailable,
    /// The connect failed.
    #[error("shortener unreachable")]
    Unreachable(#[source] hyper_util::client::legacy::Error),
    /// The connection broke before the response.
    #[error("connection to shortener broke")]
    Broken(#[source] hyper_util::client::legacy::Error),
    /// No response in time.
    #[error("shortener did not respond in time")]
    TimedOut,
}

/// Maximum size of the read buffer of one response, in bytes. It also limits the head of a response, to the size that
/// nginx accepts.
pub(crate) const MAX_READ_BYTES: usize = 12 * 1024;

impl UpstreamClient {
    /// Must be called in the runtime that uses the client.
    pub(crate) fn new(
        settings: &UpstreamSettings,
        upstreams: Arc<Upstreams>,
        counters: Arc<Counters>,
    ) -> Self {
        let connector = Connector::new(settings.connect_timeout());
        let http = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(POOL_IDLE_TIMEOUT)
            .pool_max_idle_per_host(settings.max_idle_per_host)
            .http1_max_buf_size(MAX_READ_BYTES)
            .build(connector);
        Self { http, upstreams, counters, response_timeout: settings.response_timeout() }
    }

    /// Makes the call and waits for the head of its response.
    pub(crate) async fn call(&self, call: Call) -> Result<Response<Incoming>, UpstreamError> {
        let first = self.upstreams.admit(None).ok_or(UpstreamError::NoneAvailable)?;
        let tried_index = first.upstream.index;
        let error = match self.attempt(first, call.clone()).await {
            Ok(response) => return Ok(response),
            Err(error) => error,
        };
        if !matches!(error, UpstreamError::Unreachable(_)) || !call.body.is_replayable() {
            return Err(error);
        }
        let Some(second) = self.upstreams.admit(Some(tried_index)) else { return Err(error) };
        Counters::increment(&self.counters.retries);
        tracing::debug!(error = &error as &dyn std::error::Error, "retrying call to shortener");
        self.attempt(second, call).await
    }

    async fn attempt(
        &self,
        admission: Admission,
        call: Call,
    ) -> Result<Response<Incoming>, UpstreamError> {
        let mut request = Request::new(call.body);
        *request.method_mut() = call.method;
        *request.headers_mut() = call.headers;
        *request.uri_mut() = uri(&admission, call.path);
        let result = match call.deadline {
            Some(deadline) => {
                let deadline = deadline.min(Instant::now() + self.response_timeout);
                let Ok(result) = timeout_at(deadline, self.http.request(request)).await else {
                    admission.record_failure(false);
                    return Err(UpstreamError::TimedOut);
                };
                result
            }
            None => self.http.request(request).await,
        };
        match result {
            Ok(response) => {
                admission.record_success();
                Ok(response)
            }
            Err(error) if error.is_connect() => {
                admission.record_failure(true);
                Err(UpstreamError::Unreachable(error))
            }
            Err(error) => {
                admission.record_failure(false);
                Err(UpstreamError::Broken(error))
            }
        }
    }
}

fn uri(admission: &Admission, path: PathAndQuery) -> Uri {
    let mut parts = http::uri::Parts::default();
    parts.scheme = Some(Scheme::HTTP);
    parts.authority = Some(admission.upstream.authority.clone());
    parts.path_and_query = Some(path);
    // Cannot fail: scheme, authority and path are present.
    Uri::from_parts(parts).unwrap_or_default()
}
