//! `/api/v1/urls`: links.

use actix_web::{HttpResponse, http::StatusCode, web};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use utoipa::{
    PartialSchema, ToSchema,
    openapi::{ObjectBuilder, RefOr, Schema, Type},
};

use linnet_domain::{
    Link, LinkFilter, LinkId, LinkPatch, NewLink, RedirectStatus, ShortCode, TargetPolicy,
    TargetUrl, UserId, bounded_text,
};
use linnet_store::{Constraint, LinkCreation};

use super::{
    super::error::ApiError,
    ApiState, Caller, IdGuard,
    fields::{
        Bad, Fields, JsonObject, QueryFields, boolean, id, integer, invalid, positive,
        query_boolean, query_id, string, timestamp,
    },
    idempotency::{self, IdempotencyKey, IdempotencyParams, Made},
    list::{CursorParam, ListParams, ListQuery},
};

const PATH: &str = "/api/v1/urls";
const MIN_SEARCH: usize = 3;
const MAX_SEARCH: usize = 200;

/// A link, as the API shows it.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct UrlBody {
    /// Unique number.
    #[schema(value_type = i64)]
    id: LinkId,
    /// The owner; null for a link made without a key.
    #[schema(value_type = Option<i64>, required)]
    user_id: Option<UserId>,
    /// The code.
    short_code: String,
    /// What to hand out.
    short_url: String,
    /// The target, normalised.
    original_url: String,
    /// A label.
    #[schema(required)]
    title: Option<String>,
    /// Whether it resolves.
    is_active: bool,
    /// 301, 302, 307 or 308.
    redirect_status: u16,
    /// When it stops resolving.
    #[schema(required)]
    expires_at: Option<DateTime<Utc>>,
    /// After how many clicks it stops resolving.
    #[schema(required)]
    max_clicks: Option<i64>,
    /// Clicks so far.
    clicks: i64,
    /// When it was made.
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
            title: link.title,
            is_active: link.is_active,
            redirect_status: link.redirect_status.code(),
            expires_at: link.expires_at,
            max_clicks: link.max_clicks,
            clicks: link.clicks,
            created_at: link.created_at,
            updated_at: link.updated_at,
        }
    }
}

/// A redirect's status, as documented.
pub(crate) struct RedirectStatusCode;

impl PartialSchema for RedirectStatusCode {
    fn schema() -> RefOr<Schema> {
        let values = [301, 302, 307, 308];
        ObjectBuilder::new().schema_type(Type::Integer).enum_values(Some(values)).build().into()
    }
}

impl ToSchema for RedirectStatusCode {}

/// What makes a link. Only `original_url` is needed.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(as = UrlCreate)]
#[serde(deny_unknown_fields)]
#[expect(
    dead_code,
    reason = "documents the input; `Fields` reads it, to report all errors at once"
)]
pub(crate) struct UrlCreate {
    /// An absolute URL of an allowed scheme with a host and without credentials.
    #[schema(format = "uri", max_length = 8192, example = "https://example.com/a/long/path")]
    original_url: String,
    /// A chosen code; without one a code of 7 characters is drawn. Reserved words are refused.
    #[schema(min_length = 3, max_length = 64, pattern = "^[0-9A-Za-z_-]{3,64}$")]
    short_code: Option<String>,
    /// A label.
    #[schema(
        min_length = 1,
        max_length = 500,
        pattern = r"^[^\x00-\x1f\x7f-\x9f]*[^\s\x00-\x1f\x7f-\x9f][^\x00-\x1f\x7f-\x9f]*$"
    )]
    title: Option<String>,
    /// The owner; only administrators name another than themselves.
    #[schema(minimum = 1)]
    user_id: Option<i64>,
    /// Default true.
    is_active: Option<bool>,
    /// Default 302.
    #[schema(value_type = Option<RedirectStatusCode>)]
    redirect_status: Option<u16>,
    /// When it stops resolving.
    expires_at: Option<DateTime<Utc>>,
    /// After how many clicks it stops resolving.
    #[schema(minimum = 1)]
    max_clicks: Option<i64>,
    /// Gives the link that already leads there, if the same owner has one. Links with a chosen code
    /// or limits are neither given nor reused: with those the request makes a new link.
    reuse: Option<bool>,
}

/// A change of a link: any subset of the fields. Null clears what can be empty.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[expect(
    dead_code,
    reason = "documents the input; `Fields` reads it, to report all errors at once"
)]
pub(crate) struct UrlPatch {
    /// New target.
    #[schema(nullable = false, format = "uri", max_length = 8192)]
    original_url: Option<String>,
    /// New label.
    #[schema(
        min_length = 1,
        max_length = 500,
        pattern = r"^[^\x00-\x1f\x7f-\x9f]*[^\s\x00-\x1f\x7f-\x9f][^\x00-\x1f\x7f-\x9f]*$"
    )]
    title: Option<String>,
    /// Switches it on or off.
    #[schema(nullable = false)]
    is_active: Option<bool>,
    /// New status: 301, 302, 307 or 308.
    #[schema(nullable = false, value_type = Option<RedirectStatusCode>)]
    redirect_status: Option<u16>,
    /// New end.
    expires_at: Option<DateTime<Utc>>,
    /// New limit.
    #[schema(minimum = 1)]
    max_clicks: Option<i64>,
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
        headers(("Location" = String, description = "The new link's address"))),
        (status = 200, description = "`reuse` found a link", body = UrlBody,
        headers(("Location" = String, description = "The link's address")))))]
pub(crate) async fn create(
    state: web::Data<ApiState>,
    caller: Caller,
    key: IdempotencyKey,
    body: JsonObject,
) -> Result<HttpResponse, ApiError> {
    let JsonObject { mut fields, raw } = body;
    let user_id = fields.optional("user_id", id);
    let reuse = fields.optional("reuse", boolean).unwrap_or(false);
    let new = read_new(&mut fields, &state.targets);
    let mut new = fields.finish_with(new)?;
    new.user_id = caller.owner(user_id)?;
    let reuse = reuse && new.is_plain();
    // Nobody has asked for a code that was drawn just now: no cache can hold that it is absent.
    let may_be_cached = new.short_code.is_some();

    let mut news = None;
    let response = idempotency::once(&state, &caller, "POST /urls", key, &raw, async |maker| {
        let (made, link) = answer(&state, maker.create_link(new, reuse).await?)?;
        news = link;
        Ok(made)
    })
    .await?;
    if let Some(link) = news.filter(|_| may_be_cached) {
        state.announcer.created(&link).await;
    }
    Ok(response)
}

/// The answer, and the link that caches must hear of.
fn answer(state: &ApiState, created: LinkCreation) -> Result<(Made, Option<Link>), ApiError> {
    let (status, link, is_new) = match created {
        LinkCreation::New(link) => (StatusCode::CREATED, link, true),
        LinkCreation::Reused(link) => (StatusCode::OK, link, false),
        LinkCreation::CodeTaken => {
            return Err(Constraint::CodeTaken.into());
        }
    };
    let news = is_new.then(|| link.clone());
    let location = format!("{PATH}/{}", link.id);
    Ok((Made::new(status, location, &UrlBody::new(link, &state.base_url))?, news))
}

/// Lists links, by id.
#[utoipa::path(get, path = "/api/v1/urls", operation_id = "list_urls", tag = "urls",
    params(("user_id" = Option<i64>, Query, minimum = 1), ("is_active" = Option<bool>, Query),
        ("search" = Option<String>, Query, min_length = 3, max_length = 200,
            pattern = r"^[^\x00-\x1f\x7f-\x9f]*[^\s\x00-\x1f\x7f-\x9f][^\x00-\x1f\x7f-\x9f]*$"),
        ListParams, CursorParam),
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

/// Shows a link.
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

/// Changes a link. `PUT` and `PATCH` are the same: both take any subset of the fields.
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

/// Changes a link.
#[utoipa::path(put, path = "/api/v1/urls/{id}", operation_id = "replace_url", tag = "urls", request_body = UrlPatch,
    params(("id" = i64, Path, minimum = 1)),
    responses((status = 200, description = "The link after the change", body = UrlBody)))]
#[expect(dead_code, reason = "documents that PUT is PATCH; the route calls `update`")]
pub(crate) fn replace() {}

/// Deletes a link. Its code is free again, its events stay.
#[utoipa::path(delete, path = "/api/v1/urls/{id}", operation_id = "delete_url", tag = "urls",
    params(("id" = i64, Path, minimum = 1)),
    responses((status = 204, description = "Gone")))]
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

/// Reads what filters a list.
pub(super) fn read_filter(fields: &mut Fields) -> LinkFilter {
    LinkFilter {
        user_id: fields.optional("user_id", query_id),
        is_active: fields.optional("is_active", query_boolean),
        search: fields.optional("search", search),
    }
}

/// Reads what makes a link, but the owner.
fn read_new(fields: &mut Fields, targets: &TargetPolicy) -> Option<NewLink> {
    let short_code =
        fields.optional("short_code", |value| ShortCode::parse(&string(value)?).map_err(invalid));
    let title = fields.optional("title", title);
    let is_active = fields.optional("is_active", boolean).unwrap_or(true);
    let redirect_status = fields.optional("redirect_status", redirect_status).unwrap_or_default();
    let expires_at = fields.optional("expires_at", timestamp);
    let max_clicks = fields.optional("max_clicks", positive);
    let target = fields.required("original_url", |value| target(value, targets))?;
    Some(NewLink {
        user_id: None,
        short_code,
        target,
        title,
        is_active,
        redirect_status,
        expires_at,
        max_clicks,
    })
}

/// Reads a change of a link.
pub(super) fn read_patch(fields: &mut Fields, targets: &TargetPolicy) -> LinkPatch {
    LinkPatch {
        target: fields.change("original_url", |value| target(value, targets)),
        title: fields.change_or_clear("title", title),
        is_active: fields.change("is_active", boolean),
        redirect_status: fields.change("redirect_status", redirect_status),
        expires_at: fields.change_or_clear("expires_at", timestamp),
        max_clicks: fields.change_or_clear("max_clicks", positive),
    }
}

fn target(value: serde_json::Value, targets: &TargetPolicy) -> Result<TargetUrl, Bad> {
    let text = string(value)?;
    targets.parse(&text).map_err(invalid)
}

/// The index finds groups of three characters.
fn search(value: serde_json::Value) -> Result<String, Bad> {
    let text = bounded_text(&string(value)?, MAX_SEARCH).map_err(invalid)?;
    if text.chars().count() < MIN_SEARCH {
        return Err(invalid(format!("must be at least {MIN_SEARCH} characters")));
    }
    Ok(text)
}

fn title(value: serde_json::Value) -> Result<String, Bad> {
    bounded_text(&string(value)?, Link::MAX_TITLE).map_err(invalid)
}

fn redirect_status(value: serde_json::Value) -> Result<RedirectStatus, Bad> {
    RedirectStatus::from_code(integer(value)?)
        .ok_or_else(|| ("invalid", "must be 301, 302, 307 or 308".to_owned()))
}
