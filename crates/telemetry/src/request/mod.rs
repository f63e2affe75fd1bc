//! The middleware of API listeners, which gives each request an id, a trace, one log line and metrics.
//!
//! It wraps tracing-actix-web's logger, which creates the request's span. It adds what that logger lacks: the trace context
//! of this OpenTelemetry version, the time to the *end* of a streamed body, and requests whose client disconnects.
//!
//! Invariants:
//! - Each request is logged and counted exactly once, however it ends, because `exchange::Exchange` does so when it is
//!   dropped.
//! - The handler, the body and the log line run in the request's context.
//! - Every response has `x-request-id`, also if an inner middleware fails.

mod body;
mod exchange;
mod identity;
mod line;
mod root_span;

use std::sync::Arc;

use actix_web::{
    Error, HttpMessage as _,
    body::MessageBody,
    dev::{Service, ServiceRequest, ServiceResponse, Transform, forward_ready},
    http::header::{HeaderMap, HeaderName, HeaderValue},
};
use futures::future::{LocalBoxFuture, TryFutureExt as _};
use opentelemetry::metrics::Meter;
use tracing_actix_web::{StreamSpan, TracingLogger};

use crate::{
    config::TelemetrySettings,
    context::{RequestContext, TraceIds},
    trace_headers,
};

pub use body::ObservedBody;
use exchange::{Exchange, Instruments};
use identity::IdentifiedError;
pub use line::RequestLine;
use root_span::RequestSpan;

/// Carries the request's id, in requests and responses.
pub const REQUEST_ID_HEADER: HeaderName = HeaderName::from_static("x-request-id");

const TRACEPARENT_HEADER: HeaderName = HeaderName::from_static("traceparent");

/// The middleware. Create one per process and clone it into each server thread's `App`, outermost:
/// `App::new().wrap(telemetry.clone())`.
#[derive(Clone)]
pub struct RequestTelemetry {
    instruments: Arc<Instruments>,
}

impl RequestTelemetry {
    /// Creates the instruments on `meter`; call it once.
    pub fn new(meter: &Meter, settings: &TelemetrySettings) -> Self {
        Self { instruments: Arc::new(Instruments::new(meter, settings.query_warn_count)) }
    }
}

impl<S, B> Transform<S, ServiceRequest> for RequestTelemetry
where
    S: Service<ServiceRequest, Response = ServiceResponse<B>, Error = Error> + 'static,
    S::Future: 'static,
    B: MessageBody + 'static,
{
    type Response = ServiceResponse<ObservedBody<StreamSpan<B>>>;
    type Error = Error;
    type Transform = RequestTelemetryService<
        <TracingLogger<RequestSpan> as Transform<S, ServiceRequest>>::Transform,
    >;
    type InitError = ();
    type Future = LocalBoxFuture<'static, Result<Self::Transform, Self::InitError>>;

    fn new_transform(&self, service: S) -> Self::Future {
        let instruments = Arc::clone(&self.instruments);
        let inner = TracingLogger::<RequestSpan>::new().new_transform(service);
        Box::pin(inner.map_ok(|service| RequestTelemetryService { service, instruments }))
    }
}

/// The middleware of one server thread, which actix creates from [`RequestTelemetry`].
pub struct RequestTelemetryService<S> {
    service: S,
    instruments: Arc<Instruments>,
}

impl<S, B> Service<ServiceRequest> for RequestTelemetryService<S>
where
    S: Service<ServiceRequest, Response = ServiceResponse<B>, Error = Error>,
    S::Future: 'static,
    B: MessageBody + 'static,
{
    type Response = ServiceResponse<ObservedBody<B>>;
    type Error = Error;
    type Future = LocalBoxFuture<'static, Result<Self::Response, Self::Error>>;

    forward_ready!(service);

    fn call(&self, request: ServiceRequest) -> Self::Future {
        let headers = request.headers();
        let client_trace = traceparent_of(headers).and_then(trace_headers::parse_traceparent);
        let request_id = identity::request_id(headers);
        let id_header = HeaderValue::from_str(&request_id).ok();
        let context = RequestContext::new(request_id, client_trace.is_some());
        let fallback = TraceIds::continuing(client_trace);
        let mut exchange = Exchange::begin(&self.instruments, &context, &request);
        request.extensions_mut().insert(Arc::clone(&context));
        let response = context.enter(|| {
            let response = self.service.call(request);
            // The span builder has set the trace already if spans are exported.
            context.trace_or_init(|| fallback);
            response
        });
        let of_error = Arc::clone(&context);
        Box::pin(context.scope(async move {
            match response.await {
                Ok(mut response) => {
                    exchange.head_sent(response.status());
                    if let Some(id) = id_header {
                        response.headers_mut().insert(REQUEST_ID_HEADER, id);
                    }
                    Ok(response.map_body(|_, body| ObservedBody::new(body, exchange)))
                }
                Err(error) => {
                    exchange.head_sent(error.as_response_error().status_code());
                    exchange.complete();
                    Err(IdentifiedError::wrap(error, id_header, of_error))
                }
            }
        }))
    }
}

/// The client's `traceparent`; `None` if it is malformed or sent twice.
fn traceparent_of(headers: &HeaderMap) -> Option<&str> {
    let mut values = headers.get_all(TRACEPARENT_HEADER);
    let only = values.next().filter(|_| values.next().is_none())?.to_str().ok()?;
    trace_headers::parse_traceparent(only).map(|_| only)
}
