//! `/api/v1`: one resource a file.
//!
//! The gateway has authenticated the caller and checked its scopes; here it is decided what is
//! theirs. Every query is told whose things it may touch ([`Caller::sees`]), so somebody else's
//! thing and an absent one look the same.

pub(super) mod api_keys;
pub(super) mod bulk;
pub(super) mod events;
pub(super) mod export;
mod fields;
mod format;
mod idempotency;
pub(super) mod import;
pub(super) mod jobs;
mod list;
pub(super) mod live;
mod sse;
mod state;
pub(super) mod stats;
pub(super) mod urls;
pub(super) mod users;

pub use export::{ExportSlots, Exports};
pub use fields::MAX_BODY_BYTES;
pub(crate) use list::{CursorText, TimeCursorText};
pub use state::{ApiState, Caller, IdGuard};

use actix_web::{HttpRequest, HttpResponse, http::Method, web};
use linnet_protocol::problem::Problem;

/// Adds every route of `/api/v1`.
pub fn routes(cfg: &mut web::ServiceConfig) {
    cfg.service(
        web::scope("/api/v1")
            // Before the links by their ids.
            .configure(export::routes)
            .configure(bulk::routes)
            .configure(import::routes)
            .configure(urls::routes)
            .configure(jobs::routes)
            .configure(stats::routes)
            .configure(live::routes)
            .configure(users::routes)
            .configure(events::routes)
            .configure(api_keys::routes),
    );
}

/// Whether the request brings a file of rows.
pub(super) fn is_upload(request: &HttpRequest) -> bool {
    request.method() == Method::POST && request.path().ends_with("/bulk")
}

/// Answers what no route takes.
pub async fn unknown_path() -> Result<HttpResponse, super::error::ApiError> {
    Err(Problem::not_found("there is no such path").into())
}
