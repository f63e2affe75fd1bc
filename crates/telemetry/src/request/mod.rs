//! The middleware of API listeners: identity, trace, one log line and the metrics of each request.
//!
//! It wraps tracing-actix-web's logger, which makes the request's span. What that one doesn't do is
//! done here: the trace context of this OpenTelemetry version, the time to the *end* of a streamed
//! body, and a request that its client leaves.
//!
//! Invariants:
//! - Each request is logged and counted exactly once, however it ends: [`exchange::Exchange`] does
//!   both when it is dropped.
//! - Its handler, its body and that log line run inside the request's context.
//! - The response carries `x-request-id`, also when a middleware within failed.

mod body;
mod exchange;
mod identity;
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
    trace_headers::{self, TraceParent},
};

pub use body::ObservedBody;
use exchange::{Exchange, Instruments};
use identity::IdentifiedError;
use root_span::RequestSpan;

/// Carries the request's id, both ways.
pub const REQUEST_ID_HEADER: HeaderName = HeaderName::from_static("x-request-id");

const TRACEPARENT_HEADER: HeaderName = HeaderName::from_static("traceparent");

/// The middleware. Make one for a process and clone it into every worker's `App`, outermost:
/// `App::new().wrap(telemetry.clone())`.
#[derive(Clone)]
pub struct RequestTelemetry {
    instruments: Arc<Instruments>,
}

impl RequestTelemetry {
    /// Makes the instruments on `meter`; call it once.
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

/// The running middleware; actix makes it from [`RequestTelemetry`].
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
        let context = RequestContext::new(identity::request_id(request.headers()));
        let id_header = HeaderValue::from_str(&context.request_id).ok();
        let headers = request.headers();
        let fallback = TraceIds::continuing(incoming_trace(headers));
        let mut exchange = Exchange::begin(&self.instruments, &context, &request);
        request.extensions_mut().insert(Arc::clone(&context));
        let response = context.enter(|| {
            let response = self.service.call(request);
            // The span builder has decided already if spans are exported.
            context.trace_or_init(|| fallback);
            response
        });
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
                    Err(IdentifiedError::wrap(error, id_header))
                }
            }
        }))
    }
}

fn incoming_trace(headers: &HeaderMap) -> Option<TraceParent<'_>> {
    let mut values = headers.get_all(TRACEPARENT_HEADER);
    let only = values.next().filter(|_| values.next().is_none())?;
    trace_headers::parse_traceparent(only.to_str().ok()?)
}
