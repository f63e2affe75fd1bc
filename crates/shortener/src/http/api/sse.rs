//! Event streams: what all of them have in common.

use std::{convert::Infallible, time::Duration};

use actix_web::{
    HttpRequest, HttpResponse,
    http::header::{CACHE_CONTROL, CONTENT_TYPE},
    web::Bytes,
};
use futures::stream;
use linnet_protocol::problem::Problem;
use serde::Serialize;

use super::super::error::{ApiError, field_error};

/// Time without an event after which a comment says that the stream lives.
pub(super) const HEARTBEAT: Duration = Duration::from_secs(15);
/// The comment.
pub(super) const ALIVE: &str = ": heartbeat\n\n";
/// The stream's first line: a client that is cut off comes back after a second.
pub(super) const RETRY: &str = "retry: 1000\n\n";
/// The last event of a server that stops.
pub(super) const RECONNECT: &str = "event: reconnect\ndata: {}\n\n";
/// The header by which a client says what it has seen.
const LAST_EVENT_ID: &str = "last-event-id";

/// An event that a client can name when it comes back.
pub(super) fn event(id: impl std::fmt::Display, name: &str, data: &impl Serialize) -> String {
    let data = serde_json::to_string(data).unwrap_or_else(|_| "{}".to_owned());
    format!("id: {id}\nevent: {name}\ndata: {data}\n\n")
}

/// What the client has seen, if it says so.
pub(super) fn last_event_id<T: std::str::FromStr>(
    request: &HttpRequest,
) -> Result<Option<T>, ApiError> {
    let Some(text) = request.headers().get(LAST_EVENT_ID) else { return Ok(None) };
    let text = text.to_str().unwrap_or_default();
    if text.is_empty() {
        return Ok(None);
    }
    text.parse().map(Some).map_err(|_| {
        let message = "not an id of this stream of events";
        Problem::invalid(vec![field_error("Last-Event-ID", "invalid", message)]).into()
    })
}

/// Where the events of a stream come from.
pub(super) trait Events: 'static {
    /// The next event or comment; `None` at the end.
    async fn next(&mut self) -> Option<String>;
}

/// The stream.
pub(super) fn respond(events: impl Events) -> HttpResponse {
    let body = stream::unfold(events, |mut events| async move {
        let text = events.next().await?;
        Some((Ok::<_, Infallible>(Bytes::from(text)), events))
    });
    HttpResponse::Ok()
        .insert_header((CONTENT_TYPE, "text/event-stream"))
        .insert_header((CACHE_CONTROL, "no-store"))
        .streaming(body)
}
