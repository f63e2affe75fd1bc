//! Determines the caller of a request and counts the request against the caller's rate.

use std::net::IpAddr;

use actix_web::{HttpRequest, http::Method};
use linnet_domain::Scope;
use linnet_protocol::{problem::Problem, routes::Route};

use crate::{
    auth::{self, Caller, CredentialError, KeyHash, KeyStatus, Lease, PresentedKey},
    config::Anonymous,
    counters::LimitReason,
    limit::{AppliedLimit, RateKey},
    problems,
    thread_state::ThreadState,
};

/// The caller, or why the request is rejected, with the rate limit that was applied.
pub(super) struct Access<'a> {
    pub(super) caller: Result<Caller, Problem>,
    pub(super) limit: AppliedLimit<'a>,
}

/// A lease on the key of an allowed request; `None` for a caller without a key.
pub(super) async fn lease(
    state: &ThreadState,
    request: &HttpRequest,
) -> Result<Option<Lease>, Problem> {
    let Ok(Some(key)) = auth::find_key(request.headers(), request.query_string()) else {
        return Ok(None);
    };
    let lease = state.authenticator.lease(&state.client, key, key.hash()).await;
    match lease {
        Ok(Some(lease)) => Ok(Some(lease)),
        Ok(None) => Err(problems::invalid_key()),
        Err(error) => Err(problems::from_lookup(&error)),
    }
}

impl<'a> Access<'a> {
    /// A request over its limit is 429, whatever its credentials are.
    fn new(limit: AppliedLimit<'a>, caller: Result<Caller, Problem>) -> Self {
        let caller = if limit.is_allowed() { caller } else { Err(problems::rate_limited(&limit)) };
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
        Ok(Some(key)) if state.authenticator.opens(key, request) => key,
        Ok(Some(_)) => {
            let problem = problems::from_credentials(CredentialError::StreamToken);
            return Access::new(state.limiter.charge(by_address).await, Err(problem));
        }
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
    let (status, paid) = match state.authenticator.cached(&hash) {
        Some(status) => (status, None),
        None => match look_up(state, key, hash, address).await {
            Ok(found) => found,
            Err(access) => return access,
        },
    };
    match status {
        KeyStatus::Invalid => {
            let limit = match paid {
                Some(limit) => limit,
                None => state.limiter.charge(by_address).await,
            };
            Access::new(limit, Err(problems::invalid_key()))
        }
        KeyStatus::Valid(identity) => {
            if paid.is_some() {
                state.limiter.give_back(address).await;
            }
            let rate_key = RateKey::Key { id: identity.key_id(), user: identity.user_id() };
            let limit = state.limiter.charge(rate_key).await;
            Access::new(limit, Ok(Caller::Key(identity)))
        }
    }
}

/// Looks an uncached key up, and returns what the lookup was charged to.
///
/// Each unknown key costs a lookup, so it is charged to the address first: any number of requests causes no more lookups
/// than the address may make. A key that no stranger can have made is not charged: others may have used up the quota.
/// A request beyond the quota can wait for a lookup in flight: many requests begin with one new key at once.
async fn look_up<'a>(
    state: &'a ThreadState,
    key: PresentedKey<'_>,
    hash: KeyHash,
    address: Option<IpAddr>,
) -> Result<(KeyStatus, Option<AppliedLimit<'a>>), Access<'a>> {
    let paid = if state.authenticator.is_own(key, &hash) {
        None
    } else {
        let limit = state.limiter.charge_lookup(address).await;
        if !limit.is_allowed() {
            if let Some(valid @ KeyStatus::Valid(_)) = state.authenticator.joined(&hash).await {
                return Ok((valid, None));
            }
            state.counters.limited(LimitReason::Lookup);
            let problem = problems::rate_limited(&limit);
            return Err(Access { caller: Err(problem), limit });
        }
        Some(limit)
    };
    match state.authenticator.look_up(&state.client, key, hash).await {
        Ok(status) => Ok((status, paid)),
        Err(error) => {
            let limit = match paid {
                Some(limit) => limit,
                None => state.limiter.charge(RateKey::Address(address)).await,
            };
            Err(Access { caller: Err(problems::from_lookup(&error)), limit })
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
