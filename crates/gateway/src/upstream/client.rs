//! One runtime's connections to the shorteners, and how often a call is tried.
//!
//! A failed *connect* is tried again for any method: nobody has seen the call. It is not charged to
//! the budget either, since it costs the shortener nothing and marks it down at once. Another
//! failure is tried again only when doing it twice is the same as doing it once, and the budget
//! allows. Nothing is tried more than twice, and a call that got no answer in time not at all: the
//! shortener may be busy with it still.

use std::{sync::Arc, time::Duration};

use http::{HeaderMap, Method, Request, Response, Uri, uri::PathAndQuery, uri::Scheme};
use hyper::body::Incoming;
use hyper_util::{
    client::legacy::Client,
    rt::{TokioExecutor, TokioTimer},
};
use tokio::time::{Instant, timeout_at};

use super::{Admission, CallBody, Connector, Upstreams};
use crate::{config::UpstreamSettings, metrics::Counters};

/// Shorter than a draining shortener goes on accepting, so that an idle connection is dropped here
/// before it is closed there.
const POOL_IDLE: Duration = Duration::from_secs(1);

/// The calls of one runtime; clones share the connections.
#[derive(Clone)]
pub(crate) struct UpstreamClient {
    http: Client<Connector, CallBody>,
    upstreams: Arc<Upstreams>,
    counters: Arc<Counters>,
    response_timeout: Duration,
}

/// A call to make.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    /// As the client sent it.
    pub(crate) method: Method,
    /// As the client sent it.
    pub(crate) path: PathAndQuery,
    /// Without hop-by-hop headers.
    pub(crate) headers: HeaderMap,
    /// As the client sent it.
    pub(crate) body: CallBody,
    /// Doing it twice is the same as doing it once.
    pub(crate) idempotent: bool,
    /// When the answer's head must be here, at the latest.
    pub(crate) deadline: Option<Instant>,
}

/// Why a call brought no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum UpstreamError {
    /// Every shortener's breaker is open.
    #[error("no shortener is available")]
    NoneAvailable,
    /// No connection could be made.
    #[error("a shortener could not be reached")]
    Unreachable(#[source] hyper_util::client::legacy::Error),
    /// The connection broke before the answer.
    #[error("the connection to a shortener broke")]
    Broken(#[source] hyper_util::client::legacy::Error),
    /// No answer in time.
    #[error("a shortener did not answer in time")]
    TimedOut,
}

impl UpstreamClient {
    /// Call it in the runtime that will use the client.
    pub(crate) fn new(
        settings: &UpstreamSettings,
        upstreams: Arc<Upstreams>,
        counters: Arc<Counters>,
    ) -> Self {
        let connector = Connector::new(settings.connect_timeout());
        let http = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(POOL_IDLE)
            .pool_max_idle_per_host(settings.max_idle_per_host)
            .build(connector);
        Self { http, upstreams, counters, response_timeout: settings.response_timeout() }
    }

    /// Makes the call and waits for the head of its answer.
    pub(crate) async fn call(&self, call: Call) -> Result<Response<Incoming>, UpstreamError> {
        self.upstreams.budget.deposit();
        let first = self.upstreams.admit(None).ok_or(UpstreamError::NoneAvailable)?;
        let tried = first.upstream.index;
        let error = match self.attempt(first, call.clone()).await {
            Ok(response) => return Ok(response),
            Err(error) => error,
        };
        if !self.may_retry(&call, &error) {
            return Err(error);
        }
        let Some(second) = self.upstreams.admit(Some(tried)) else { return Err(error) };
        Counters::count(&self.counters.retries);
        tracing::debug!(error = &error as &dyn std::error::Error, "trying a call again");
        self.attempt(second, call).await
    }

    fn may_retry(&self, call: &Call, error: &UpstreamError) -> bool {
        match error {
            UpstreamError::Unreachable(_) => call.body.is_replayable(),
            UpstreamError::Broken(_) => {
                call.idempotent && call.body.is_replayable() && self.upstreams.budget.withdraw()
            }
            UpstreamError::NoneAvailable | UpstreamError::TimedOut => false,
        }
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
        let answer = match call.deadline {
            Some(deadline) => {
                let deadline = deadline.min(Instant::now() + self.response_timeout);
                let Ok(answer) = timeout_at(deadline, self.http.request(request)).await else {
                    admission.failed(false);
                    return Err(UpstreamError::TimedOut);
                };
                answer
            }
            None => self.http.request(request).await,
        };
        match answer {
            Ok(response) => {
                admission.succeeded();
                Ok(response)
            }
            Err(error) if error.is_connect() => {
                admission.failed(true);
                Err(UpstreamError::Unreachable(error))
            }
            Err(error) => {
                admission.failed(false);
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
    // Scheme, authority and path are all there, so this cannot fail; the default is `/`.
    Uri::from_parts(parts).unwrap_or_default()
}
