//! Logs and counts one request, from its head to the end of its response.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use actix_web::{
    dev::ServiceRequest,
    http::{Method, StatusCode},
};
use opentelemetry::{
    KeyValue,
    metrics::{Histogram, Meter, UpDownCounter},
};

use super::line::{self, RequestLine};
use crate::{
    context::RequestContext,
    metrics::{REQUEST_DURATION, latency_histogram},
};

/// The status that proxies log for a client that left before its response was complete.
const CLIENT_CLOSED_REQUEST: u16 = 499;

/// The route in the log of a request that no route matches.
const UNMATCHED: &str = "unmatched";
/// The scheme of every request: TLS ends before this process.
pub(super) const SCHEME: &str = "http";

/// The metrics of API requests, named after the semantic conventions.
pub(super) struct Instruments {
    /// From the request's head to the end of the response's body.
    duration: Histogram<f64>,
    /// Requests in flight.
    active: UpDownCounter<i64>,
    /// Queries in one request above which a warning is logged; 0 disables the warning.
    query_warn_count: u32,
}

impl Instruments {
    pub(super) fn new(meter: &Meter, query_warn_count: u32) -> Self {
        Self {
            duration: latency_histogram(
                meter,
                REQUEST_DURATION,
                "Time from a request's head to the end of its response, in seconds.",
            ),
            active: meter
                .i64_up_down_counter("http.server.active_requests")
                .with_description("Number of requests in flight.")
                .with_unit("{request}")
                .build(),
            query_warn_count,
        }
    }
}

/// Guards one request: when it is dropped for any reason, the request is logged and counted, and no longer in flight.
pub(super) struct Exchange {
    instruments: Arc<Instruments>,
    context: Arc<RequestContext>,
    method: &'static str,
    /// The matched pattern; `None` if no route matches.
    route: Option<String>,
    started: Instant,
    status: Option<StatusCode>,
    end: ExchangeEnd,
}

enum ExchangeEnd {
    /// The response is not complete. If the exchange is dropped now, the client has left.
    Open,
    Complete,
    /// The body failed in this process after the head was sent.
    BodyFailed(String),
}

impl Exchange {
    pub(super) fn begin(
        instruments: &Arc<Instruments>,
        context: &Arc<RequestContext>,
        request: &ServiceRequest,
    ) -> Self {
        let method = method_label(request.method());
        instruments.active.add(1, &active_labels(method));
        Self {
            instruments: Arc::clone(instruments),
            context: Arc::clone(context),
            method,
            route: route_label(request),
            started: Instant::now(),
            status: None,
            end: ExchangeEnd::Open,
        }
    }

    pub(super) fn context(&self) -> &Arc<RequestContext> {
        &self.context
    }

    pub(super) fn head_sent(&mut self, status: StatusCode) {
        self.status = Some(status);
    }

    pub(super) fn complete(&mut self) {
        self.end = ExchangeEnd::Complete;
    }

    pub(super) fn body_failed(&mut self, error: String) {
        self.end = ExchangeEnd::BodyFailed(error);
    }

    /// The status to report, and the failure after the head, if any.
    fn status_and_failure(&self) -> (u16, Option<&str>) {
        let sent = self.status.map_or(StatusCode::INTERNAL_SERVER_ERROR.as_u16(), |s| s.as_u16());
        match &self.end {
            ExchangeEnd::Complete => (sent, None),
            ExchangeEnd::BodyFailed(error) => (sent, Some(error)),
            ExchangeEnd::Open if std::thread::panicking() => {
                (StatusCode::INTERNAL_SERVER_ERROR.as_u16(), Some("the handler panicked"))
            }
            ExchangeEnd::Open => (CLIENT_CLOSED_REQUEST, None),
        }
    }

    fn log(&self, status: u16, failure: Option<&str>, duration: Duration) {
        let request_id = self.context.request_id.as_str();
        let trace_id = self.context.trace_id().unwrap_or_default();
        let (method, route) = (self.method, self.route.as_deref().unwrap_or(UNMATCHED));
        let queries = self.context.queries();
        let query_time = self.context.query_time();
        RequestLine {
            request_id,
            trace_id,
            method,
            route,
            status,
            duration,
            queries: Some((queries, query_time)),
            failure,
        }
        .log();
        let limit = self.instruments.query_warn_count;
        if limit > 0 && queries > limit {
            tracing::warn!(
                target: line::TARGET,
                request_id,
                trace_id,
                method,
                route,
                limit,
                db.queries = queries,
                "query limit of a request exceeded"
            );
        }
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        let elapsed = self.started.elapsed();
        let (status, failure) = self.status_and_failure();
        self.log(status, failure, elapsed);
        self.instruments.active.add(-1, &active_labels(self.method));
        let error_type = error_type(status, &self.end);
        let mut labels = Vec::with_capacity(5);
        labels.push(KeyValue::new("http.request.method", self.method));
        labels.push(KeyValue::new("http.response.status_code", i64::from(status)));
        labels.push(KeyValue::new("url.scheme", SCHEME));
        labels.extend(self.route.take().map(|route| KeyValue::new("http.route", route)));
        labels.extend(error_type.map(|error| KeyValue::new("error.type", error)));
        self.instruments.duration.record(elapsed.as_secs_f64(), &labels);
    }
}

fn active_labels(method: &'static str) -> [KeyValue; 2] {
    [KeyValue::new("http.request.method", method), KeyValue::new("url.scheme", SCHEME)]
}

/// The status code of a server error, or what ended a response after its head.
fn error_type(status: u16, end: &ExchangeEnd) -> Option<String> {
    match end {
        ExchangeEnd::BodyFailed(_) => Some("response_body".to_owned()),
        ExchangeEnd::Open | ExchangeEnd::Complete => (status >= 500).then(|| status.to_string()),
    }
}

/// The matched pattern, never the path, because clients choose paths. `None` if no route matches.
pub(super) fn route_label(request: &ServiceRequest) -> Option<String> {
    request.match_pattern()
}

/// The method, if it is a known one: a client may send any word.
pub(super) fn method_label(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::PATCH => "PATCH",
        Method::DELETE => "DELETE",
        Method::OPTIONS => "OPTIONS",
        Method::CONNECT => "CONNECT",
        Method::TRACE => "TRACE",
        _ => "_OTHER",
    }
}
