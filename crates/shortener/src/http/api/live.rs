//! `GET /api/v1/urls/{id}/live`: streams a link's clicks as server-sent events.

use actix_web::{HttpRequest, HttpResponse, web};
use linnet_platform::{lifecycle::Lifecycle, slot_pool::Slot};
use linnet_protocol::problem::Problem;
use tokio_util::sync::CancellationToken;

use linnet_clicks::{LiveClick, LiveClickId, LiveClickSubscription};
use linnet_domain::LinkId;

use super::{
    super::error::{ApiError, RETRY_AFTER_UNAVAILABLE},
    ApiState, Caller, IdGuard,
    slots::{Owner, refused},
    sse::{self, ALIVE, HEARTBEAT, RECONNECT, RETRY},
};

pub(super) fn routes(cfg: &mut web::ServiceConfig) {
    cfg.service(web::resource("/urls/{id}/live").route(web::get().to(live)));
}

/// Streams clicks.
///
/// Each `click` event has a click as JSON, at most a second old. A comment is sent after 15 s without events.
/// `Last-Event-ID` resumes after an event. A `gap` event means that the stream no longer has some clicks (the list of
/// events has them), or that the client was too slow. `reconnect` is sent before the server stops.
#[utoipa::path(get, path = "/api/v1/urls/{id}/live", operation_id = "watch_url", tag = "urls",
    params(("id" = i64, Path, minimum = 1),
        ("Last-Event-ID" = Option<String>, Header, description = "The id of the last event that the client received",
            pattern = r"^[0-9]{1,15}-[0-9]{1,9}\.[0-9]{1,9}$")),
    responses((status = 200, description = "The stream", content_type = "text/event-stream", body = String)))]
pub(crate) async fn live(
    request: HttpRequest,
    state: web::Data<ApiState>,
    lifecycle: web::Data<Lifecycle>,
    caller: Caller,
    id: IdGuard<LinkId>,
) -> Result<HttpResponse, ApiError> {
    let last = sse::last_event_id::<LiveClickId>(&request)?;
    let link = state.store.find_link(id.0, caller.visibility()).await?;
    let link = link.ok_or_else(|| ApiError::not_found("link"))?;
    let live = state.live.as_ref().ok_or_else(|| {
        Problem::unavailable(
            "Clicks are not recorded on this installation.",
            RETRY_AFTER_UNAVAILABLE,
        )
    })?;
    let slot = state.slots.live_streams.take(caller.user_id());
    let slot = slot.map_err(|refusal| refused(refusal, "streams of clicks"))?;
    // The subscription begins before the earlier clicks are read, so that no click is lost between the two.
    let watch = live.subscribe(link.id).ok_or_else(|| {
        Problem::unavailable("Too many streams are open. Retry later.", RETRY_AFTER_UNAVAILABLE)
    })?;
    let mut first = vec![RETRY.to_owned()];
    let mut seen = last;
    if let Some(last) = last {
        match live.since(&state.announcer.redis, caller.user_id(), link.id, last).await {
            Ok((clicks, is_whole)) => {
                if !is_whole {
                    first.push(gap());
                }
                seen = clicks.last().map_or(seen, |click| Some(click.id));
                first.extend(clicks.iter().map(event));
            }
            Err(_) => first.push(gap()),
        }
    }
    let events = Events {
        first: first.into_iter(),
        watch,
        seen,
        stopping: lifecycle.stopping(),
        has_ended: false,
        _slot: slot,
    };
    Ok(sse::respond(events))
}

struct Events {
    first: std::vec::IntoIter<String>,
    watch: LiveClickSubscription,
    /// The latest click that was sent. Earlier clicks may arrive again.
    seen: Option<LiveClickId>,
    stopping: CancellationToken,
    has_ended: bool,
    _slot: Slot<Owner>,
}

impl sse::Events for Events {
    async fn next(&mut self) -> Option<String> {
        if self.has_ended {
            return None;
        }
        if let Some(text) = self.first.next() {
            return Some(text);
        }
        loop {
            if self.watch.take_skipped() > 0 {
                return Some(gap());
            }
            tokio::select! {
                () = self.stopping.cancelled() => {
                    self.has_ended = true;
                    return Some(RECONNECT.to_owned());
                }
                click = self.watch.clicks.recv() => {
                    // The sender lives as long as the watch.
                    let click = click?;
                    if self.seen.is_none_or(|seen| click.id > seen) {
                        self.seen = Some(click.id);
                        return Some(event(&click));
                    }
                }
                () = tokio::time::sleep(HEARTBEAT) => return Some(ALIVE.to_owned()),
            }
        }
    }
}

fn event(click: &LiveClick) -> String {
    sse::event_of_text(click.id, "click", click.data())
}

fn gap() -> String {
    "event: gap\ndata: {}\n\n".to_owned()
}
