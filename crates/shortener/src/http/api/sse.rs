//! Server-sent events: the mechanics of every stream.

use std::{convert::Infallible, time::Duration};

use actix_web::{
    HttpRequest, HttpResponse,
    http::header::{CACHE_CONTROL, CONTENT_TYPE},
    web::Bytes,
};
use futures::stream;
use serde::Serialize;

use super::super::error::ApiError;

/// Time without an event after which a comment keeps the connection alive.
pub(super) const HEARTBEAT: Duration = Duration::from_secs(15);
/// The comment that keeps the connection alive.
pub(super) const ALIVE: &str = ": heartbeat\n\n";
/// The first line of a stream: a disconnected client reconnects after a second.
pub(super) const RETRY: &str = "retry: 1000\n\n";
/// The last event before the server stops.
pub(super) const RECONNECT: &str = "event: reconnect\ndata: {}\n\n";
/// The header with the id of the last event that the client received.
const LAST_EVENT_ID: &str = "last-event-id";

/// An event with an id, from which a client can resume.
pub(super) fn event(id: impl std::fmt::Display, name: &str, data: &impl Serialize) -> String {
    let data = serde_json::to_string(data).unwrap_or_else(|_| "{}".to_owned());
    event_of_text(id, name, &data)
}

/// The same as [`event`], with data that is JSON already.
pub(super) fn event_of_text(id: impl std::fmt::Display, name: &str, data: &str) -> String {
    format!("id: {id}\nevent: {name}\ndata: {data}\n\n")
}

/// The id of the last event that the client received, if it sent one.
pub(super) fn last_event_id<T: std::str::FromStr>(
    request: &HttpRequest,
) -> Result<Option<T>, ApiError> {
    let Some(text) = request.headers().get(LAST_EVENT_ID) else { return Ok(None) };
    let text = text.to_str().unwrap_or_default();
    if text.is_empty() {
        return Ok(None);
    }
    text.parse().map(Some).map_err(|_| {
        ApiError::invalid("Last-Event-ID", "invalid", "must be the id of an event of this stream")
    })
}

/// The source of a stream's events.
pub(super) trait Events: 'static {
    /// The next event or comment; `None` at the end.
    async fn next(&mut self) -> Option<String>;
}

/// The response that streams the events.
pub(super) fn respond(events: impl Events) -> HttpResponse {
    let body = stream::unfold(events, |mut events| async move {
        let text = events.next().await?;
        Some((Ok::<_, Infallible>(Bytes::from(text)), events))
    });
    HttpResponse::Ok()
        .insert_header((CONTENT_TYPE, "text/event-stream"))
        // A proxy with default settings would collect or compress events.
        .insert_header((CACHE_CONTROL, "no-store, no-transform"))
        .insert_header(("x-accel-buffering", "no"))
        .streaming(body)
}
