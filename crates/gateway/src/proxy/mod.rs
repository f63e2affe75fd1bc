//! Forwards an API request to a shortener, and its response to the client.

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
use linnet_platform::client_network::ClientNetwork;
use linnet_protocol::{
    problem::{PROBLEM_HEADER, Problem},
    routes::{BodyMode, RequestBody, Route},
    settings::ServiceSettings,
    stream_token::PARAMETER,
};
use tokio::time::Instant;

use crate::{
    auth::{Caller, Lease},
    body_budget::{BodyOwner, BodyReservation, STREAM_BYTES},
    counters::LimitReason,
    problems,
    thread_state::ThreadState,
    upstream::{Call, CallBody, UpstreamError},
};
use request_body::{STREAM_IDLE_TIMEOUT, Upload};
use response_body::{BodyTimeout, ProxiedBody};

pub(crate) use request_body::without_body;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");
const REAL_IP: HeaderName = HeaderName::from_static("x-real-ip");
const SERVICE_TOKEN: HeaderName = HeaderName::from_static(ServiceSettings::TOKEN_HEADER);

/// The owner to which the request's body is charged.
fn body_owner(caller: &Caller, address: Option<IpAddr>) -> BodyOwner {
    match caller {
        Caller::Key(identity) => BodyOwner::User(identity.user_id()),
        Caller::Anonymous(_) => BodyOwner::Network(address.map(ClientNetwork::from)),
    }
}

/// The client of a request.
pub(crate) struct Client<'a> {
    pub(crate) caller: &'a Caller,
    /// The client's address.
    pub(crate) address: Option<IpAddr>,
    /// A streamed exchange ends with this lease. `None` for a buffered route, and for a caller without a key.
    pub(crate) lease: Option<Lease>,
}

/// Forwards the request with the identity of its caller.
///
/// A streamed request has an idle timeout instead of the request timeout.
pub(crate) async fn forward(
    state: &ThreadState,
    request: &HttpRequest,
    mut payload: Payload,
    client: Client<'_>,
    route: &Route,
) -> HttpResponse {
    let Client { caller, address, lease } = client;
    let deadline = Instant::now() + state.request_timeout;
    let headers = request.headers();
    let mut reserved = state.bodies.reserve(body_owner(caller, address));
    if let RequestBody::Json { .. } = route.body(request.method())
        && let Err(problem) = request_body::require_no_encoding(headers)
    {
        return without_body(headers, problems::response(&problem), payload);
    }
    let body = match (route.body(request.method()), route.body_mode) {
        (RequestBody::Ignored, _) => ClientBody::Unread(payload),
        (RequestBody::Json { max_bytes }, BodyMode::Buffered) => {
            let limit = max_bytes.min(state.body_limit);
            match read_body(state, request, &mut payload, limit, deadline, &mut reserved).await {
                Ok(bytes) => ClientBody::Read(bytes),
                Err(problem) => {
                    return without_body(headers, problems::response(&problem), payload);
                }
            }
        }
        (RequestBody::Json { max_bytes: limit }, BodyMode::Streamed)
            if request_body::exceeds(headers, limit) =>
        {
            return without_body(headers, problems::response(&Problem::too_large(limit)), payload);
        }
        (RequestBody::Json { .. } | RequestBody::Upload, _) => {
            let has_room = !request_body::has_body(headers) || reserved.grow(STREAM_BYTES).is_ok();
            if !has_room {
                let problem = problems::too_many_bodies();
                return without_body(headers, problems::response(&problem), payload);
            }
            ClientBody::Streamed(payload)
        }
    };
    let (body, upload, unread) = match body {
        ClientBody::Unread(payload) => (CallBody::Buffered(Bytes::new()), None, Some(payload)),
        ClientBody::Read(bytes) => (CallBody::Buffered(bytes), None, None),
        ClientBody::Streamed(payload) => {
            let (body, upload) = request_body::stream(headers, payload, reserved);
            (body, upload, None)
        }
    };
    let exchange = Exchange { state, request, caller, address, route, deadline };
    let response = exchange.run(body, upload, lease).await;
    let response = response.unwrap_or_else(|problem| problems::response(&problem));
    match unread {
        Some(payload) => without_body(headers, response, payload),
        None => response,
    }
}

/// Reads the body. 401 if the key has ended while the gateway waited for it.
async fn read_body(
    state: &ThreadState,
    request: &HttpRequest,
    payload: &mut Payload,
    limit: usize,
    deadline: Instant,
    reserved: &mut BodyReservation,
) -> Result<Bytes, Problem> {
    let read = request_body::read(request.headers(), payload, limit, deadline, reserved);
    let (bytes, has_waited) = read.await?;
    if !has_waited {
        return Ok(bytes);
    }
    match state.authenticator.is_still_valid(&state.client, request).await {
        Ok(true) => Ok(bytes),
        Ok(false) => Err(problems::invalid_key()),
        Err(error) => Err(problems::from_lookup(&error)),
    }
}

/// The client's request body, in the form that its route requires.
enum ClientBody {
    Unread(Payload),
    Read(Bytes),
    Streamed(Payload),
}

/// One exchange with a shortener: the call and its response.
struct Exchange<'a> {
    state: &'a ThreadState,
    request: &'a HttpRequest,
    caller: &'a Caller,
    address: Option<IpAddr>,
    route: &'a Route,
    deadline: Instant,
}

impl Exchange<'_> {
    async fn run(
        self,
        body: CallBody,
        upload: Option<Upload>,
        mut lease: Option<Lease>,
    ) -> Result<HttpResponse, Problem> {
        let Self { state, request, caller, address, route, deadline } = self;
        // A shortener responds after the end of an upload, which has no deadline.
        let head_deadline = upload.is_none().then_some(deadline);
        let call = call(state, request, caller, address, body, head_deadline)?;
        let is_head = call.method == Method::HEAD;
        let result = async {
            let result = state.client.call(call);
            match &upload {
                None => result.await,
                Some(upload) => upload
                    .wait_for(result, STREAM_IDLE_TIMEOUT)
                    .await
                    .unwrap_or(Err(UpstreamError::TimedOut)),
            }
        };
        let result = match &mut lease {
            None => result.await,
            Some(lease) => tokio::select! {
                biased;
                end = lease.ended() => {
                    let response = problems::response(&problems::from_lease(end));
                    return Ok(request_body::closing(response, upload));
                }
                result = result => result,
            },
        };
        let response = result.map_err(|error| {
            tracing::warn!(error = &error as &dyn std::error::Error, "call to shortener failed");
            problems::from_upstream(&error)
        })?;
        let body_timeout = match route.body_mode {
            BodyMode::Buffered => BodyTimeout::Deadline(deadline),
            BodyMode::Streamed => BodyTimeout::Idle(STREAM_IDLE_TIMEOUT),
        };
        Ok(respond(state, response, is_head, body_timeout, upload, lease))
    }
}

/// The client's headers that a shortener receives, and the headers that identify the caller.
pub(crate) fn forwarded_headers(
    incoming: &actix_web::http::header::HeaderMap,
    caller: &Caller,
) -> http::HeaderMap {
    let mut headers = headers::for_upstream(incoming);
    caller.write_headers(&mut headers);
    headers
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
    let path = PathAndQuery::from_maybe_shared(without_stream_token(path));
    let (Ok(method), Ok(path)) = (method, path) else { return Err(problems::bad_request()) };

    let mut headers = forwarded_headers(request.headers(), caller);
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
    Ok(Call { method, path, headers, body, deadline })
}

/// A path and query without its stream token, which only the gateway reads.
fn without_stream_token(path: &str) -> Bytes {
    match path.split_once('?') {
        Some((path, query)) if query.contains(PARAMETER) => {
            let is_other = |pair: &&str| pair.split('=').next() != Some(PARAMETER);
            let others: Vec<_> = query.split('&').filter(is_other).collect();
            format!("{path}?{}", others.join("&")).into()
        }
        _ => Bytes::copy_from_slice(path.as_bytes()),
    }
}

fn respond(
    state: &ThreadState,
    response: Response<Incoming>,
    is_head: bool,
    body_timeout: BodyTimeout,
    upload: Option<Upload>,
    lease: Option<Lease>,
) -> HttpResponse {
    let (parts, incoming) = response.into_parts();
    if parts.status == http::StatusCode::TOO_MANY_REQUESTS {
        let code = parts.headers.get(PROBLEM_HEADER).and_then(|code| code.to_str().ok());
        state.counters.limited(LimitReason::of_problem(code.unwrap_or_default()));
    }
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
    let mut body = ProxiedBody::new(incoming, size, body_timeout, upload).ending_with_lease(lease);
    if is_event_stream {
        body = body.ending_with(state.lifecycle.stopping().cancelled_owned());
    }
    let mut response = HttpResponse::new(status).set_body(body);
    headers::for_client(&parts.headers, response.headers_mut());
    // Without a type, actix-web adds a default one, but the response must stay as the shortener sent it.
    if !parts.headers.contains_key(http::header::CONTENT_TYPE) {
        response.headers_mut().remove(CONTENT_TYPE);
    }
    if is_early {
        response.head_mut().set_connection_type(ConnectionType::Close);
    }
    response.map_into_boxed_body()
}
