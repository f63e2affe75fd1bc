//! `GET /api/v1/urls/{id}/stats`: one link's clicks.

use actix_web::{HttpResponse, middleware::from_fn, web};

use linnet_domain::{LinkId, Subject};

use super::{
    super::{
        super::error::ApiError,
        ApiState, Caller, IdGuard,
        fields::QueryFields,
        format::{Accepted, FormatParams, vary_by_accept},
    },
    StatsBody, StatsParams, StatsRequest,
};

pub(super) fn routes(cfg: &mut web::ServiceConfig) {
    cfg.service(
        web::resource("/urls/{id}/stats")
            .wrap(from_fn(vary_by_accept))
            .route(web::get().to(get))
            .route(web::head().to(get)),
    );
}

/// Counts a link's clicks.
#[utoipa::path(get, path = "/api/v1/urls/{id}/stats", operation_id = "get_url_stats", tag = "stats",
    params(("id" = i64, Path, minimum = 1), StatsParams, FormatParams),
    responses((status = 200, description = "Totals, a series and the most frequent values", content(
        (StatsBody = "application/json"), (String = "text/csv")))))]
pub(crate) async fn get(
    state: web::Data<ApiState>,
    caller: Caller,
    id: IdGuard<LinkId>,
    accepted: Accepted,
    query: QueryFields,
) -> Result<HttpResponse, ApiError> {
    let request = StatsRequest::read(query, accepted, |_| Subject::Link(id.0))?;
    request.respond(&state, &caller, "link").await
}
