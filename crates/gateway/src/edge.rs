//! What every answer carries, whatever made it: security headers, CORS, and `Connection: close`
//! while the process drains.
//!
//! The headers here are defaults: a page or the shortener may have set its own.

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

/// Nothing here is a page that loads anything; `/docs` has a policy of its own.
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

/// Shared by all workers.
#[derive(Clone)]
pub(crate) struct Edge {
    lifecycle: Lifecycle,
    origins: Arc<[String]>,
}

impl Edge {
    pub(crate) fn new(lifecycle: Lifecycle, cors: &CorsSettings) -> Self {
        Self { lifecycle, origins: cors.allowed_origins.as_slice().into() }
    }

    /// The request's origin, if it is an allowed one.
    fn allowed_origin(&self, headers: &HeaderMap) -> Option<HeaderValue> {
        if self.origins.is_empty() {
            return None;
        }
        let origin = headers.get(header::ORIGIN)?;
        let text = origin.to_str().ok()?;
        let allowed = self.origins.iter().any(|known| known == "*" || known == text);
        allowed.then(|| origin.clone())
    }

    fn finish(
        &self,
        origin: Option<HeaderValue>,
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
        }
        if let Some(origin) = origin {
            headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
            headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, EXPOSED_HEADERS);
        }
    }
}

/// The middleware.
pub(crate) async fn edge<B: MessageBody + 'static>(
    edge: web::Data<Edge>,
    request: ServiceRequest,
    next: Next<B>,
) -> Result<ServiceResponse<EitherBody<B>>, Error> {
    let origin = edge.allowed_origin(request.headers());
    let mut response = if origin.is_some() && is_preflight(&request) {
        let answer = HttpResponse::NoContent()
            .insert_header((header::ACCESS_CONTROL_ALLOW_METHODS, ALLOWED_METHODS))
            .insert_header((header::ACCESS_CONTROL_ALLOW_HEADERS, ALLOWED_HEADERS))
            .insert_header((header::ACCESS_CONTROL_MAX_AGE, PREFLIGHT_SECONDS))
            .finish();
        request.into_response(answer).map_into_right_body()
    } else {
        next.call(request).await?.map_into_left_body()
    };
    edge.finish(origin, &mut response);
    Ok(response)
}

fn is_preflight(request: &ServiceRequest) -> bool {
    request.method() == Method::OPTIONS
        && request.headers().contains_key(header::ACCESS_CONTROL_REQUEST_METHOD)
}
