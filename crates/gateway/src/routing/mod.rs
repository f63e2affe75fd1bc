//! Registers the API routes, and passes each request through method, caller, rate and scope checks
//! before it is forwarded.
//!
//! Invariants:
//! - A request without a valid key is charged to its address before it gets a response, so the
//!   address limit bounds how fast keys can be guessed.
//! - An invalid key is 401 in every `gateway.anonymous` mode: the request never counts as anonymous.
//! - A rejection never waits for the request's body.
//! - A long response holds a lease on its key, and ends with the lease.
//! - Every response to an allowed method has the `RateLimit` headers.

mod access;

use actix_web::{
    HttpRequest, HttpResponse,
    dev::Payload,
    http::{
        Method,
        header::{ALLOW, HeaderValue},
    },
    web,
};
use linnet_domain::Scope;
use linnet_platform::client_address::client_address;
use linnet_protocol::{
    problem::Problem,
    routes::{BodyMode, Route},
};

use crate::{problems, proxy, thread_state::ThreadState};

/// Maximum number of headers of a request. The shortener accepts 96, including those that the gateway adds.
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

/// 404 for a path that has no route. A body is not read.
pub(crate) async fn unknown_path(request: HttpRequest, payload: web::Payload) -> HttpResponse {
    proxy::without_body(request.headers(), problems::not_found(), payload.into_inner())
}

async fn handle(route: &'static Route, request: HttpRequest, payload: Payload) -> HttpResponse {
    let Some(state) = request.app_data::<web::Data<ThreadState>>() else {
        return problems::response(&Problem::internal());
    };
    let Some(scope) = route.scope(request.method()) else {
        let response = reject_method(route, request.method());
        return proxy::without_body(request.headers(), response, payload);
    };
    if request.headers().len() > MAX_HEADERS {
        let response = problems::response(&problems::too_many_headers(MAX_HEADERS));
        return proxy::without_body(request.headers(), response, payload);
    }
    forward(state, route, scope, &request, payload).await
}

async fn forward(
    state: &ThreadState,
    route: &Route,
    scope: Scope,
    request: &HttpRequest,
    payload: Payload,
) -> HttpResponse {
    let peer = request.peer_addr().map(|peer| peer.ip());
    let is_trusted = |peer| state.trusted_peers.iter().any(|network| network.contains(peer));
    let address = client_address(peer, request.headers(), is_trusted);
    let access = access::check(state, route, request, address).await;
    let admitted = match access.caller {
        Ok(caller) if caller.has_scope(scope) => match route.body_mode {
            BodyMode::Buffered => Ok((caller, None)),
            BodyMode::Streamed => access::lease(state, request).await.map(|lease| (caller, lease)),
        },
        Ok(caller) => Err(problems::missing_scope(&caller, scope)),
        Err(problem) => Err(problem),
    };
    let mut response = match admitted {
        Ok((caller, lease)) => {
            let client = proxy::Client { caller: &caller, address, lease };
            proxy::forward(state, request, payload, client, route).await
        }
        Err(problem) => {
            proxy::without_body(request.headers(), problems::response(&problem), payload)
        }
    };
    access.limit.write_headers(response.headers_mut());
    response
}

/// 204 for `OPTIONS`, 405 for other methods.
fn reject_method(route: &Route, method: &Method) -> HttpResponse {
    let allow = route.allow();
    if method == Method::OPTIONS {
        let allow = HeaderValue::from_str(&allow).unwrap_or(HeaderValue::from_static(""));
        return HttpResponse::NoContent().insert_header((ALLOW, allow)).finish();
    }
    problems::response(&problems::method_not_allowed(&allow))
}
