//! Middleware that adds headers to every response: security headers, CORS headers and, while the process
//! drains, `Connection: close`.
//!
//! Security headers are defaults: those that a page or a shortener has set are kept.

use std::sync::Arc;

use actix_web::{
    Error, HttpResponse,
    body::{EitherBody, MessageBody},
    dev::{ServiceRequest, ServiceResponse},
    http::{
        ConnectionType, Method,
        header::{self, HeaderMap, HeaderName, HeaderValue},
    },
    middleware::Next,
    web,
};
use linnet_platform::lifecycle::Lifecycle;

use crate::config::CorsSettings;

/// The default security headers, for responses that load no other resource. The pages set their own policies.
const DEFAULTS: [(HeaderName, HeaderValue); 5] = [
    (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
    (header::REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
    (
        header::CONTENT_SECURITY_POLICY,
        HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'"),
    ),
    (
        HeaderName::from_static("permissions-policy"),
        HeaderValue::from_static("camera=(), geolocation=(), microphone=(), payment=()"),
    ),
    (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
];

const ALLOWED_METHODS: HeaderValue =
    HeaderValue::from_static("GET, HEAD, POST, PUT, PATCH, DELETE");
const ALLOWED_HEADERS: HeaderValue = HeaderValue::from_static(
    "authorization, content-type, idempotency-key, prefer, x-api-key, x-request-id",
);
const EXPOSED_HEADERS: HeaderValue = HeaderValue::from_static(
    "link, location, ratelimit, ratelimit-policy, retry-after, x-request-id",
);
const PREFLIGHT_SECONDS: HeaderValue = HeaderValue::from_static("600");

/// Configuration of [`edge`]; clones share the origins.
#[derive(Clone)]
pub(crate) struct Edge {
    lifecycle: Lifecycle,
    origins: Arc<[String]>,
}

impl Edge {
    pub(crate) fn new(lifecycle: Lifecycle, cors: &CorsSettings) -> Self {
        Self { lifecycle, origins: cors.allowed_origins.as_slice().into() }
    }

    /// The request's origin, if it is allowed.
    fn allowed_origin(&self, headers: &HeaderMap) -> Option<HeaderValue> {
        if self.origins.is_empty() {
            return None;
        }
        let origin = headers.get(header::ORIGIN)?;
        let text = origin.to_str().ok()?;
        let is_allowed = self.origins.iter().any(|allowed| allowed == "*" || allowed == text);
        is_allowed.then(|| origin.clone())
    }

    fn add_headers(
        &self,
        origin: Option<HeaderValue>,
        is_options: bool,
        response: &mut ServiceResponse<impl MessageBody>,
    ) {
        let head = response.response_mut().head_mut();
        if self.lifecycle.is_draining() {
            head.set_connection_type(ConnectionType::Close);
        }
        let headers = head.headers_mut();
        for (name, value) in DEFAULTS {
            if !headers.contains_key(&name) {
                headers.insert(name, value);
            }
        }
        if !self.origins.is_empty() {
            headers.append(header::VARY, HeaderValue::from_static("origin"));
            if is_options {
                let by_method = HeaderValue::from_static("access-control-request-method");
                headers.append(header::VARY, by_method);
            }
        }
        if let Some(origin) = origin {
            headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
            headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, EXPOSED_HEADERS);
        }
    }
}

/// Responds to CORS preflight requests, and adds the headers to all responses.
pub(crate) async fn edge<B: MessageBody + 'static>(
    edge: web::Data<Edge>,
    request: ServiceRequest,
    next: Next<B>,
) -> Result<ServiceResponse<EitherBody<B>>, Error> {
    let origin = edge.allowed_origin(request.headers());
    let is_options = request.method() == Method::OPTIONS;
    let mut response = if origin.is_some() && is_preflight(&request) {
        let preflight = HttpResponse::NoContent()
            .insert_header((header::ACCESS_CONTROL_ALLOW_METHODS, ALLOWED_METHODS))
            .insert_header((header::ACCESS_CONTROL_ALLOW_HEADERS, ALLOWED_HEADERS))
            .insert_header((header::ACCESS_CONTROL_MAX_AGE, PREFLIGHT_SECONDS))
            .finish();
        request.into_response(preflight).map_into_right_body()
    } else {
        next.call(request).await?.map_into_left_body()
    };
    edge.add_headers(origin, is_options, &mut response);
    Ok(response)
}

fn is_preflight(request: &ServiceRequest) -> bool {
    request.method() == Method::OPTIONS
        && request.headers().contains_key(header::ACCESS_CONTROL_REQUEST_METHOD)
}
