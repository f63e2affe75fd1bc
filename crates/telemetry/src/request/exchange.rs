//! One request from its first byte to its last, logged and counted once.

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

use crate::{
    context::RequestContext,
    metrics::{REQUEST_DURATION, latency_histogram},
};

/// The target of a request's line, whatever the module that writes it is called.
const LOG_TARGET: &str = "linnet_telemetry::request";

/// What proxies log for a client that left before its answer was complete.
const CLIENT_CLOSED_REQUEST: u16 = 499;

/// The metrics of API requests, named by the semantic conventions.
pub(super) struct Instruments {
    /// From the request's head to the end of the response's body.
    duration: Histogram<f64>,
    /// Requests that have begun and not ended.
    active: UpDownCounter<i64>,
    /// More queries than this are warned about; 0 never.
    query_warn_count: u32,
}

impl Instruments {
    pub(super) fn new(meter: &Meter, query_warn_count: u32) -> Self {
        Self {
            duration: latency_histogram(
                meter,
                REQUEST_DURATION,
                "Time from a request's head to the end of its response",
            ),
            active: meter
                .i64_up_down_counter("http.server.active_requests")
                .with_description("Requests that have begun and not ended")
                .with_unit("{request}")
                .build(),
            query_warn_count,
        }
    }
}

/// A guard over one request: whatever drops it, the request is logged, timed and no longer active.
pub(super) struct Exchange {
    instruments: Arc<Instruments>,
    context: Arc<RequestContext>,
    method: &'static str,
    route: String,
    started: Instant,
    status: Option<StatusCode>,
    end: End,
}

enum End {
    /// Nobody has said how it ended: if this is dropped, the client has gone.
    Open,
    Complete,
    /// The body failed on our side after the head was sent.
    BodyFailed(String),
}

impl Exchange {
    pub(super) fn begin(
        instruments: &Arc<Instruments>,
        context: &Arc<RequestContext>,
        request: &ServiceRequest,
    ) -> Self {
        let method = method_label(request.method());
        instruments.active.add(1, &[KeyValue::new("http.request.method", method)]);
        Self {
            instruments: Arc::clone(instruments),
            context: Arc::clone(context),
            method,
            route: route_label(request),
            started: Instant::now(),
            status: None,
            end: End::Open,
        }
    }

    pub(super) fn context(&self) -> &Arc<RequestContext> {
        &self.context
    }

    pub(super) fn head_sent(&mut self, status: StatusCode) {
        self.status = Some(status);
    }

    pub(super) fn complete(&mut self) {
        self.end = End::Complete;
    }

    pub(super) fn body_failed(&mut self, error: String) {
        self.end = End::BodyFailed(error);
    }

    /// The status to report, and what went wrong after the head if anything did.
    fn outcome(&self) -> (u16, Option<&str>) {
        let sent = self.status.map_or(StatusCode::INTERNAL_SERVER_ERROR.as_u16(), |s| s.as_u16());
        match &self.end {
            End::Complete => (sent, None),
            End::BodyFailed(error) => (sent, Some(error)),
            End::Open if std::thread::panicking() => {
                (StatusCode::INTERNAL_SERVER_ERROR.as_u16(), Some("the handler panicked"))
            }
            End::Open => (CLIENT_CLOSED_REQUEST, None),
        }
    }

    fn log(&self, status: u16, failure: Option<&str>, elapsed: Duration) {
        let request_id = self.context.request_id.as_str();
        let trace_id = self.context.trace_id().unwrap_or_default();
        let (method, route) = (self.method, self.route.as_str());
        let duration_ms = milliseconds(elapsed);
        let queries = self.context.queries();
        let query_ms = milliseconds(self.context.query_time());
        if status >= 500 || failure.is_some() {
            tracing::error!(
                target: LOG_TARGET,
                request_id,
                trace_id,
                method,
                route,
                status,
                duration_ms,
                db.queries = queries,
                db.time_ms = query_ms,
                error = failure,
                "request"
            );
        } else {
            tracing::info!(
                target: LOG_TARGET,
                request_id,
                trace_id,
                method,
                route,
                status,
                duration_ms,
                db.queries = queries,
                db.time_ms = query_ms,
                "request"
            );
        }
        let limit = self.instruments.query_warn_count;
        if limit > 0 && queries > limit {
            tracing::warn!(
                target: LOG_TARGET,
                request_id,
                trace_id,
                method,
                route,
                limit,
                db.queries = queries,
                "too many queries in one request"
            );
        }
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        let elapsed = self.started.elapsed();
        let (status, failure) = self.outcome();
        self.log(status, failure, elapsed);
        self.instruments.active.add(-1, &[KeyValue::new("http.request.method", self.method)]);
        self.instruments.duration.record(
            elapsed.as_secs_f64(),
            &[
                KeyValue::new("http.request.method", self.method),
                KeyValue::new("http.response.status_code", i64::from(status)),
                KeyValue::new("http.route", std::mem::take(&mut self.route)),
            ],
        );
    }
}

/// To the microsecond: finer would only make the lines longer.
fn milliseconds(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1e6).round() / 1e3
}

/// The pattern that matched, never the path: a client chooses paths.
pub(super) fn route_label(request: &ServiceRequest) -> String {
    request.match_pattern().unwrap_or_else(|| "unmatched".to_owned())
}

/// The method if it is a known one: a client may send any word.
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
