//! Determines the caller of a request and counts the request against the caller's rate.

use std::net::IpAddr;

use actix_web::{HttpRequest, http::Method};
use linnet_domain::Scope;
use linnet_protocol::{problem::Problem, routes::Route};

use crate::{
    auth::{self, Caller, KeyStatus},
    config::Anonymous,
    limit::{AppliedLimit, RateKey},
    problems,
    thread_state::ThreadState,
};

/// The caller, or why the request is rejected, with the rate limit that was applied.
pub(super) struct Access<'a> {
    pub(super) caller: Result<Caller, Problem>,
    pub(super) limit: AppliedLimit<'a>,
}

impl<'a> Access<'a> {
    /// A request over its limit is 429, whatever its credentials are.
    fn new(limit: AppliedLimit<'a>, caller: Result<Caller, Problem>) -> Self {
        let caller = if limit.is_allowed() {
            caller
        } else {
            Err(problems::rate_limited(limit.retry_after_s()))
        };
        Self { caller, limit }
    }
}

/// Authenticates the request and charges it to its key, or to `address` if it has no valid key.
pub(super) async fn check<'a>(
    state: &'a ThreadState,
    route: &Route,
    request: &HttpRequest,
    address: Option<IpAddr>,
) -> Access<'a> {
    let by_address = RateKey::Address(address);
    let key = match auth::find_key(request.headers(), request.query_string()) {
        Ok(Some(key)) => key,
        Ok(None) => {
            let caller = anonymous(state, route, request.method());
            return Access::new(state.limiter.charge(by_address).await, caller);
        }
        Err(error) => {
            let problem = problems::from_credentials(error);
            return Access::new(state.limiter.charge(by_address).await, Err(problem));
        }
    };
    let hash = key.hash();
    let status = if let Some(status) = state.authenticator.cached(&hash) {
        status
    } else {
        // An address over its limit gets no lookup, because each unknown key costs one.
        let limit = state.limiter.peek(by_address).await;
        if !limit.is_allowed() {
            let problem = problems::rate_limited(limit.retry_after_s());
            return Access { caller: Err(problem), limit };
        }
        match state.authenticator.look_up(&state.client, key, hash).await {
            Ok(status) => status,
            Err(error) => return Access::new(limit, Err(problems::from_lookup(&error))),
        }
    };
    match status {
        KeyStatus::Invalid => {
            let limit = state.limiter.charge(by_address).await;
            Access::new(limit, Err(problems::invalid_key()))
        }
        KeyStatus::Valid(identity) => {
            let limit = state.limiter.charge(RateKey::Key(identity.key_id())).await;
            Access::new(limit, Ok(Caller::Key(identity)))
        }
    }
}

/// The caller of a request without a key.
fn anonymous(state: &ThreadState, route: &Route, method: &Method) -> Result<Caller, Problem> {
    match state.anonymous {
        Anonymous::Open => Ok(Caller::Anonymous(state.all_scopes)),
        Anonymous::Create if route.creates_links && method == Method::POST => {
            Ok(Caller::Anonymous([Scope::UrlsWrite].into_iter().collect()))
        }
        Anonymous::Create | Anonymous::Off => Err(problems::key_required()),
    }
}
