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

use actix_web::{HttpRequest, HttpResponse, http::Method, middleware::from_fn, web};
use linnet_protocol::problem::Problem;

use super::turns::wait_for_turn;

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
