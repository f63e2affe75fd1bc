//! `/api/v1/events`: events, which are created and read but never changed. Lists contain clicks, too.

use actix_web::{
    HttpResponse,
    http::{StatusCode, header::LINK},
    web,
};
use chrono::SecondsFormat;
use serde::Deserialize;
use utoipa::ToSchema;

use linnet_domain::{
    Event, EventFilter, EventId, EventType, LinkId, NewEvent, TimeSortKey, UserId,
    rules::{Rule, Time, Violation, string},
};
use linnet_store::Constraint;

use super::{
    super::{csv, error::ApiError},
    ApiState, Caller, IdGuard,
    fields::{JsonObject, QueryFields, id, object, query_id},
    format::{Accepted, Format, FormatParams},
    idempotency::{self, CreatedResponse, IdempotencyKey, IdempotencyParams},
    list::{ListParams, ListQuery, TimeCursorParam},
};

const PATH: &str = "/api/v1/events";

/// An event of a client.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[expect(
    dead_code,
    reason = "documents the input; `Fields` reads it, to report all errors at once"
)]
pub(crate) struct EventCreate {
    /// The id of an existing link.
    #[schema(minimum = 1)]
    url_id: i64,
    /// The id of an existing user; only administrators may name another user.
    #[schema(minimum = 1)]
    user_id: Option<i64>,
    /// 1 to 64 of `[0-9A-Za-z_.:-]`, but not `click`: Linnet records clicks itself.
    #[schema(min_length = 1, max_length = 64, pattern = "^(?!click$)[0-9A-Za-z_.:-]{1,64}$")]
    event_type: String,
    /// Further data. Default: `{}`.
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
        headers(("Location" = String, description = "The path of the new event")))))]
pub(crate) async fn create(
    state: web::Data<ApiState>,
    caller: Caller,
    key: IdempotencyKey,
    body: JsonObject,
) -> Result<HttpResponse, ApiError> {
    let JsonObject { mut fields, raw } = body;
    let url_id = fields.required("url_id", id);
    let user_id = fields.optional("user_id", id);
    let event_type = fields.required("event_type", own_event_type);
    let details = fields.optional("details", object).unwrap_or_default();
    let (url_id, event_type) = fields.finish_with(url_id.zip(event_type))?;
    let user_id = caller.owner(user_id)?;
    let new = NewEvent { url_id, user_id, event_type, details };
    idempotency::once(&state, &caller, "POST /events", key, &raw, async |creator| {
        created(creator.create_event(&new, caller.visibility()).await?)
    })
    .await
}

fn created(event: Option<Event>) -> Result<CreatedResponse, ApiError> {
    let event = event.ok_or(Constraint::LinkMissing)?;
    CreatedResponse::new(StatusCode::CREATED, format!("{PATH}/{}", event.id), &event)
}

/// Lists events and clicks in the order of time. `event_type=click` selects clicks. Another type, or `user_id`, excludes
/// clicks, which are anonymous.
#[utoipa::path(get, path = "/api/v1/events", operation_id = "list_events", tag = "events",
    params(("url_id" = Option<i64>, Query, minimum = 1),
        ("user_id" = Option<i64>, Query, minimum = 1),
        ("event_type" = Option<String>, Query, pattern = "^[0-9A-Za-z_.:-]{1,64}$"),
        ("from" = Option<DateTime<Utc>>, Query, description = "The beginning, inclusive"),
        ("to" = Option<DateTime<Utc>>, Query, description = "The end, exclusive"),
        ListParams, TimeCursorParam, FormatParams),
    responses((status = 200, description = "One page", content(
            (Vec<Event> = "application/json"), (String = "text/csv")),
        headers(("Link" = String, description = "The next page, as RFC 8288")))))]
pub(crate) async fn list(
    state: web::Data<ApiState>,
    caller: Caller,
    accepted: Accepted,
    query: QueryFields,
) -> Result<HttpResponse, ApiError> {
    let (list, (format, filter)) = ListQuery::read(query, |fields| {
        let filter = EventFilter {
            url_id: fields.optional("url_id", query_id),
            user_id: fields.optional("user_id", query_id),
            event_type: fields
                .optional("event_type", event_type)
                .map(|event_type| event_type.as_str().to_owned()),
            from: fields.optional("from", Time::from_json),
            to: fields.optional("to", Time::from_json),
        };
        (accepted.read(fields), filter)
    })?;
    let events = state.store.list_events(&filter, caller.visibility(), list.page).await?;
    let moment = |last: &Event| TimeSortKey { time: Some(last.timestamp), id: last.id.get() };
    match format {
        Format::Json => Ok(list.respond(PATH, &events, moment)),
        Format::Csv => {
            let mut response = HttpResponse::Ok();
            if let Some(next) = list.next(PATH, &events, moment) {
                response.insert_header((LINK, next));
            }
            let names = ["id", "url_id", "user_id", "event_type", "timestamp", "details"];
            let csv = csv::csv_of(names, events.into_iter().map(cells)).await?;
            Ok(csv::respond(response, "events.csv", csv))
        }
    }
}

fn cells(event: Event) -> [csv::Cell<'static>; 6] {
    [
        event.id.get().into(),
        event.url_id.map(LinkId::get).into(),
        event.user_id.map(UserId::get).into(),
        event.event_type.into(),
        event.timestamp.to_rfc3339_opts(SecondsFormat::AutoSi, true).into(),
        event.details.to_string().into(),
    ]
}

/// Returns an event. Only lists contain clicks.
#[utoipa::path(get, path = "/api/v1/events/{id}", operation_id = "get_event", tag = "events",
    params(("id" = i64, Path, minimum = 1)),
    responses((status = 200, description = "The event", body = Event)))]
pub(crate) async fn get(
    state: web::Data<ApiState>,
    caller: Caller,
    id: IdGuard<EventId>,
) -> Result<HttpResponse, ApiError> {
    let event = state.store.find_event(id.0, caller.visibility()).await?;
    Ok(HttpResponse::Ok().json(event.ok_or_else(|| ApiError::not_found("event"))?))
}

fn event_type(value: serde_json::Value) -> Result<EventType, Violation> {
    EventType::parse(&string(value)?).map_err(Violation::invalid)
}

fn own_event_type(value: serde_json::Value) -> Result<EventType, Violation> {
    EventType::parse_own(&string(value)?).map_err(Violation::invalid)
}
