//! `/api/v1/events`: what happened. Events are made and read, never changed.

use actix_web::{HttpResponse, http::StatusCode, web};
use serde::Deserialize;
use utoipa::ToSchema;

use crate::domain::{Event, EventFilter, EventType, NewEvent};

use super::{
    super::error::ApiError,
    ApiState, Caller, IdGuard,
    fields::{Bad, JsonObject, QueryFields, object, positive, query_positive, string},
    idempotency::{self, IdempotencyKey, IdempotencyParams, Made},
    list::{ListParams, ListQuery},
};

const PATH: &str = "/api/v1/events";

/// A client's own event.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[expect(
    dead_code,
    reason = "documents the input; `Fields` reads it, to report all errors at once"
)]
pub(crate) struct EventCreate {
    /// An existing link.
    #[schema(minimum = 1)]
    url_id: i64,
    /// An existing user; only administrators name another than themselves.
    #[schema(minimum = 1)]
    user_id: Option<i64>,
    /// 1 to 64 of `[0-9A-Za-z_.:-]`.
    #[schema(min_length = 1, max_length = 64, pattern = "^[0-9A-Za-z_.:-]{1,64}$")]
    event_type: String,
    /// What else is known; default `{}`.
    #[schema(value_type = Option<Object>)]
    details: Option<serde_json::Value>,
}

pub(super) fn routes(cfg: &mut web::ServiceConfig) {
    cfg.service(
        web::resource("/events")
            .route(web::get().to(list))
            .route(web::head().to(list))
            .route(web::post().to(create)),
    )
    .service(web::resource("/events/{id}").route(web::get().to(get)).route(web::head().to(get)));
}

/// Records an event.
#[utoipa::path(post, path = "/api/v1/events", operation_id = "create_event", tag = "events", request_body = EventCreate,
    params(IdempotencyParams),
    responses((status = 201, description = "Recorded", body = Event,
        headers(("Location" = String, description = "The new event's address")))))]
pub(crate) async fn create(
    state: web::Data<ApiState>,
    caller: Caller,
    key: IdempotencyKey,
    body: JsonObject,
) -> Result<HttpResponse, ApiError> {
    let JsonObject { mut fields, raw } = body;
    let url_id = fields.required("url_id", positive);
    let user_id = fields.optional("user_id", positive);
    let event_type = fields.required("event_type", event_type);
    let details = fields.optional("details", object).unwrap_or_default();
    let (url_id, event_type) = fields.finish_with(url_id.zip(event_type))?;
    let user_id = caller.owner(user_id)?;
    let new = NewEvent { url_id, user_id, event_type, details };
    idempotency::once(&state, &caller, "POST /events", key, &raw, async |maker| {
        answer(maker.create_event(&new, caller.sees()).await?)
    })
    .await
}

fn answer(event: Option<Event>) -> Result<Made, ApiError> {
    let event =
        event.ok_or_else(|| ApiError::missing_reference("url_id", "there is no such link"))?;
    Made::new(StatusCode::CREATED, format!("{PATH}/{}", event.id), &event)
}

/// Lists events, by id.
#[utoipa::path(get, path = "/api/v1/events", operation_id = "list_events", tag = "events",
    params(("url_id" = Option<i64>, Query, minimum = 1),
        ("user_id" = Option<i64>, Query, minimum = 1),
        ("event_type" = Option<String>, Query, pattern = "^[0-9A-Za-z_.:-]{1,64}$"),
        ListParams),
    responses((status = 200, description = "One page", body = [Event],
        headers(("Link" = String, description = "The next page, as RFC 8288")))))]
pub(crate) async fn list(
    state: web::Data<ApiState>,
    caller: Caller,
    query: QueryFields,
) -> Result<HttpResponse, ApiError> {
    let (list, filter) = ListQuery::read(query, |fields| EventFilter {
        url_id: fields.optional("url_id", query_positive),
        user_id: fields.optional("user_id", query_positive),
        event_type: fields
            .optional("event_type", event_type)
            .map(|event_type| event_type.as_str().to_owned()),
    })?;
    let events = state.store.list_events(&filter, caller.sees(), list.page).await?;
    Ok(list.respond(PATH, &events, |last| last.id))
}

/// Shows an event.
#[utoipa::path(get, path = "/api/v1/events/{id}", operation_id = "get_event", tag = "events",
    params(("id" = i64, Path, minimum = 1)),
    responses((status = 200, description = "The event", body = Event)))]
pub(crate) async fn get(
    state: web::Data<ApiState>,
    caller: Caller,
    id: IdGuard,
) -> Result<HttpResponse, ApiError> {
    let event = state.store.find_event(id.0, caller.sees()).await?;
    Ok(HttpResponse::Ok().json(event.ok_or_else(|| ApiError::not_found("event"))?))
}

fn event_type(value: serde_json::Value) -> Result<EventType, Bad> {
    EventType::parse(&string(value)?).map_err(|message| ("invalid", message.to_owned()))
}
