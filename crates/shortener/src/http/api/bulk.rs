//! `/api/v1/urls/bulk`: one change for many links.

use std::collections::HashSet;

use actix_web::{HttpResponse, http::StatusCode, middleware::from_fn, web};
use serde::Serialize;
use utoipa::ToSchema;

use linnet_domain::LinkId;
use linnet_store::ChangedLink;

use super::{
    super::error::ApiError,
    ApiState, Caller,
    fields::{
        Ids, JsonBody,
        declare::{Required, RequiredBody, body},
    },
    format::vary_by_prefer,
    import::import_urls,
    urls::UrlPatch,
};

/// The maximum number of links in one request. The statement for them must finish within
/// `postgres.statement_timeout_ms`.
const MAX_IDS: usize = 1_000;

type LinkIds = Ids<LinkId, MAX_IDS>;

body! {
    /// A change of many links.
    pub(crate) struct UrlBulkPatch as "UrlBulkPatch" {
        /// The ids of the links, each once.
        ids: Required<LinkIds>,
        /// The change, the same for each link.
        change: RequiredBody<UrlPatch>,
    }
}

body! {
    /// A deletion of many links.
    pub(crate) struct UrlBulkDelete as "UrlBulkDelete" {
        /// The ids of the links, each once.
        ids: Required<LinkIds>,
    }
}

/// The result of a bulk change.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct UrlBulkAnswer {
    /// How many links were found.
    count: usize,
    /// One result for each id, in the order of the request.
    results: Vec<UrlBulkResult>,
}

/// The result for one link.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct UrlBulkResult {
    /// The id of the link.
    #[schema(value_type = i64)]
    id: LinkId,
    /// The status that the same request for this link alone would have returned.
    status: u16,
}

pub(super) fn routes(cfg: &mut web::ServiceConfig) {
    cfg.service(
        web::resource("/urls/bulk")
            .wrap(from_fn(vary_by_prefer))
            .route(web::post().to(import_urls))
            .route(web::patch().to(update))
            .route(web::delete().to(delete)),
    );
}

/// Applies one change to many links. Links that do not exist or belong to another user are skipped; an error response
/// changes none.
#[utoipa::path(patch, path = "/api/v1/urls/bulk", operation_id = "update_urls", tag = "urls",
    request_body = UrlBulkPatch,
    responses((status = 200, description = "The result for each link: 200 or 404", body = UrlBulkAnswer)))]
pub(crate) async fn update(
    state: web::Data<ApiState>,
    caller: Caller,
    body: JsonBody<UrlBulkPatch>,
) -> Result<HttpResponse, ApiError> {
    let UrlBulkPatch { ids, change } = body.fields;
    let patch = change.into();
    let changed =
        state.store.update_links(&ids, caller.visibility(), caller.user_id(), &patch).await?;
    Ok(respond(&state, &ids, &changed, StatusCode::OK).await)
}

/// Deletes many links. Links that do not exist or belong to another user are skipped; an error response deletes none.
/// Their events and short codes are kept as after the deletion of one link.
#[utoipa::path(delete, path = "/api/v1/urls/bulk", operation_id = "delete_urls", tag = "urls",
    request_body = UrlBulkDelete,
    responses((status = 200, description = "The result for each link: 204 or 404", body = UrlBulkAnswer)))]
pub(crate) async fn delete(
    state: web::Data<ApiState>,
    caller: Caller,
    body: JsonBody<UrlBulkDelete>,
) -> Result<HttpResponse, ApiError> {
    let ids = body.fields.ids;
    let deleted = state.store.delete_links(&ids, caller.visibility(), caller.user_id()).await?;
    Ok(respond(&state, &ids, &deleted, StatusCode::NO_CONTENT).await)
}

/// Publishes the invalidations before the response, so that the client reads its own change.
async fn respond(
    state: &ApiState,
    ids: &[LinkId],
    changed: &[ChangedLink],
    success: StatusCode,
) -> HttpResponse {
    if changed.iter().any(|changed| changed.outbox_id.is_some()) {
        state.announcer.relay_outbox().await;
    }
    let found: HashSet<LinkId> = changed.iter().map(|changed| changed.link.id).collect();
    let status_of = |id| if found.contains(&id) { success } else { StatusCode::NOT_FOUND };
    let results =
        ids.iter().map(|&id| UrlBulkResult { id, status: status_of(id).as_u16() }).collect();
    HttpResponse::Ok().json(UrlBulkAnswer { count: found.len(), results })
}
