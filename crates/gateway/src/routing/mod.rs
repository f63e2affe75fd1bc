//! An API request's way: method, caller, rate, scope, then on to a shortener.
//!
//! Invariants:
//! - Whoever has no valid key is charged by address before the answer tells anything, so keys can't
//!   be guessed faster than the rate.
//! - A bad key is 401 in every mode: a client that meant to be somebody is not made nobody.
//! - Every answer after the method was found allowed carries the `RateLimit` headers.

use std::net::IpAddr;

use actix_web::{
    HttpRequest, HttpResponse, ResponseError as _,
    dev::Payload,
    http::{
        Method, StatusCode,
        header::{ALLOW, HeaderValue},
    },
    web,
};
use linnet_domain::Scope;
use linnet_protocol::{problem::Problem, routes::Route};

use crate::{
    auth::{self, Caller, CredentialError, Known},
    config::Anonymous,
    limit::{Policy, Subject, Verdict},
    proxy,
    worker::Worker,
};

/// More headers than this are refused here, so that the shortener need not refuse them.
const MAX_HEADERS: usize = 72;

/// Registers every route of `routes`.
pub(crate) fn configure(cfg: &mut web::ServiceConfig, routes: &'static [Route]) {
    for route in routes {
        let handler = move |request: HttpRequest, payload: web::Payload| {
            handle(route, request, payload.into_inner())
        };
        cfg.service(web::resource(route.path).route(web::route().to(handler)));
    }
}

/// An answer to a path that is not in the table.
pub(crate) async fn unknown_path() -> HttpResponse {
    answer_of(&Problem::not_found("there is nothing at this path"))
}

/// A problem of the gateway's own, marked as such.
pub(crate) fn answer_of(problem: &Problem) -> HttpResponse {
    let mut response = problem.error_response();
    response.headers_mut().insert(proxy::ORIGIN, HeaderValue::from_static("gateway"));
    response
}

async fn handle(route: &'static Route, request: HttpRequest, payload: Payload) -> HttpResponse {
    let Some(worker) = request.app_data::<web::Data<Worker>>() else {
        return answer_of(&Problem::internal());
    };
    let Some(scope) = route.scope(request.method()) else {
        return refuse_method(route, request.method());
    };
    if request.headers().len() > MAX_HEADERS {
        return answer_of(&too_many_headers());
    }
    let peer = request.peer_addr().map(|peer| peer.ip());
    let address = proxy::client_address(peer, request.headers(), &worker.trusted_peers);

    let checked = check(worker, route, &request, address).await;
    let answer = match checked.caller {
        Ok(caller) if caller.may(scope) => {
            proxy::forward(worker, &request, payload, &caller, address, route.body_mode).await
        }
        Ok(caller) => Err(forbidden(&caller, scope)),
        Err(problem) => Err(problem),
    };
    let mut response = answer.unwrap_or_else(|problem| answer_of(&problem));
    let Rate(verdict, policy) = checked.rate;
    verdict.write(policy, response.headers_mut());
    response
}

/// A rate's verdict with its policy, for the headers.
struct Rate<'a>(Verdict, &'a Policy);

/// Who calls, if they may call at all now.
struct Checked<'a> {
    caller: Result<Caller, Problem>,
    rate: Rate<'a>,
}

impl<'a> Checked<'a> {
    /// A used-up rate is all that its owner is told.
    fn new((verdict, policy): (Verdict, &'a Policy), caller: Result<Caller, Problem>) -> Self {
        let caller = if verdict.allowed { caller } else { Err(limited(&verdict)) };
        Self { caller, rate: Rate(verdict, policy) }
    }
}

/// Finds out who calls, and charges the request to them.
async fn check<'a>(
    worker: &'a Worker,
    route: &Route,
    request: &HttpRequest,
    address: Option<IpAddr>,
) -> Checked<'a> {
    let by_address = Subject::Address(address);
    let key = match auth::find(request.headers(), request.query_string()) {
        Ok(Some(key)) => key,
        Ok(None) => {
            let caller = anonymous(worker, route, request.method());
            return Checked::new(worker.limiter.charge(by_address).await, caller);
        }
        Err(error) => {
            let problem = problem_of_credentials(error);
            return Checked::new(worker.limiter.charge(by_address).await, Err(problem));
        }
    };
    let hash = key.hash();
    let known = if let Some(known) = worker.authority.recall(&hash) {
        known
    } else {
        // Keys that nobody knows cost a look-up each; an address that has used up its allowance
        // gets none.
        let rate = worker.limiter.look(by_address).await;
        if !rate.0.allowed {
            let problem = limited(&rate.0);
            return Checked::new(rate, Err(problem));
        }
        match worker.authority.look_up(&worker.client, key, hash).await {
            Ok(known) => known,
            Err(error) => return Checked::new(rate, Err(problem_of_lookup(&error))),
        }
    };
    match known {
        Known::Invalid => {
            let problem = Problem::unauthorized("the API key is unknown, revoked or expired");
            Checked::new(worker.limiter.charge(by_address).await, Err(problem))
        }
        Known::Valid(identity) => {
            let rate = worker.limiter.charge(Subject::Key(identity.key_id())).await;
            Checked::new(rate, Ok(Caller::Key(identity)))
        }
    }
}

fn anonymous(worker: &Worker, route: &Route, method: &Method) -> Result<Caller, Problem> {
    match worker.anonymous {
        Anonymous::Open => Ok(Caller::Anonymous(worker.all_scopes)),
        Anonymous::Create if route.creates_links && method == Method::POST => {
            Ok(Caller::Anonymous([Scope::UrlsWrite].into_iter().collect()))
        }
        Anonymous::Create | Anonymous::Off => Err(Problem::unauthorized(
            "send an API key as `Authorization: Bearer …` or `X-Api-Key`",
        )),
    }
}

fn problem_of_credentials(error: CredentialError) -> Problem {
    match error {
        CredentialError::InUrl => {
            Problem::new(StatusCode::BAD_REQUEST, "key_in_url", "An API key is in the URL")
        }
        CredentialError::Conflicting => {
            Problem::new(StatusCode::BAD_REQUEST, "conflicting_keys", "Two different API keys")
        }
        CredentialError::Malformed => Problem::unauthorized(String::new()),
    }
    .detail(error.to_string())
}

fn problem_of_lookup(error: &auth::LookupError) -> Problem {
    match error {
        auth::LookupError::Upstream(error) => proxy::problem_of(error),
        // Logged where the look-up was made.
        auth::LookupError::Answer(_) | auth::LookupError::GivenUp => {
            Problem::unavailable("the API key can't be checked right now", 1)
        }
    }
}

fn limited(verdict: &Verdict) -> Problem {
    let seconds = verdict.retry_after_seconds();
    Problem::new(StatusCode::TOO_MANY_REQUESTS, "rate_limited", "Too many requests")
        .detail(format!("the next request is welcome in {seconds} s"))
        .retry_after(seconds)
}

fn forbidden(caller: &Caller, scope: Scope) -> Problem {
    let scope = scope.as_str();
    match caller {
        Caller::Key(_) => Problem::forbidden(format!("this needs a key with the scope {scope}")),
        Caller::Anonymous(_) => {
            Problem::unauthorized(format!("this needs an API key with the scope {scope}"))
        }
    }
}

fn too_many_headers() -> Problem {
    Problem::new(
        StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
        "too_many_headers",
        "The request has too many headers",
    )
    .detail(format!("at most {MAX_HEADERS} headers are accepted"))
}

fn refuse_method(route: &Route, method: &Method) -> HttpResponse {
    let allow = HeaderValue::from_str(&route.allow()).unwrap_or(HeaderValue::from_static(""));
    if method == Method::OPTIONS {
        return HttpResponse::NoContent().insert_header((ALLOW, allow)).finish();
    }
    let problem = Problem::new(
        StatusCode::METHOD_NOT_ALLOWED,
        "method_not_allowed",
        "This path has no such method",
    )
    .detail("the methods of this path are in `Allow`")
    .header(ALLOW, allow);
    answer_of(&problem)
}
