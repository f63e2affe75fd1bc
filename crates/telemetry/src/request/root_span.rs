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
            http.route = route.as_deref(),
            url.scheme = SCHEME,
            // The query is omitted, because it may contain a stream token.
            url.path = path_without_free_text(request.path(), route.as_deref()),
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

/// The path, if it consists of the route's own words and ids of digits. The client chooses any other segment, which could
/// quote a key or an address.
fn path_without_free_text<'a>(path: &'a str, route: Option<&str>) -> Option<&'a str> {
    let (mut segments, mut patterns) = (path.split('/'), route?.split('/'));
    loop {
        match (segments.next(), patterns.next()) {
            (None, None) => return Some(path),
            (Some(segment), Some(pattern)) if segment == pattern => {}
            (Some(segment), Some(pattern)) if pattern.starts_with('{') && is_number(segment) => {}
            _ => return None,
        }
    }
}

/// Whether this is an id of at most 19 digits.
fn is_number(segment: &str) -> bool {
    (1..=19).contains(&segment.len()) && segment.bytes().all(|byte| byte.is_ascii_digit())
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn must_31_only_paths_of_words_of_the_route_and_numbers_are_traced() {
        for (path, route, is_traced) in [
            ("/api/v1/urls", "/api/v1/urls", true),
            ("/api/v1/urls/42", "/api/v1/urls/{id}", true),
            ("/api/v1/urls/42/stats", "/api/v1/urls/{id}/stats", true),
            ("/docs/", "/docs/", true),
            ("/api/v1/urls/x@mail.test", "/api/v1/urls/{id}", false),
            ("/api/v1/urls/42%40", "/api/v1/urls/{id}", false),
            ("/api/v1/urls/", "/api/v1/urls/{id}", false),
            ("/api/v1/urls/12345678901234567890", "/api/v1/urls/{id}", false),
            ("/api/v1/urls/x/stats", "/api/v1/urls/{id}/stats", false),
            ("/api/v1/api-keys/lnt_JJFFAUEv_secret", "/api/v1/api-keys/{id}", false),
            ("/docs/1/x", "/docs/{tail:.*}", false),
            ("/problems/x", "/problems/{code}", false),
        ] {
            let traced = path_without_free_text(path, Some(route));
            assert_eq!(traced, is_traced.then_some(path), "{path}");
        }
        assert_eq!(path_without_free_text("/api/v1/urls", None), None);
    }
}
