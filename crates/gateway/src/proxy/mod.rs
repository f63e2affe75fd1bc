//! Forwards an API request to a shortener, and its response to the client.

mod client_address;
mod headers;
mod request_body;
mod response_body;

use std::net::IpAddr;

use actix_web::{
    HttpRequest, HttpResponse,
    body::BodySize,
    dev::Payload,
    http::{ConnectionType, StatusCode, header::CONTENT_TYPE},
};
use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, Response, uri::PathAndQuery};
use hyper::body::{Body as _, Incoming};
use linnet_protocol::{problem::Problem, routes::BodyMode, settings::ServiceSettings};
use tokio::time::Instant;

use crate::{
    auth::Caller,
    problems,
    thread_state::ThreadState,
    upstream::{Call, CallBody, UpstreamError},
};
use request_body::{STREAM_IDLE_TIMEOUT, Upload};
use response_body::{BodyTimeout, ProxiedBody};

pub(crate) use client_address::client_address;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");
const REAL_IP: HeaderName = HeaderName::from_static("x-real-ip");
const SERVICE_TOKEN: HeaderName = HeaderName::from_static(ServiceSettings::TOKEN_HEADER);

/// Forwards the request with the identity of `caller`. `address` is the client's address.
///
/// A streamed request has an idle timeout instead of the request timeout.
pub(crate) async fn forward(
    state: &ThreadState,
    request: &HttpRequest,
    mut payload: Payload,
    caller: &Caller,
    address: Option<IpAddr>,
    body_mode: BodyMode,
) -> Result<HttpResponse, Problem> {
    let deadline = Instant::now() + state.request_timeout;
    let (body, upload) = match body_mode {
        BodyMode::Buffered => {
            let limit = state.body_limit;
            match request_body::read(request.headers(), &mut payload, limit, deadline).await {
                Ok(bytes) => (CallBody::Buffered(bytes), None),
                Err(problem) => return Ok(request_body::reject(&problem, payload)),
            }
        }
        BodyMode::Streamed => request_body::stream(request.headers(), payload),
    };
    // A shortener responds after the end of an upload, which has no deadline.
    let head_deadline = upload.is_none().then_some(deadline);
    let call = call(state, request, caller, address, body, head_deadline)?;
    let is_head = call.method == Method::HEAD;
    let result = state.client.call(call);
    let result = match &upload {
        None => result.await,
        Some(upload) => upload
            .wait_for(result, STREAM_IDLE_TIMEOUT)
            .await
            .unwrap_or(Err(UpstreamError::TimedOut)),
    };
    let response = result.map_err(|error| {
        tracing::warn!(error = &error as &dyn std::error::Error, "call to shortener failed");
        problems::from_upstream(&error)
    })?;
    let body_timeout = match body_mode {
        BodyMode::Buffered => BodyTimeout::Deadline(deadline),
        BodyMode::Streamed => BodyTimeout::Idle(STREAM_IDLE_TIMEOUT),
    };
    Ok(respond(state, response, is_head, body_timeout, upload))
}

fn call(
    state: &ThreadState,
    request: &HttpRequest,
    caller: &Caller,
    address: Option<IpAddr>,
    body: CallBody,
    deadline: Option<Instant>,
) -> Result<Call, Problem> {
    let method = Method::from_bytes(request.method().as_str().as_bytes());
    let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
    let path = PathAndQuery::from_maybe_shared(Bytes::copy_from_slice(path.as_bytes()));
    let (Ok(method), Ok(path)) = (method, path) else { return Err(problems::bad_request()) };

    let mut headers = headers::for_upstream(request.headers());
    caller.write_headers(&mut headers);
    headers.insert(SERVICE_TOKEN, state.service_token.clone());
    let value = |text: String| HeaderValue::from_maybe_shared(Bytes::from(text));
    if let Some(Ok(id)) = linnet_telemetry::context::request_id().map(value) {
        headers.insert(REQUEST_ID, id);
    }
    if let Some(Ok(trace)) = linnet_telemetry::context::traceparent().map(value) {
        headers.insert(TRACEPARENT, trace);
    }
    if !linnet_telemetry::context::continues_trace() {
        headers.remove(TRACESTATE);
    }
    if let Some(Ok(address)) = address.map(|address| value(address.to_string())) {
        headers.insert(REAL_IP, address);
    }
    let is_idempotent = matches!(method, Method::GET | Method::HEAD | Method::PUT | Method::DELETE)
        || headers.contains_key("idempotency-key");
    Ok(Call { method, path, headers, body, is_idempotent, deadline })
}

fn respond(
    state: &ThreadState,
    response: Response<Incoming>,
    is_head: bool,
    body_timeout: BodyTimeout,
    upload: Option<Upload>,
) -> HttpResponse {
    let (parts, incoming) = response.into_parts();
    let status = StatusCode::from_u16(parts.status.as_u16()).unwrap_or(StatusCode::BAD_GATEWAY);
    let content_length = || {
        let length = parts.headers.get(http::header::CONTENT_LENGTH)?;
        length.to_str().ok()?.parse().ok()
    };
    let size = if is_head {
        content_length().map_or(BodySize::None, BodySize::Sized)
    } else if status == StatusCode::NO_CONTENT || status == StatusCode::NOT_MODIFIED {
        BodySize::None
    } else {
        incoming.size_hint().exact().map_or(BodySize::Stream, BodySize::Sized)
    };
    let is_event_stream = parts
        .headers
        .get(http::header::CONTENT_TYPE)
        .is_some_and(|kind| kind.as_bytes().starts_with(b"text/event-stream"));
    let body_timeout =
        if is_event_stream { BodyTimeout::Idle(STREAM_IDLE_TIMEOUT) } else { body_timeout };
    let is_early = upload.as_ref().is_some_and(Upload::is_incomplete);
    let mut body = ProxiedBody::new(incoming, size, body_timeout, upload);
    if is_event_stream {
        body = body.ending_with(state.lifecycle.stopping().cancelled_owned());
    }
    let mut response = HttpResponse::new(status).set_body(body);
    headers::for_client(&parts.headers, response.headers_mut());
    // actix-web would add a default type, but the response must stay as the shortener sent it.
    if !parts.headers.contains_key(http::header::CONTENT_TYPE) {
        response.headers_mut().remove(CONTENT_TYPE);
    }
    if is_early {
        response.head_mut().set_connection_type(ConnectionType::Close);
    }
    response.map_into_boxed_body()
}
