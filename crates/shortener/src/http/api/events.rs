//! `/api/v1/events`: events, which are created and read but never changed. Lists contain clicks, too.

use actix_web::{HttpResponse, http::StatusCode, middleware::from_fn, web};
use chrono::SecondsFormat;
use utoipa::openapi::{ObjectBuilder, RefOr, Schema, Type};

use linnet_domain::{
    Event, EventFilter, EventId, EventType, LinkId, NewEvent, TimeSortKey, UserId,
    rules::{Rule, Time, Violation, string},
};
use linnet_store::{Constraint, EventPage};

use super::{
    super::{csv, error::ApiError},
    ApiState, Caller, IdGuard,
    fields::{
        Details, Fields, Id, JsonBody, Node, QueryFields,
        declare::{BodyRule, Optional, ReadContext, Required, body},
        query_id,
    },
    format::{Accepted, Format, FormatParams, vary_by_accept},
    idempotency::{self, CreatedResponse, IdempotencyKey, IdempotencyParams},
    list::{ListParams, ListQuery, TimeCursorParam},
};

const PATH: &str = "/api/v1/events";

body! {
    /// An event of a client.
    pub(crate) struct EventCreate as "EventCreate" {
        /// The id of an existing link.
        url_id: Required<Id<LinkId>>,
        /// The id of an existing user; only administrators may name another user.
        user_id: Optional<Id<UserId>>,
        /// 1 to 64 of `[0-9A-Za-z_.:-]`, but none of the types that only Linnet records: see the pattern.
        event_type: Required<OwnEventType>,
        /// Further data: at most 16 KiB as compact JSON, nested at most 32 levels deep. Default: `{}`.
        details: Optional<Details>,
    }
}

/// The type of a client's own event.
pub(crate) struct OwnEventType;

impl BodyRule for OwnEventType {
    type Value = EventType;

    fn read(node: Node, _: &ReadContext<'_>) -> Result<EventType, Violation> {
        EventType::parse_own(&string(node.into_value())?).map_err(Violation::invalid)
    }

    fn schema(_: bool, description: &str) -> RefOr<Schema> {
        ObjectBuilder::new()
            .schema_type(Type::String)
            .description(Some(description))
            .min_length(Some(1))
            .max_length(Some(64))
            .pattern(Some(EventType::own_pattern()))
            .into()
    }
}

pub(super) fn routes(cfg: &mut web::ServiceConfig) {
    cfg.service(
        web::resource("/events")
            .wrap(from_fn(vary_by_accept))
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
    body: JsonBody<EventCreate>,
) -> Result<HttpResponse, ApiError> {
    let EventCreate { url_id, user_id, event_type, details } = body.fields;
    let user_id = caller.owner(user_id)?;
    let new = NewEvent { url_id, user_id, event_type, details: details.unwrap_or_default() };
    idempotency::once(&state, &caller, key, &body.hash, async |creator| {
        created(creator.create_event(&new, caller.visibility()).await?)
    })
    .await
}

fn created(event: Option<Event>) -> Result<CreatedResponse, ApiError> {
    let event = event.ok_or(Constraint::LinkMissing)?;
    CreatedResponse::new(StatusCode::CREATED, format!("{PATH}/{}", event.id), &event)
}

/// Reads the filters of the list.
pub(super) fn read_filter(fields: &mut Fields) -> EventFilter {
    let event_type = fields.optional("event_type", event_type);
    EventFilter {
        url_id: fields.optional("url_id", query_id),
        user_id: fields.optional("user_id", query_id),
        event_type: event_type.map(|event_type| event_type.as_str().to_owned()),
        from: fields.optional("from", Time::from_json),
        to: fields.optional("to", Time::from_json),
    }
}

/// Lists events and clicks in the order of time. `event_type=click` selects clicks. Another type, or `user_id`, excludes
/// clicks, which are anonymous. A page has fewer items than `limit` when their details exceed 1 MiB; follow `Link`.
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
        let filter = read_filter(fields);
        (accepted.read(fields), filter)
    })?;
    let EventPage { events, cut_after } =
        state.store.list_events(&filter, caller.visibility(), list.page).await?;
    let moment = |last: &Event| TimeSortKey { time: Some(last.timestamp), id: last.id.get() };
    match format {
        Format::Json => Ok(list.begin(PATH, &events, cut_after, moment).json(events)),
        Format::Csv { bom } => {
            let response = list.begin(PATH, &events, cut_after, moment);
            let names = ["id", "url_id", "user_id", "event_type", "timestamp", "details"];
            let csv = csv::csv_of(names, events.into_iter().map(cells), bom).await?;
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
        event.details.as_str().to_owned().into(),
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
