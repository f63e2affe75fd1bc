//! The current request's id, trace and query totals, as a task-local context.
//!
//! Invariants:
//! - The context exists while the request's handler or its streamed body is polled. A task that a handler spawns
//!   inherits it only through [`in_current`].
//! - Without a current request every function here does nothing.

use std::{
    borrow::Cow,
    future::Future,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use futures::future::Either;
use opentelemetry::{global, propagation::Injector, trace::TraceContextExt as _};
use tracing::{Instrument as _, field::Empty};
use tracing_opentelemetry::OpenTelemetrySpanExt as _;

use crate::trace_headers::TraceParent;

/// The flag of `traceparent` for a trace that is recorded.
const SAMPLED: u8 = 1;

tokio::task_local! {
    static CURRENT: Arc<RequestContext>;
}

/// One request's identity, and its totals so far.
#[derive(Debug)]
pub(crate) struct RequestContext {
    pub(crate) request_id: String,
    continues_trace: bool,
    trace: OnceLock<TraceIds>,
    queries: AtomicU32,
    query_nanos: AtomicU64,
}

/// The request's position in its trace: `span_id` is this request's, not the client's.
#[derive(Debug)]
pub(crate) struct TraceIds {
    pub(crate) trace_id: String,
    pub(crate) span_id: String,
    pub(crate) flags: u8,
}

impl TraceIds {
    /// Continues the client's trace, or begins a new one.
    ///
    /// A new trace is marked as sampled: this process may not export spans, but a service that it calls may. Only this
    /// flag is forwarded: a service must set flags that it does not know to zero.
    pub(crate) fn continuing(parent: Option<TraceParent<'_>>) -> Self {
        let (trace_id, flags) = match parent {
            Some(parent) => (parent.trace_id.to_owned(), parent.flags & SAMPLED),
            None => (format!("{:032x}", rand::random::<u128>().max(1)), SAMPLED),
        };
        Self { trace_id, span_id: format!("{:016x}", rand::random::<u64>().max(1)), flags }
    }
}

impl RequestContext {
    /// `continues_trace`: the client sent a valid `traceparent`.
    pub(crate) fn new(request_id: String, continues_trace: bool) -> Arc<Self> {
        Arc::new(Self {
            request_id,
            continues_trace,
            trace: OnceLock::new(),
            queries: AtomicU32::new(0),
            query_nanos: AtomicU64::new(0),
        })
    }

    /// The trace; the first call sets it: from the exported span, or else from the headers.
    pub(crate) fn trace_or_init(&self, make: impl FnOnce() -> TraceIds) -> &TraceIds {
        self.trace.get_or_init(make)
    }

    pub(crate) fn trace_id(&self) -> Option<&str> {
        self.trace.get().map(|trace| trace.trace_id.as_str())
    }

    pub(crate) fn queries(&self) -> u32 {
        self.queries.load(Ordering::Relaxed)
    }

    pub(crate) fn query_time(&self) -> Duration {
        Duration::from_nanos(self.query_nanos.load(Ordering::Relaxed))
    }

    /// Runs `poll` with this as the current request.
    pub(crate) fn enter<T>(self: &Arc<Self>, poll: impl FnOnce() -> T) -> T {
        CURRENT.sync_scope(Arc::clone(self), poll)
    }

    /// Runs `future` with this as the current request.
    pub(crate) fn scope<F: Future>(
        self: Arc<Self>,
        future: F,
    ) -> impl Future<Output = F::Output> + use<F> {
        CURRENT.scope(self, future)
    }
}

/// Reads the current request's context without cloning it; `None` without a request.
pub(crate) fn with_current<T>(read: impl FnOnce(&RequestContext) -> T) -> Option<T> {
    CURRENT.try_with(|current| read(current)).ok()
}

fn current() -> Option<Arc<RequestContext>> {
    CURRENT.try_with(Arc::clone).ok()
}

/// The current request's id.
pub fn request_id() -> Option<String> {
    with_current(|current| current.request_id.clone())
}

/// The current request's trace id: 32 hexadecimal digits.
pub fn trace_id() -> Option<String> {
    with_current(|current| current.trace_id().map(str::to_owned)).flatten()
}

/// Whether the current request continues its client's trace. If not, the client's `tracestate` must not be forwarded: it
/// belongs to another trace.
pub fn continues_trace() -> bool {
    with_current(|current| current.continues_trace).unwrap_or(false)
}

/// The `traceparent` for a call to another service. It names the current span if spans are exported, and the current
/// request otherwise.
pub fn traceparent() -> Option<String> {
    let context = tracing::Span::current().context();
    if context.span().span_context().is_valid() {
        let mut header = TraceParentOnly(None);
        global::get_text_map_propagator(|propagator| {
            propagator.inject_context(&context, &mut header);
        });
        if header.0.is_some() {
            return header.0;
        }
    }
    with_current(|current| {
        let trace = current.trace.get()?;
        Some(format!("00-{}-{}-{:02x}", trace.trace_id, trace.span_id, trace.flags))
    })
    .flatten()
}

struct TraceParentOnly(Option<String>);

impl Injector for TraceParentOnly {
    fn set(&mut self, key: &str, value: String) {
        if key == "traceparent" {
            self.0 = Some(value);
        }
    }
}

/// Wraps a future so that it keeps the current request, if any, when another task polls it.
pub fn in_current<F: Future>(future: F) -> impl Future<Output = F::Output> + use<F> {
    match current() {
        Some(current) => Either::Left(current.scope(future)),
        None => Either::Right(future),
    }
}

/// Runs a database query, and adds it to the current request's `db.queries` and `db.time_ms`.
///
/// A query whose future is dropped early counts too, because the server may have executed it. If spans are exported,
/// the query is a span named `operation`.
pub async fn observe_query<F: Future>(operation: &'static str, query: F) -> F::Output {
    let _timer = current().map(QueryTimer::start);
    query.instrument(query_span(operation)).await
}

/// The same as [`observe_query`]. The span of a query that fails has the reason.
pub async fn observe_fallible_query<T, E>(
    operation: &'static str,
    query: impl Future<Output = Result<T, E>>,
    failure_of: impl FnOnce(&E) -> QueryFailure,
) -> Result<T, E> {
    let _timer = current().map(QueryTimer::start);
    let span = query_span(operation);
    let result = query.instrument(span.clone()).await;
    if let Err(error) = &result
        && !span.is_disabled()
    {
        let QueryFailure { error_type, status_code } = failure_of(error);
        span.record("error.type", &*error_type);
        span.record("otel.status_code", "ERROR");
        if let Some(code) = status_code {
            span.record("db.response.status_code", code);
        }
    }
    result
}

/// Why a query failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueryFailure {
    /// One of few values: the database's code, or a word.
    pub error_type: Cow<'static, str>,
    /// The database's code (`SQLSTATE`), if it responded.
    pub status_code: Option<String>,
}

fn query_span(operation: &'static str) -> tracing::Span {
    tracing::debug_span!(
        target: "linnet_telemetry",
        "query",
        otel.name = operation,
        otel.kind = "client",
        otel.status_code = Empty,
        db.operation.name = operation,
        db.system.name = "postgresql",
        db.response.status_code = Empty,
        error.type = Empty,
    )
}

struct QueryTimer {
    request: Arc<RequestContext>,
    started: Instant,
}

impl QueryTimer {
    fn start(request: Arc<RequestContext>) -> Self {
        Self { request, started: Instant::now() }
    }
}

impl Drop for QueryTimer {
    fn drop(&mut self) {
        let nanos = u64::try_from(self.started.elapsed().as_nanos()).unwrap_or(u64::MAX);
        self.request.queries.fetch_add(1, Ordering::Relaxed);
        self.request.query_nanos.fetch_add(nanos, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn queries_are_counted_and_a_dropped_one_counts_too() {
        let request = RequestContext::new("r".to_owned(), false);
        Arc::clone(&request)
            .scope(async {
                assert_eq!(observe_query("one", async { 1 }).await, 1);
                let both = futures::future::join(
                    observe_query("two", async {}),
                    tokio::spawn(in_current(observe_query("three", async {}))),
                );
                both.await.1.unwrap();
                let mut hung = Box::pin(observe_query("hung", futures::future::pending::<()>()));
                assert!(futures::poll!(&mut hung).is_pending());
                drop(hung);
            })
            .await;
        assert_eq!(request.queries(), 4);
        assert!(request.query_time() > Duration::ZERO);
    }

    #[tokio::test]
    async fn without_a_request_every_function_does_nothing() {
        assert_eq!(observe_query("alone", async { 7 }).await, 7);
        assert_eq!((request_id(), trace_id(), traceparent()), (None, None, None));
    }

    #[tokio::test]
    async fn the_outgoing_header_continues_the_trace_with_a_new_span_and_no_unknown_flag() {
        for (flags, sent_flags) in [("00", 0), ("01", 1), ("02", 0), ("fe", 0), ("ff", 1)] {
            let header = format!("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-{flags}");
            let parent = crate::trace_headers::parse_traceparent(&header);
            let request = RequestContext::new("r".to_owned(), false);
            request.trace_or_init(|| TraceIds::continuing(parent));
            let out = request.enter(traceparent).unwrap();
            let sent = crate::trace_headers::parse_traceparent(&out).unwrap();
            let expected = ("4bf92f3577b34da6a3ce929d0e0e4736", sent_flags);
            assert_eq!((sent.trace_id, sent.flags), expected, "{flags}");
            assert_ne!(sent.parent_id, "00f067aa0ba902b7");
        }
    }
}
