//! Builds the request's span, as a child of the client's span.
//!
//! tracing-actix-web has no feature for this OpenTelemetry version, so its own builder ignores `traceparent`. This
//! builder reads it with the global propagator. The parent must be set before the span is entered.

use std::sync::Arc;

use actix_web::{
    Error, HttpMessage as _,
    body::MessageBody,
    dev::{ServiceRequest, ServiceResponse},
    http::header::HeaderMap,
};
use opentelemetry::{global, propagation::Extractor, trace::TraceContextExt as _};
use tracing::{Span, field::Empty};
use tracing_actix_web::RootSpanBuilder;
use tracing_opentelemetry::OpenTelemetrySpanExt as _;

use super::{
    exchange::{SCHEME, method_label, route_label},
    traceparent_of,
};
use crate::context::{RequestContext, TraceIds};

/// The builder of the request's span.
pub struct RequestSpan;

impl RootSpanBuilder for RequestSpan {
    fn on_request_start(request: &ServiceRequest) -> Span {
        let context = request.extensions().get::<Arc<RequestContext>>().map(Arc::clone);
        let method = method_label(request.method());
        let route = route_label(request);
        let span = tracing::info_span!(
            target: "linnet_telemetry",
            "request",
            otel.name = route.as_ref().map_or_else(|| method.to_owned(), |route| format!("{method} {route}")),
            otel.kind = "server",
            otel.status_code = Empty,
            http.request.method = method,
            http.route = route,
            url.scheme = SCHEME,
            // Only if a route matches: in such a path the client chooses only the ids, any other path could contain
            // anything. The query is omitted, because it may contain a stream token.
            url.path = route_label(request).map(|_| request.path()),
            error.type = Empty,
            http.response.status_code = Empty,
            request_id = context.as_ref().map(|context| context.request_id.as_str()),
        );
        if span.is_disabled() {
            return span;
        }
        let parent = global::get_text_map_propagator(|propagator| {
            propagator.extract(&Headers(request.headers()))
        });
        // Fails without a layer that exports spans; the middleware then reads the header itself.
        if span.set_parent(parent).is_ok()
            && let Some(context) = context
        {
            let own = span.context();
            let own = own.span().span_context().clone();
            if own.is_valid() {
                context.trace_or_init(|| TraceIds {
                    trace_id: own.trace_id().to_string(),
                    span_id: own.span_id().to_string(),
                    flags: own.trace_flags().to_u8(),
                });
            }
        }
        span
    }

    fn on_request_end<B: MessageBody>(span: Span, outcome: &Result<ServiceResponse<B>, Error>) {
        let status = match outcome {
            Ok(response) => response.status(),
            Err(error) => error.as_response_error().status_code(),
        };
        span.record("http.response.status_code", status.as_u16());
        if status.is_server_error() {
            span.record("otel.status_code", "ERROR");
            span.record("error.type", status.as_str());
        }
    }
}

struct Headers<'a>(&'a HeaderMap);

impl Extractor for Headers<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        match key {
            "traceparent" => traceparent_of(self.0),
            key => self.0.get(key)?.to_str().ok(),
        }
    }

    fn keys(&self) -> Vec<&str> {
        self.0.keys().map(actix_web::http::header::HeaderName::as_str).collect()
    }
}
