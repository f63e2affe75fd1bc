//! Entry points for `crates/fuzz`: the readers of requests, without a listener, a handler and a database.
//!
//! The service itself does not call these functions. Each of them calls the reader that the handlers use.

use std::{future::Ready, time::Duration};

use actix_web::{
    FromRequest, HttpRequest,
    dev::Payload,
    http::header::{HeaderValue, LINK},
};
use chrono::{DateTime, Utc};
use linnet_clicks::LiveClickId;
use linnet_domain::{
    EventFilter, LinkFilter, LinkId, Page, StatsQuery, Subject, TargetPolicy, TimeSortKey,
};

use super::{
    super::{csv, error::ApiError},
    api_keys::{ApiKeyCreate, ApiKeyPatch},
    bulk::{UrlBulkDelete, UrlBulkPatch},
    events::{self, EventCreate},
    fields::{QueryFields, parse_body},
    format::Accepted,
    idempotency::IdempotencyKey,
    import::{Options, Prefer},
    link_filter, list, sse,
    stats::StatsRequest,
    urls::{UrlCreate, UrlPatch},
    users::{UserCreate, UserPatchBody},
};

/// A JSON body of the API.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BodyKind {
    /// `POST /urls`.
    LinkCreate,
    /// `PATCH /urls/{id}`.
    LinkPatch,
    /// `PATCH /urls/bulk`.
    LinkBulkPatch,
    /// `DELETE /urls/bulk`.
    LinkBulkDelete,
    /// `POST /users`.
    UserCreate,
    /// `PATCH /users/{id}`.
    UserPatch,
    /// `POST /events`.
    EventCreate,
    /// `POST /api-keys`.
    KeyCreate,
    /// `PATCH /api-keys/{id}`.
    KeyPatch,
}

impl BodyKind {
    /// All kinds.
    pub const ALL: [Self; 9] = [
        Self::LinkCreate,
        Self::LinkPatch,
        Self::LinkBulkPatch,
        Self::LinkBulkDelete,
        Self::UserCreate,
        Self::UserPatch,
        Self::EventCreate,
        Self::KeyCreate,
        Self::KeyPatch,
    ];
}

/// Reads a body. `now` is the time of the request.
pub fn read_body(
    kind: BodyKind,
    bytes: &[u8],
    targets: &TargetPolicy,
    now: DateTime<Utc>,
) -> Result<(), ApiError> {
    match kind {
        BodyKind::LinkCreate => parse_body::<UrlCreate>(bytes, targets, now).map(drop),
        BodyKind::LinkPatch => parse_body::<UrlPatch>(bytes, targets, now).map(drop),
        BodyKind::LinkBulkPatch => parse_body::<UrlBulkPatch>(bytes, targets, now).map(drop),
        BodyKind::LinkBulkDelete => parse_body::<UrlBulkDelete>(bytes, targets, now).map(drop),
        BodyKind::UserCreate => parse_body::<UserCreate>(bytes, targets, now).map(drop),
        BodyKind::UserPatch => parse_body::<UserPatchBody>(bytes, targets, now).map(drop),
        BodyKind::EventCreate => parse_body::<EventCreate>(bytes, targets, now).map(drop),
        BodyKind::KeyCreate => parse_body::<ApiKeyCreate>(bytes, targets, now).map(drop),
        BodyKind::KeyPatch => parse_body::<ApiKeyPatch>(bytes, targets, now).map(drop),
    }
}

/// Reads the query of a link's statistics. `request` has the header `Accept`.
pub fn read_stats_query(query: &str, request: &HttpRequest) -> Result<StatsQuery, ApiError> {
    let query = QueryFields::parse(query)?;
    let request =
        StatsRequest::read(query, extract::<Accepted>(request)?, |_| Subject::Link(LinkId::MIN))?;
    Ok(request.into_query())
}

/// A page of a list, its filters, and the `Link` header of a page that ends with a given item.
#[derive(Debug)]
pub struct ListRequest<P, F> {
    /// The requested page.
    pub page: Page<P>,
    /// The filters.
    pub filter: F,
    /// The `Link` header.
    pub next: Option<HeaderValue>,
}

/// Reads the query of a list of links. `last` is the last item of the page.
pub fn read_link_list(query: &str, last: i64) -> Result<ListRequest<i64, LinkFilter>, ApiError> {
    read_list(query, last, link_filter::read_filter)
}

/// Reads the query of a list of events. `last` is the last item of the page.
pub fn read_event_list(
    query: &str,
    last: TimeSortKey,
) -> Result<ListRequest<TimeSortKey, EventFilter>, ApiError> {
    read_list(query, last, events::read_filter)
}

fn read_list<P: linnet_domain::SortKey, F>(
    query: &str,
    last: P,
    filter: impl FnOnce(&mut super::fields::Fields) -> F,
) -> Result<ListRequest<P, F>, ApiError> {
    let (request, filter) = list::ListQuery::<P>::read(QueryFields::parse(query)?, filter)?;
    let response = request.begin("/list", &[] as &[P], Some(last), |last| *last).finish();
    let next = response.headers().get(LINK).cloned();
    Ok(ListRequest { page: request.page, filter, next })
}

/// Reads the options of an upload, in the query and in a form.
pub fn read_import_options(query: &str, form: &str) -> Result<(), ApiError> {
    let query = Options::read(QueryFields::parse(query)?)?;
    let form = Options::read(QueryFields::parse(form)?)?;
    query.and(form).map(drop)
}

/// The headers that a handler reads.
#[derive(Debug)]
pub struct RequestHeaders {
    /// `Idempotency-Key`.
    pub idempotency_key: Result<Option<String>, ApiError>,
    /// `Prefer: wait=N`.
    pub wait: Option<Duration>,
    /// `Last-Event-ID` of a stream of clicks.
    pub last_click: Result<Option<LiveClickId>, ApiError>,
    /// `Last-Event-ID` of a job's stream.
    pub last_job_event: Result<Option<u64>, ApiError>,
}

/// Reads the headers of a request.
pub fn read_headers(request: &HttpRequest) -> Result<RequestHeaders, ApiError> {
    let key = extract::<IdempotencyKey>(request);
    Ok(RequestHeaders {
        idempotency_key: key.map(|key| key.key().map(ToOwned::to_owned)),
        wait: extract::<Prefer>(request)?.wait(),
        last_click: sse::last_event_id(request),
        last_job_event: sse::last_event_id(request),
    })
}

/// The cell of a CSV file for a text.
pub fn csv_cell(text: &str) -> Vec<u8> {
    let mut cell = Vec::new();
    csv::push_text(&mut cell, text);
    cell
}

fn extract<T>(request: &HttpRequest) -> Result<T, ApiError>
where
    T: FromRequest<Error = ApiError, Future = Ready<Result<T, ApiError>>>,
{
    T::from_request(request, &mut Payload::None).into_inner()
}
