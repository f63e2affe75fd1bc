//! `/api/v1/urls`: links.

use actix_web::{HttpResponse, http::StatusCode, web};
use chrono::{DateTime, Utc};
use serde::Serialize;
use utoipa::ToSchema;

use linnet_domain::{Link, LinkAttributes, LinkId, LinkPatch, NewLink, UserId, rules::Boolean};
use linnet_store::{Constraint, LinkCreation};

use super::{
    super::error::ApiError,
    ApiState, Caller, IdGuard,
    fields::{
        CustomCode, Id, JsonBody, QueryFields, Target,
        declare::{Change, Optional, Required, body},
    },
    idempotency::{self, CreatedResponse, IdempotencyKey, IdempotencyParams},
    link_filter::{LinkFilterParams, read_filter},
    list::{CursorParam, ListParams, ListQuery},
};

/// The path of links.
pub(super) const PATH: &str = "/api/v1/urls";

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
    /// When an administrator took it down; until the takedown ends, it is inactive.
    #[schema(required)]
    taken_down_at: Option<DateTime<Utc>>,
    /// Why it is taken down.
    #[schema(required)]
    takedown_reason: Option<String>,
}

impl UrlBody {
    pub(super) fn new(link: Link, base_url: &str) -> Self {
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
            taken_down_at: link.taken_down_at,
            takedown_reason: link.takedown_reason,
        }
    }
}

body! {
    /// A link to create. Only `original_url` is required.
    pub(crate) struct UrlCreate as "UrlCreate" {
        /// An absolute URL with an allowed scheme and a host, without credentials.
        original_url: Required<Target>,
        /// A chosen short code; without one, a code of 7 characters is generated. Reserved words are rejected.
        short_code: Optional<CustomCode>,
        /// The owner; only administrators may name another user.
        user_id: Optional<Id<UserId>>,
        /// Returns the owner's existing link that has the same target and redirect status, and the title if one is
        /// given. Without such a link, with a chosen short code, with limits, or without an owner, a link is created.
        reuse: Optional<Boolean>,
    }
    with attributes from CreateBody
}

body! {
    /// A change of a link: any subset of the fields. Null clears a field that can be null.
    pub(crate) struct UrlPatch as "UrlPatch" {
        /// The new target URL.
        original_url: Change<Target>,
    }
    with attributes from PatchBody
}

impl From<UrlPatch> for LinkPatch {
    fn from(body: UrlPatch) -> Self {
        Self { target: body.original_url, attributes: body.attributes }
    }
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
    body: JsonBody<UrlCreate>,
) -> Result<HttpResponse, ApiError> {
    let UrlCreate { original_url, short_code, user_id, reuse, attributes } = body.fields;
    let user_id = caller.owner(user_id)?;
    let new =
        NewLink { user_id, short_code, target: original_url, attributes: attributes.or_default() };
    let reuse = reuse.unwrap_or(false) && new.is_reusable();
    // No cache has a negative entry for a code that was generated just now.
    let may_be_cached = new.short_code.is_some();
    // Otherwise the link is created in a group.
    let needs_connection = may_be_cached || reuse || key.key().is_some();
    let _turn = if needs_connection {
        Some(state.turns.take(caller.idempotency_owner()).await?)
    } else {
        None
    };

    let mut created = None;
    let response = idempotency::once(&state, &caller, key, &body.hash, async |creator| {
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
///
/// With a `search` for fewer than three adjacent letters or digits, a page has fewer links than `limit`, or none, when
/// 20,000 links were read. Follow `Link` until there is none. Page numbers count only links among the first 20,000.
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
    let page = state.store.list_links(&filter, caller.visibility(), list.page).await?;
    let bodies: Vec<UrlBody> =
        page.links.into_iter().map(|link| UrlBody::new(link, &state.base_url)).collect();
    let cut_after = page.cut_after.map(LinkId::get);
    Ok(list.begin(PATH, &bodies, cut_after, |last| last.id.get()).json(bodies))
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
    body: JsonBody<UrlPatch>,
) -> Result<HttpResponse, ApiError> {
    let patch = body.fields.into();
    let changed =
        state.store.update_link(id.0, caller.visibility(), caller.user_id(), &patch).await?;
    let changed = changed.ok_or_else(|| ApiError::not_found("link"))?;
    state.announcer.updated(&changed).await;
    Ok(HttpResponse::Ok().json(UrlBody::new(changed.link, &state.base_url)))
}

/// Deletes a link. Its events stay. For 90 days (`links.hold_codes_days`) only its owner can create a link with its
/// short code; after a takedown no user can.
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
