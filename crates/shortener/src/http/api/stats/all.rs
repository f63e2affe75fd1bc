//! `GET /api/v1/stats`: the clicks of all links of a user, or of all users.

use actix_web::{HttpResponse, middleware::from_fn, web};

use linnet_domain::Subject;

use super::{
    super::{
        super::error::ApiError,
        ApiState, Caller,
        fields::{QueryFields, query_id},
        format::{Accepted, FormatParams, vary_by_accept},
    },
    StatsBody, StatsParams, StatsRequest,
};

pub(super) fn routes(cfg: &mut web::ServiceConfig) {
    cfg.service(
        web::resource("/stats")
            .wrap(from_fn(vary_by_accept))
            .route(web::get().to(get))
            .route(web::head().to(get)),
    );
}

/// Counts the clicks of all links of the caller; for administrators, of all users or of `user_id`.
#[utoipa::path(get, path = "/api/v1/stats", operation_id = "get_stats", tag = "stats",
    params(("user_id" = Option<i64>, Query, minimum = 1), StatsParams, FormatParams),
    responses((status = 200, description = "Totals, a series and the most frequent values", content(
        (StatsBody = "application/json"), (String = "text/csv"))),
        (status = 404, description = "The user does not exist or is not the caller",
            body = crate::http::problem_schema::Problem, content_type = "application/problem+json")))]
pub(crate) async fn get(
    state: web::Data<ApiState>,
    caller: Caller,
    accepted: Accepted,
    query: QueryFields,
) -> Result<HttpResponse, ApiError> {
    let request = StatsRequest::read(query, accepted, |fields| {
        let named = fields.optional("user_id", query_id);
        // The store rejects a subject that the caller may not see.
        named.or(caller.visibility().owner()).map_or(Subject::Service, Subject::User)
    })?;
    request.respond(&state, &caller, "user").await
}
