//! `/internal/v1`: requests of the gateway. The service token protects the whole API listener.

use actix_web::{
    Error, HttpResponse,
    body::MessageBody,
    dev::{ServiceRequest, ServiceResponse},
    middleware::Next,
    web,
};
use linnet_platform::lifecycle::Lifecycle;
use linnet_protocol::{
    key_lookup::{KeyLookupRequest, KeyLookupResponse},
    problem::Problem,
    settings::ServiceSettings,
    stream_token::{self, StreamToken},
};
use std::time::Duration;

use linnet_domain::{ApiKeySecret, Visibility};

use super::{
    api::{self, ApiState},
    error::{ApiError, RETRY_AFTER_UNAVAILABLE},
};

/// Adds the routes.
pub fn routes(cfg: &mut web::ServiceConfig) {
    cfg.service(
        web::scope("/internal/v1")
            .route("/keys/lookup", web::post().to(look_up_key))
            .route("/health", web::get().to(health)),
    );
}

/// Rejects every request without the service token.
pub async fn require_token<B: MessageBody + 'static>(
    request: ServiceRequest,
    next: Next<B>,
) -> Result<ServiceResponse<B>, Error> {
    let accepted = request.app_data::<web::Data<ServiceSettings>>().is_some_and(|settings| {
        let presented = request.headers().get(ServiceSettings::TOKEN_HEADER);
        presented.is_some_and(|token| settings.accepts(token.as_bytes()))
    });
    if !accepted {
        return Err(
            ApiError::from(Problem::unauthorized("The request lacks the service token.")).into()
        );
    }
    next.call(request).await
}

/// The time limit of one request on the API listener.
#[derive(Debug, Clone, Copy)]
pub struct RequestTimeout(pub Duration);

/// Responds with 503 to requests that take too long. PostgreSQL's own timeouts end statements; this limit is for a
/// PostgreSQL server that does not respond at all.
pub async fn limit_time<B: MessageBody + 'static>(
    request: ServiceRequest,
    next: Next<B>,
) -> Result<ServiceResponse<B>, Error> {
    let limit = request.app_data::<web::Data<RequestTimeout>>().map(|limit| limit.0);
    // The timeout of an upload applies to each part of its body instead.
    let limit = limit.filter(|_| !api::is_upload(request.request()));
    let response = next.call(request);
    match limit {
        None => response.await,
        Some(limit) => tokio::time::timeout(limit, response).await.unwrap_or_else(|_| {
            let problem = Problem::unavailable(
                "The request took too long. Retry later.",
                RETRY_AFTER_UNAVAILABLE,
            );
            tracing::warn!("request timed out");
            Err(ApiError::from(problem).into())
        }),
    }
}

/// Closes connections after their responses while the process drains.
pub async fn close_while_draining<B: MessageBody + 'static>(
    request: ServiceRequest,
    next: Next<B>,
) -> Result<ServiceResponse<B>, Error> {
    let lifecycle = request.app_data::<web::Data<Lifecycle>>().cloned();
    let mut response = next.call(request).await?;
    if lifecycle.is_some_and(|lifecycle| lifecycle.is_draining()) {
        let head = response.response_mut().head_mut();
        head.set_connection_type(actix_web::http::ConnectionType::Close);
    }
    Ok(response)
}

async fn look_up_key(
    state: web::Data<ApiState>,
    service: web::Data<ServiceSettings>,
    body: web::Bytes,
) -> Result<HttpResponse, ApiError> {
    let not_found = || ApiError::not_found("key");
    let request: KeyLookupRequest<'_> = serde_json::from_slice(&body).map_err(|_| not_found())?;
    if request.key.starts_with(stream_token::PREFIX) {
        // Accepts an expired token too, because the gateway verifies open streams with the token that opened them.
        let token = StreamToken::parse(&request.key).filter(|token| token.is_authentic(&service));
        let id = token.ok_or_else(not_found)?.key_id().to_owned();
        let key = state.store.find_key(&id, Visibility::All).await?.ok_or_else(not_found)?;
        return Ok(HttpResponse::Ok().json(KeyLookupResponse {
            key_id: key.id,
            user_id: key.user_id,
            scopes: key.scopes.iter().map(|scope| scope.as_str().to_owned()).collect(),
            expires_at: key.expires_at,
        }));
    }
    let key = ApiKeySecret::parse(&request.key).map_err(|_| not_found())?;
    let owner = state.store.authenticate(&key).await?.ok_or_else(not_found)?;
    Ok(HttpResponse::Ok().json(KeyLookupResponse {
        key_id: key.id().as_str().to_owned(),
        user_id: owner.user_id,
        scopes: owner.scopes.iter().map(|scope| scope.as_str().to_owned()).collect(),
        expires_at: owner.expires_at,
    }))
}

async fn health(lifecycle: web::Data<Lifecycle>) -> HttpResponse {
    if lifecycle.is_draining() {
        HttpResponse::ServiceUnavailable().finish()
    } else {
        HttpResponse::Ok().finish()
    }
}
