//! `/api/v1/urls/bulk`: the same change for many links at once.

use std::collections::HashSet;

use actix_web::{HttpResponse, http::StatusCode, web};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use linnet_domain::LinkId;
use linnet_store::ChangedLink;

use super::{
    super::error::ApiError,
    ApiState, Caller,
    fields::{Fields, JsonObject, ids, members},
    import::import_urls,
    urls::{UrlPatch, read_patch},
};

/// Links of one request, so that its one statement ends within `postgres.statement_timeout_ms`.
const MAX_IDS: usize = 1_000;

/// A change of many links.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[expect(
    dead_code,
    reason = "documents the input; `Fields` reads it, to report all errors at once"
)]
pub(crate) struct UrlBulkPatch {
    /// The links, each once.
    #[schema(schema_with = different_ids)]
    ids: Vec<i64>,
    /// What changes, for each of them.
    change: UrlPatch,
}

/// A deletion of many links.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[expect(
    dead_code,
    reason = "documents the input; `Fields` reads it, to report all errors at once"
)]
pub(crate) struct UrlBulkDelete {
    /// The links, each once.
    #[schema(schema_with = different_ids)]
    ids: Vec<i64>,
}

/// What became of many links.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct UrlBulkAnswer {
    /// How many were found.
    count: usize,
    /// One for each id, in the order of the request.
    results: Vec<UrlBulkResult>,
}

/// What became of one link.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct UrlBulkResult {
    /// The link.
    #[schema(value_type = i64)]
    id: LinkId,
    /// What the same request for this link alone would have been answered with.
    status: u16,
}

pub(super) fn routes(cfg: &mut web::ServiceConfig) {
    cfg.service(
        web::resource("/urls/bulk")
            .route(web::post().to(import_urls))
            .route(web::patch().to(update))
            .route(web::delete().to(delete)),
    );
}

/// Changes many links in the same way, those that are there and the caller's: all of them or, when the
/// answer is an error, none.
#[utoipa::path(patch, path = "/api/v1/urls/bulk", operation_id = "update_urls", tag = "urls",
    request_body = UrlBulkPatch,
    responses((status = 200, description = "What became of each: 200 or 404", body = UrlBulkAnswer)))]
pub(crate) async fn update(
    state: web::Data<ApiState>,
    caller: Caller,
    body: JsonObject,
) -> Result<HttpResponse, ApiError> {
    let mut fields = body.fields;
    let ids = read_ids(&mut fields);
    let patch = fields.required("change", members).map(|mut change| {
        let patch = read_patch(&mut change, &state.targets);
        fields.absorb("change", change);
        patch
    });
    let (ids, patch) = fields.finish_with(ids.zip(patch))?;
    let changed =
        state.store.update_links(&ids, caller.visibility(), caller.user_id(), &patch).await?;
    Ok(answer(&state, &ids, &changed, StatusCode::OK).await)
}

/// Deletes many links, those that are there and the caller's: all of them or, when the answer is an
/// error, none. Their codes are free again, their events stay.
#[utoipa::path(delete, path = "/api/v1/urls/bulk", operation_id = "delete_urls", tag = "urls",
    request_body = UrlBulkDelete,
    responses((status = 200, description = "What became of each: 204 or 404", body = UrlBulkAnswer)))]
pub(crate) async fn delete(
    state: web::Data<ApiState>,
    caller: Caller,
    body: JsonObject,
) -> Result<HttpResponse, ApiError> {
    let mut fields = body.fields;
    let ids = read_ids(&mut fields);
    let ids = fields.finish_with(ids)?;
    let gone = state.store.delete_links(&ids, caller.visibility(), caller.user_id()).await?;
    Ok(answer(&state, &ids, &gone, StatusCode::NO_CONTENT).await)
}

fn read_ids(fields: &mut Fields) -> Option<Vec<LinkId>> {
    fields.required("ids", |value| ids(value, MAX_IDS))
}

/// Tells the caches first: whoever has the answer sees what it says.
async fn answer(
    state: &ApiState,
    ids: &[LinkId],
    changed: &[ChangedLink],
    done: StatusCode,
) -> HttpResponse {
    if changed.iter().any(|changed| changed.outbox_id.is_some()) {
        state.announcer.relay_outbox().await;
    }
    let found: HashSet<LinkId> = changed.iter().map(|changed| changed.link.id).collect();
    let status_of = |id| if found.contains(&id) { done } else { StatusCode::NOT_FOUND };
    let results =
        ids.iter().map(|&id| UrlBulkResult { id, status: status_of(id).as_u16() }).collect();
    HttpResponse::Ok().json(UrlBulkAnswer { count: found.len(), results })
}

fn different_ids() -> utoipa::openapi::schema::Array {
    use utoipa::openapi::{ArrayBuilder, KnownFormat, ObjectBuilder, SchemaFormat, Type};
    let id = ObjectBuilder::new()
        .schema_type(Type::Integer)
        .format(Some(SchemaFormat::KnownFormat(KnownFormat::Int64)))
        .minimum(Some(1));
    ArrayBuilder::new()
        .description(Some("The links, each once."))
        .items(id)
        .min_items(Some(1))
        .max_items(Some(MAX_IDS))
        .unique_items(true)
        .build()
}
