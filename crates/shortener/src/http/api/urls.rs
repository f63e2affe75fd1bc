//! `/api/v1/urls`: links.

use actix_web::{HttpResponse, http::StatusCode, web};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use linnet_domain::{
    Link, LinkAttributePatch, LinkAttributes, LinkId, LinkPatch, NewLink, ShortCode, TargetPolicy,
    TargetUrl, UserId,
    rules::{Boolean, Rule, Violation, string},
};
use linnet_store::{Constraint, LinkCreation};

use super::{
    super::error::ApiError,
    ApiState, Caller, IdGuard,
    fields::{CreateBody, Fields, JsonObject, PatchBody, QueryFields, id},
    idempotency::{self, CreatedResponse, IdempotencyKey, IdempotencyParams},
    link_filter::{LinkFilterParams, read_filter},
    list::{CursorParam, ListParams, ListQuery},
};

const PATH: &str = "/api/v1/urls";

/// A link.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct UrlBody {
    /// The id.
    #[schema(value_type = i64)]
    id: LinkId,
    /// The owner; null for a link that was created without a key.
    #[schema(value_type = Option<i64>, required)]
    user_id: Option<UserId>,
    /// The short code.
    short_code: String,
    /// The short URL.
    short_url: String,
    /// The target URL, normalized.
    original_url: String,
    #[serde(flatten)]
    #[schema(ignore)]
    attributes: LinkAttributes,
    /// Recorded clicks.
    clicks: i64,
    /// When it was created.
    created_at: DateTime<Utc>,
    /// When it was last changed.
    updated_at: DateTime<Utc>,
}

impl UrlBody {
    fn new(link: Link, base_url: &str) -> Self {
        Self {
            short_url: format!("{base_url}/{}", link.short_code),
            id: link.id,
            user_id: link.user_id,
            short_code: link.short_code,
            original_url: link.original_url,
            attributes: link.attributes,
            clicks: link.clicks,
            created_at: link.created_at,
            updated_at: link.updated_at,
        }
    }
}

/// A link to create. Only `original_url` is required.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(as = UrlCreate)]
#[serde(deny_unknown_fields)]
#[expect(
    dead_code,
    reason = "documents the input; `read_new` reads it, and `LinkSchemas` adds the other fields"
)]
pub(crate) struct UrlCreate {
    /// An absolute URL with an allowed scheme and a host, without credentials.
    #[schema(format = "uri", max_length = 8192, example = "https://example.com/a/long/path")]
    original_url: String,
    /// A chosen short code; without one, a code of 7 characters is generated. Reserved words are rejected.
    #[schema(min_length = 3, max_length = 64, pattern = "^[0-9A-Za-z_-]{3,64}$")]
    short_code: Option<String>,
    /// The owner; only administrators may name another user.
    #[schema(minimum = 1)]
    user_id: Option<i64>,
    /// Returns the owner's existing link for the same target, if there is one. Links with a chosen short code or with
    /// limits are never reused, and such a request always creates a link.
    reuse: Option<bool>,
}

/// A change of a link: any subset of the fields. Null clears a field that can be null.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[expect(
    dead_code,
    reason = "documents the input; `read_patch` reads it, and `LinkSchemas` adds the other fields"
)]
pub(crate) struct UrlPatch {
    /// The new target URL.
    #[schema(nullable = false, format = "uri", max_length = 8192)]
    original_url: Option<String>,
}

pub(super) fn routes(cfg: &mut web::ServiceConfig) {
    cfg.service(
        web::resource("/urls")
            .route(web::get().to(list))
            .route(web::head().to(list))
            .route(web::post().to(create)),
    )
    .service(
        web::resource("/urls/{id}")
            .route(web::get().to(get))
            .route(web::head().to(get))
            .route(web::put().to(update))
            .route(web::patch().to(update))
            .route(web::delete().to(delete)),
    );
}

/// Creates a link.
#[utoipa::path(post, path = "/api/v1/urls", operation_id = "create_url", tag = "urls", request_body = UrlCreate,
    params(IdempotencyParams),
    responses((status = 201, description = "Created", body = UrlBody,
        headers(("Location" = String, description = "The path of the new link"))),
        (status = 200, description = "The link that `reuse` found", body = UrlBody,
        headers(("Location" = String, description = "The path of the link")))))]
pub(crate) async fn create(
    state: web::Data<ApiState>,
    caller: Caller,
    key: IdempotencyKey,
    body: JsonObject,
) -> Result<HttpResponse, ApiError> {
    let JsonObject { mut fields, raw } = body;
    let user_id = fields.optional("user_id", id);
    let reuse = fields.optional("reuse", Boolean::from_json).unwrap_or(false);
    let new = read_new(&mut fields, &state.targets);
    let mut new = fields.finish_with(new)?;
    new.user_id = caller.owner(user_id)?;
    let reuse = reuse && new.is_plain();
    // No cache has a negative entry for a code that was generated just now.
    let may_be_cached = new.short_code.is_some();

    let mut created = None;
    let response = idempotency::once(&state, &caller, "POST /urls", key, &raw, async |creator| {
        let (made, link) = made(&state, creator.create_link(new, reuse).await?)?;
        created = link;
        Ok(made)
    })
    .await?;
    if let Some(link) = created.filter(|_| may_be_cached) {
        state.announcer.created(&link).await;
    }
    Ok(response)
}

/// The response, and the link if it is new.
fn made(
    state: &ApiState,
    created: LinkCreation,
) -> Result<(CreatedResponse, Option<Link>), ApiError> {
    let (status, link, is_new) = match created {
        LinkCreation::New(link) => (StatusCode::CREATED, link, true),
        LinkCreation::Reused(link) => (StatusCode::OK, link, false),
        LinkCreation::CodeTaken => {
            return Err(Constraint::CodeTaken.into());
        }
    };
    let new = is_new.then(|| link.clone());
    let location = format!("{PATH}/{}", link.id);
    Ok((CreatedResponse::new(status, location, &UrlBody::new(link, &state.base_url))?, new))
}

/// Lists links in the order of ids.
#[utoipa::path(get, path = "/api/v1/urls", operation_id = "list_urls", tag = "urls",
    params(LinkFilterParams, ListParams, CursorParam),
    responses((status = 200, description = "One page", body = [UrlBody],
        headers(("Link" = String, description = "The next page, as RFC 8288")))))]
pub(crate) async fn list(
    state: web::Data<ApiState>,
    caller: Caller,
    query: QueryFields,
) -> Result<HttpResponse, ApiError> {
    let (list, filter) = ListQuery::read(query, read_filter)?;
    let links = state.store.list_links(&filter, caller.visibility(), list.page).await?;
    let bodies: Vec<UrlBody> =
        links.into_iter().map(|link| UrlBody::new(link, &state.base_url)).collect();
    Ok(list.respond(PATH, &bodies, |last| last.id.get()))
}

/// Returns a link.
#[utoipa::path(get, path = "/api/v1/urls/{id}", operation_id = "get_url", tag = "urls",
    params(("id" = i64, Path, minimum = 1)),
    responses((status = 200, description = "The link", body = UrlBody)))]
pub(crate) async fn get(
    state: web::Data<ApiState>,
    caller: Caller,
    id: IdGuard<LinkId>,
) -> Result<HttpResponse, ApiError> {
    let link = state.store.find_link(id.0, caller.visibility()).await?;
    let link = link.ok_or_else(|| ApiError::not_found("link"))?;
    Ok(HttpResponse::Ok().json(UrlBody::new(link, &state.base_url)))
}

/// Changes a link. `PUT` and `PATCH` are the same: both accept any subset of the fields.
#[utoipa::path(patch, path = "/api/v1/urls/{id}", operation_id = "update_url", tag = "urls", request_body = UrlPatch,
    params(("id" = i64, Path, minimum = 1)),
    responses((status = 200, description = "The link after the change", body = UrlBody)))]
pub(crate) async fn update(
    state: web::Data<ApiState>,
    caller: Caller,
    id: IdGuard<LinkId>,
    body: JsonObject,
) -> Result<HttpResponse, ApiError> {
    let mut fields = body.fields;
    let patch = read_patch(&mut fields, &state.targets);
    fields.finish()?;
    let changed =
        state.store.update_link(id.0, caller.visibility(), caller.user_id(), &patch).await?;
    let changed = changed.ok_or_else(|| ApiError::not_found("link"))?;
    state.announcer.updated(&changed).await;
    Ok(HttpResponse::Ok().json(UrlBody::new(changed.link, &state.base_url)))
}

/// Deletes a link. Its short code becomes available again; its events stay.
#[utoipa::path(delete, path = "/api/v1/urls/{id}", operation_id = "delete_url", tag = "urls",
    params(("id" = i64, Path, minimum = 1)),
    responses((status = 204, description = "Deleted")))]
pub(crate) async fn delete(
    state: web::Data<ApiState>,
    caller: Caller,
    id: IdGuard<LinkId>,
) -> Result<HttpResponse, ApiError> {
    let gone = state.store.delete_link(id.0, caller.visibility(), caller.user_id()).await?;
    let gone = gone.ok_or_else(|| ApiError::not_found("link"))?;
    state.announcer.deleted(&gone).await;
    Ok(HttpResponse::NoContent().finish())
}

/// Reads a new link without its owner.
fn read_new(fields: &mut Fields, targets: &TargetPolicy) -> Option<NewLink> {
    let short_code = fields.optional("short_code", |value| {
        ShortCode::parse(&string(value)?).map_err(Violation::invalid)
    });
    let attributes = LinkAttributePatch::read(&mut CreateBody(fields)).or_default();
    let target = fields.required("original_url", |value| target(value, targets))?;
    Some(NewLink { user_id: None, short_code, target, attributes })
}

/// Reads a change of a link.
pub(super) fn read_patch(fields: &mut Fields, targets: &TargetPolicy) -> LinkPatch {
    LinkPatch {
        target: fields.change("original_url", |value| target(value, targets)),
        attributes: LinkAttributePatch::read(&mut PatchBody(fields)),
    }
}

fn target(value: serde_json::Value, targets: &TargetPolicy) -> Result<TargetUrl, Violation> {
    targets.parse(&string(value)?).map_err(Violation::invalid)
}
