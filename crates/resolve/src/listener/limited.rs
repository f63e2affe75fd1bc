//! Redirects links with `max_clicks`: PostgreSQL counts each click, and rejects those beyond the limit.
//!
//! Invariants:
//! * Only a person's visit uses up a click ([`ClickKind::uses_up_a_click`]).
//! * When a link gets its first limit, visitors wait for `links.limit_settle_ms`. Clicks from before the limit have
//!   reached the row by then, so they count against the limit too.
//! * A click is used up only if its redirect is sent. If the visitor no longer waits, the click is given back.
//! * nginx repeats a request whose shortener has died. Both have the same [`request::visit_id`], and use up one click together.

use std::{sync::Arc, time::Duration};

use actix_web::{
    HttpRequest, HttpResponse,
    http::header::{CACHE_CONTROL, HeaderValue, LOCATION},
};
use linnet_domain::ClickKind;
use linnet_store::{ConsumedClick, Store, StoreError};
use tokio::sync::{Semaphore, oneshot};

use super::{
    request,
    response::Refusal,
    state::{ResolveState, Visit},
};
use crate::{Absence, Redirect};

/// Redirects a link whose entry in L1 has this version and the resolution `Limited`.
pub(super) async fn redirect_limited(
    request: &HttpRequest,
    state: &ResolveState,
    code: &str,
    version: i64,
    visit: Visit,
) -> Result<HttpResponse, Refusal> {
    let kind = state.kind_of(request, visit);
    let ticket = state.resolver.ticket_of(code);
    let visit_id = request::visit_id(request);
    let mut found = in_time(state, read(state, code, visit, visit_id, kind)).await?;
    if found.is_none()
        && kind.uses_up_a_click()
        && let Some(wait) = in_time(state, settles_in(state, code)).await?
    {
        let permit = state.settling.try_acquire().map_err(|_| Refusal::Unavailable)?;
        tokio::time::sleep(wait).await;
        drop(permit);
        found = in_time(state, read(state, code, visit, visit_id, kind)).await?;
    }
    let Some(click) = found else {
        // The link is used up or has expired. If an edit is the reason, its higher version replaces this entry.
        state.resolver.remember_end(code, version, Absence::UsedUp, ticket).await;
        return Err(Refusal::NotFound(Absence::UsedUp));
    };
    let redirect = redirect_of(&click).ok_or(Refusal::NotFound(Absence::Inactive))?;
    state.record_click(request, click.id, visit, kind.uses_up_a_click());
    Ok(HttpResponse::build(redirect.status)
        .insert_header((LOCATION, redirect.location))
        .insert_header((CACHE_CONTROL, HeaderValue::from_static("no-store")))
        .finish())
}

/// The result, unless PostgreSQL takes too long.
async fn in_time<T>(
    state: &ResolveState,
    work: impl Future<Output = Result<T, Refusal>>,
) -> Result<T, Refusal> {
    let result = tokio::time::timeout(state.resolver.database_timeout, work).await;
    result.unwrap_or(Err(Refusal::Unavailable))
}

async fn settles_in(state: &ResolveState, code: &str) -> Result<Option<Duration>, Refusal> {
    Ok(state.resolver.store.limit_settles_in(code).await?)
}

/// Reads the link, and uses up one of its clicks if a person visits it. `None` if no click is left.
async fn read(
    state: &ResolveState,
    code: &str,
    visit: Visit,
    visit_id: Option<i64>,
    kind: ClickKind,
) -> Result<Option<ConsumedClick>, Refusal> {
    let store = &state.resolver.store;
    if !kind.uses_up_a_click() || visit == Visit::Submit {
        let permit = state.limited.acquire().await.map_err(|_| Refusal::Unavailable)?;
        let found = store.peek_click(code).await?;
        drop(permit);
        let Some(click) = found else { return Ok(None) };
        if let Some(refusal) = redirect_of(&click).and_then(|to| visit.refusal(to.status)) {
            return Err(refusal);
        }
        if kind == ClickKind::Prefetch {
            return Err(Refusal::Prefetch);
        }
        if !kind.uses_up_a_click() {
            return Ok(Some(click));
        }
    }
    let (sender, receiver) = oneshot::channel();
    let permits = Arc::clone(&state.limited);
    let consume = consume(store.clone(), permits, code.to_owned(), visit_id, sender);
    // Runs in its own task. When the visitor disconnects, the request ends, but the statement may still use up a click.
    actix_web::rt::spawn(consume);
    receiver.await.map_err(|_| Refusal::Unavailable)?.map_err(Refusal::from)
}

/// Uses up a click and reports it. If the visitor has left or waited too long, the click is given back.
async fn consume(
    store: Store,
    permits: Arc<Semaphore>,
    code: String,
    visit_id: Option<i64>,
    sender: oneshot::Sender<Result<Option<ConsumedClick>, StoreError>>,
) {
    // Clicks on the same link wait for the lock of its row. Without this limit, they would occupy every connection.
    let Ok(_permit) = permits.acquire().await else { return };
    if sender.is_closed() {
        return;
    }
    let used = store.consume_click(&code, visit_id).await;
    // No release writes a row whose target is not a valid header.
    let is_usable = !matches!(&used, Ok(Some(click)) if redirect_of(click).is_none());
    let unsent = match used {
        used if is_usable => sender.send(used).err(),
        used => Some(used),
    };
    if let Some(Ok(Some(click))) = unsent
        && let Err(error) = store.return_click(click.id, visit_id).await
    {
        let error: &dyn std::error::Error = &error;
        tracing::warn!(error, "unused click not given back");
    }
}

fn redirect_of(click: &ConsumedClick) -> Option<Redirect> {
    let status = u16::try_from(click.redirect_status).unwrap_or(302);
    Redirect::new(&click.original_url, status, None, click.id)
}
