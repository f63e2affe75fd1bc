//! The handlers of `/api/v1`, one file per resource.
//!
//! * The gateway has authenticated the caller and checked its scopes.
//! * Every query takes the caller's [`Caller::visibility`], so that a resource of another user and an absent one have
//!   the same response.

pub(super) mod api_keys;
pub(super) mod bulk;
pub(super) mod events;
pub(super) mod export;
mod fields;
mod file_stream;
mod format;
pub mod fuzzing;
mod idempotency;
pub(super) mod import;
pub(super) mod jobs;
mod link_filter;
mod list;
pub(super) mod live;
mod slots;
mod sse;
mod state;
pub(super) mod stats;
pub(super) mod stream_tokens;
pub(super) mod takedowns;
pub(super) mod urls;
pub(super) mod users;

pub(crate) use list::{CursorText, TimeCursorText};
pub use slots::Slots;
pub use state::{ApiState, Caller, IdGuard};

use actix_web::{
    Error, HttpRequest, HttpResponse,
    body::MessageBody,
    dev::{ServiceRequest, ServiceResponse},
    http::Method,
    middleware::{Next, from_fn},
    web,
};
use linnet_protocol::problem::Problem;

/// Adds every route of `/api/v1`.
pub fn routes(cfg: &mut web::ServiceConfig) {
    cfg.service(
        web::scope("/api/v1")
            .wrap(from_fn(wait_for_turn))
            // Before the routes with `/urls/{id}`.
            .configure(export::routes)
            .configure(bulk::routes)
            .configure(import::routes)
            .configure(urls::routes)
            .configure(takedowns::routes)
            .configure(jobs::routes)
            .configure(stats::routes)
            .configure(live::routes)
            .configure(stream_tokens::routes)
            .configure(users::routes)
            .configure(events::routes)
            .configure(api_keys::routes),
    );
}

/// Whether the request uploads a file of rows.
pub(super) fn is_upload(request: &HttpRequest) -> bool {
    request.method() == Method::POST && request.path().ends_with("/bulk")
}

/// Responds to paths without a route.
pub async fn unknown_path() -> Result<HttpResponse, super::error::ApiError> {
    Err(Problem::not_found("The API has no such path.").into())
}

/// Lets a request wait for its turn, which ends with the head of the response.
async fn wait_for_turn<B: MessageBody + 'static>(
    request: ServiceRequest,
    next: Next<B>,
) -> Result<ServiceResponse<B>, Error> {
    let state = request.app_data::<web::Data<ApiState>>().cloned();
    let state = state.filter(|_| !takes_own_turn(&request));
    let _turn = match state {
        Some(state) => {
            Some(state.turns.take(Caller::of(request.request()).idempotency_owner()).await?)
        }
        None => None,
    };
    next.call(request).await
}

fn takes_own_turn(request: &ServiceRequest) -> bool {
    let is_create = request.method() == Method::POST && request.path() == urls::PATH;
    is_create || is_upload(request.request())
}
