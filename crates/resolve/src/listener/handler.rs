//! Handles the requests of the resolve listener: looks up the code, records the click, and responds.

use std::time::Instant;

use actix_web::{HttpRequest, HttpResponse, http::ConnectionType, web};
use linnet_domain::MAX_CODE_LENGTH;

use super::{
    limited::redirect_limited,
    metrics::ResolveOutcome,
    request::{client_of, code_of},
    response::{Refusal, redirect_to, refuse, remaining_s},
    state::{ResolveState, Visit},
};
use crate::{Absence, Resolution, Resolved};

/// Serves every request of the resolve listener.
pub async fn serve(request: HttpRequest, state: web::Data<ResolveState>) -> HttpResponse {
    let began = Instant::now();
    let visit = Visit::of(request.method());
    let (outcome, mut response) = match resolve(&request, &state, visit, began).await {
        Ok(response) => (ResolveOutcome::Redirected, response),
        Err(refusal) => refuse(refusal),
    };
    if state.lifecycle.is_draining() {
        response.head_mut().set_connection_type(ConnectionType::Close);
    }
    state.metrics.record(outcome, began.elapsed().as_secs_f64());
    state.log(&request, outcome, response.status(), began);
    response
}

async fn resolve(
    request: &HttpRequest,
    state: &ResolveState,
    visit: Visit,
    began: Instant,
) -> Result<HttpResponse, Refusal> {
    let mut buffer = [0; MAX_CODE_LENGTH];
    // A path that cannot be a code does not count as a guess: browsers and crawlers request many such paths.
    let Some(code) = code_of(request.uri().path(), &mut buffer) else {
        return Err(Refusal::NotFound(Absence::Unknown));
    };
    if state.budget.any_over() {
        state.refuse_if_over(request)?;
    }
    // The borrow ends before anything is awaited.
    let local = state.resolver.resolve_local(&mut state.hot.borrow_mut(), code, began);
    let resolved: Resolved = match local {
        Some(resolved) => resolved,
        None => state.resolver.resolve(code, client_of(request)).await?,
    };
    let version = resolved.entry().version;
    match &resolved.entry().resolution {
        Resolution::Redirect(redirect) => match remaining_s(redirect, state.clock) {
            Some(0) => {
                let ticket = state.resolver.ticket_of(code);
                state.resolver.remember_end(code, version, Absence::Expired, ticket).await;
                Err(Refusal::NotFound(Absence::Expired))
            }
            remaining => match visit.refusal(redirect.status) {
                Some(refusal) => Err(refusal),
                None => {
                    state.record_click(request, redirect.url_id, visit, false);
                    Ok(redirect_to(redirect, remaining, state.permanent_max_age_s))
                }
            },
        },
        Resolution::Limited => redirect_limited(request, state, code, version, visit).await,
        Resolution::Negative(Absence::Unknown) => Err(state.guess(request, code)),
        // The code of a link that has ended, and a banned one, do not count as guesses: they were published.
        Resolution::Negative(absence) => Err(Refusal::NotFound(*absence)),
    }
}
