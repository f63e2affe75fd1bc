//! One API request, passed on to a shortener and its answer passed back.

mod client_address;
mod headers;
mod request_body;
mod response_body;

use std::net::IpAddr;

use actix_web::{
    HttpRequest, HttpResponse,
    body::BodySize,
    dev::Payload,
    http::{StatusCode, header::CONTENT_TYPE},
};
use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, Response, uri::PathAndQuery};
use hyper::body::{Body as _, Incoming};
use linnet_protocol::{problem::Problem, settings::ServiceSettings};
use tokio::time::Instant;

use linnet_protocol::routes::BodyMode;

use crate::{
    auth::Caller,
    upstream::{Call, CallBody, UpstreamError},
    worker::Worker,
};
use request_body::{Pump, STREAM_SILENCE};
use response_body::{Patience, ProxiedBody};

pub(crate) use client_address::client_address;
pub(crate) use headers::ORIGIN;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const REAL_IP: HeaderName = HeaderName::from_static("x-real-ip");
const SERVICE_TOKEN: HeaderName = HeaderName::from_static(ServiceSettings::TOKEN_HEADER);

/// Passes the request on.
pub(crate) async fn forward(
    worker: &Worker,
    request: &HttpRequest,
    mut payload: Payload,
    caller: &Caller,
    address: Option<IpAddr>,
    body_mode: BodyMode,
) -> Result<HttpResponse, Problem> {
    let deadline = Instant::now() + worker.request_timeout;
    let (body, pump) = match body_mode {
        BodyMode::Buffered => {
            let limit = worker.body_limit;
            match request_body::read(request.headers(), &mut payload, limit, deadline).await {
                Ok(bytes) => (CallBody::Whole(bytes), None),
                Err(problem) => return Ok(request_body::refuse(&problem, payload)),
            }
        }
        BodyMode::Streamed => request_body::stream(request.headers(), payload),
    };
    // An upload's answer comes when the upload is done, whenever that is.
    let head_deadline = pump.is_none().then_some(deadline);
    let call = call(worker, request, caller, address, body, head_deadline)?;
    let is_head = call.method == Method::HEAD;
    let answer = worker.client.call(call);
    let answer = match &pump {
        None => answer.await,
        Some(pump) => {
            pump.wait_for(answer, STREAM_SILENCE).await.unwrap_or(Err(UpstreamError::TimedOut))
        }
    };
    let answer = answer.map_err(|error| {
        tracing::warn!(error = &error as &dyn std::error::Error, "a call to a shortener failed");
        problem_of(&error)
    })?;
    let patience = match body_mode {
        BodyMode::Buffered => Patience::Until(deadline),
        BodyMode::Streamed => Patience::Silence(STREAM_SILENCE),
    };
    Ok(respond(worker, answer, is_head, patience, pump))
}

fn call(
    worker: &Worker,
    request: &HttpRequest,
    caller: &Caller,
    address: Option<IpAddr>,
    body: CallBody,
    deadline: Option<Instant>,
) -> Result<Call, Problem> {
    let unusable = || {
        Problem::new(StatusCode::BAD_REQUEST, "bad_request", "The request is malformed")
            .detail("the request's method or path can't be passed on")
    };
    let method = Method::from_bytes(request.method().as_str().as_bytes());
    let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
    let path = PathAndQuery::from_maybe_shared(Bytes::copy_from_slice(path.as_bytes()));
    let (Ok(method), Ok(path)) = (method, path) else { return Err(unusable()) };

    let mut headers = headers::inwards(request.headers());
    caller.write(&mut headers);
    headers.insert(SERVICE_TOKEN, worker.service_token.clone());
    let shared = |text: String| HeaderValue::from_maybe_shared(Bytes::from(text));
    if let Some(Ok(id)) = linnet_telemetry::context::request_id().map(shared) {
        headers.insert(REQUEST_ID, id);
    }
    if let Some(Ok(trace)) = linnet_telemetry::context::traceparent().map(shared) {
        headers.insert(TRACEPARENT, trace);
    }
    if let Some(Ok(address)) = address.map(|address| shared(address.to_string())) {
        headers.insert(REAL_IP, address);
    }
    let idempotent = matches!(method, Method::GET | Method::HEAD | Method::PUT | Method::DELETE)
        || headers.contains_key("idempotency-key");
    Ok(Call { method, path, headers, body, idempotent, deadline })
}

fn respond(
    worker: &Worker,
    answer: Response<Incoming>,
    is_head: bool,
    patience: Patience,
    pump: Option<Pump>,
) -> HttpResponse {
    let (parts, incoming) = answer.into_parts();
    let status = StatusCode::from_u16(parts.status.as_u16()).unwrap_or(StatusCode::BAD_GATEWAY);
    let announced = || {
        let length = parts.headers.get(http::header::CONTENT_LENGTH)?;
        length.to_str().ok()?.parse().ok()
    };
    let size = if is_head {
        announced().map_or(BodySize::None, BodySize::Sized)
    } else if status == StatusCode::NO_CONTENT || status == StatusCode::NOT_MODIFIED {
        BodySize::None
    } else {
        incoming.size_hint().exact().map_or(BodySize::Stream, BodySize::Sized)
    };
    let is_events = parts
        .headers
        .get(http::header::CONTENT_TYPE)
        .is_some_and(|kind| kind.as_bytes().starts_with(b"text/event-stream"));
    let patience = if is_events { Patience::Silence(STREAM_SILENCE) } else { patience };
    let mut body = ProxiedBody::new(incoming, size, patience, pump);
    if is_events {
        body = body.ending_with(worker.lifecycle.stopping().cancelled_owned());
    }
    let mut response = HttpResponse::new(status).set_body(body);
    headers::outwards(&parts.headers, response.headers_mut());
    // Actix names a type for bodies that have none; the shortener's choice is the answer's.
    if !parts.headers.contains_key(http::header::CONTENT_TYPE) {
        response.headers_mut().remove(CONTENT_TYPE);
    }
    response.map_into_boxed_body()
}

/// The one place where the transport's errors become answers.
pub(crate) fn problem_of(error: &UpstreamError) -> Problem {
    match error {
        UpstreamError::NoneAvailable | UpstreamError::Unreachable(_) => {
            Problem::unavailable("the service behind is away", 1)
        }
        UpstreamError::Broken(_) => {
            Problem::new(StatusCode::BAD_GATEWAY, "bad_gateway", "The connection behind broke")
                .detail("the service behind broke off; what it did is not known")
        }
        UpstreamError::TimedOut => Problem::new(
            StatusCode::GATEWAY_TIMEOUT,
            "upstream_timeout",
            "The service behind took too long",
        )
        .detail("the service behind did not answer in time; what it did is not known"),
    }
}
