//! Handles the requests of the resolve listener: looks up the code, records the click, and responds.

use std::{
    cell::{Cell, RefCell},
    net::IpAddr,
    sync::Arc,
    time::Instant,
};

use actix_web::{
    HttpRequest, HttpResponse, HttpResponseBuilder,
    http::{
        Method, StatusCode,
        header::{
            ACCEPT_LANGUAGE, ALLOW, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE,
            HeaderName, HeaderValue, LOCATION, REFERER, RETRY_AFTER, USER_AGENT,
            X_CONTENT_TYPE_OPTIONS, X_FORWARDED_FOR,
        },
    },
    web,
};
use linnet_platform::{client_network::ClientNetwork, clock::Clock, lifecycle::Lifecycle};
use linnet_telemetry::{request::RequestLine, trace_headers::trace_id_from_traceparent};
use tokio::sync::Semaphore;

use crate::{HotLinks, LookupError, Redirect, Resolution, Resolved, Resolver};
use linnet_clicks::{ClickBuffer, ClickObservation, UserAgentParser};
use linnet_domain::{LinkId, has_code_shape};
use linnet_store::{ConsumedClick, StoreError};

use super::{MissBudget, ResolveMetrics, metrics::ResolveOutcome, pages};

const SEC_GPC: HeaderName = HeaderName::from_static("sec-gpc");
const SEC_PURPOSE: HeaderName = HeaderName::from_static("sec-purpose");
/// The name of `Sec-Purpose` in older browsers.
const PURPOSE: HeaderName = HeaderName::from_static("purpose");
const RETRY_AFTER_UNAVAILABLE: HeaderValue = HeaderValue::from_static("1");

/// The state of one server thread.
pub struct ResolveState {
    /// The cache tiers.
    pub resolver: Resolver,
    /// The thread's own copies of the hottest links.
    pub hot: RefCell<HotLinks>,
    /// The click buffer; `None` when clicks are not recorded.
    pub clicks: Option<ClickBuffer>,
    /// Permits for clicks on links with `max_clicks`, so that they cannot occupy every database connection.
    pub limited: Semaphore,
    /// The process's budgets of misses.
    pub budget: Arc<MissBudget>,
    /// The process's instruments.
    pub metrics: Arc<ResolveMetrics>,
    /// Whether the process drains.
    pub lifecycle: Lifecycle,
    /// Detects bots by their user agent. One for the process, because its pattern is large.
    pub agents: Arc<UserAgentParser>,
    /// Longest time that a browser may cache a permanent redirect, in seconds.
    pub permanent_max_age_s: u32,
    /// The clock for expiry and for the time of clicks.
    pub clock: Clock,
    /// One redirect in this many is logged; 0 logs none.
    pub log_sample: u32,
    /// Responses until the next one that is logged.
    pub until_logged: Cell<u32>,
}

/// Why a request gets no redirect.
enum Refusal {
    NotFound(Missing),
    TooManyMisses(u64),
    Unavailable,
}

impl From<LookupError> for Refusal {
    fn from(_: LookupError) -> Self {
        Self::Unavailable
    }
}

impl From<StoreError> for Refusal {
    fn from(error: StoreError) -> Self {
        let error: &dyn std::error::Error = &error;
        tracing::warn!(error, "limited link not read");
        Self::Unavailable
    }
}

/// Why a code has no redirect. Visitors get the same page in each case; only a metric distinguishes them.
#[derive(Debug, Clone, Copy)]
enum Missing {
    Unknown,
    Inactive,
    Expired,
    UsedUp,
}

impl Missing {
    fn outcome(self) -> ResolveOutcome {
        match self {
            Self::Unknown => ResolveOutcome::Unknown,
            Self::Inactive => ResolveOutcome::Inactive,
            Self::Expired => ResolveOutcome::Expired,
            Self::UsedUp => ResolveOutcome::UsedUp,
        }
    }
}

/// Serves every request of the resolve listener.
pub async fn serve(request: HttpRequest, state: web::Data<ResolveState>) -> HttpResponse {
    let began = Instant::now();
    let is_head = match *request.method() {
        Method::GET => false,
        Method::HEAD => true,
        _ => {
            state.metrics.record(ResolveOutcome::BadMethod, began.elapsed().as_secs_f64());
            return HttpResponse::MethodNotAllowed()
                .insert_header((ALLOW, HeaderValue::from_static("GET, HEAD")))
                .finish();
        }
    };
    let (outcome, mut response) = match resolve(&request, &state, is_head, began).await {
        Ok(response) => (ResolveOutcome::Redirected, response),
        Err(refusal) => refuse(&refusal),
    };
    if state.lifecycle.is_draining() {
        response.head_mut().set_connection_type(actix_web::http::ConnectionType::Close);
    }
    state.metrics.record(outcome, began.elapsed().as_secs_f64());
    state.log(&request, outcome, response.status(), began);
    response
}

async fn resolve(
    request: &HttpRequest,
    state: &ResolveState,
    is_head: bool,
    began: Instant,
) -> Result<HttpResponse, Refusal> {
    if state.budget.any_over() {
        state.refuse_if_over(request)?;
    }
    // The path is compared as it was sent, so a percent-encoded code is not found.
    let code = request.uri().path().strip_prefix('/').unwrap_or_default();
    if !has_code_shape(code) {
        return Err(state.miss(request, Missing::Unknown));
    }
    // The borrow ends before anything is awaited.
    let local = state.resolver.resolve_local(&mut state.hot.borrow_mut(), code, began);
    let resolved: Resolved = match local {
        Some(resolved) => resolved,
        None => state.resolver.resolve(code).await?,
    };
    match &resolved.entry().resolution {
        Resolution::Redirect(redirect) => match remaining_s(redirect, state.clock) {
            Some(0) => Err(state.miss(request, Missing::Expired)),
            remaining => {
                state.record_click(request, redirect.url_id, is_head, false);
                Ok(redirect_to(redirect, remaining, state.permanent_max_age_s))
            }
        },
        Resolution::Limited => limited(request, state, code, is_head).await,
        // Version 0 means that there is no row.
        Resolution::Negative if resolved.entry().version == 0 => {
            Err(state.miss(request, Missing::Unknown))
        }
        Resolution::Negative => Err(state.miss(request, Missing::Inactive)),
    }
}

/// Resolves a link with `max_clicks`: PostgreSQL counts each click, and rejects those beyond the limit.
async fn limited(
    request: &HttpRequest,
    state: &ResolveState,
    code: &str,
    is_head: bool,
) -> Result<HttpResponse, Refusal> {
    let store = &state.resolver.store;
    let is_click = !is_head && !state.is_bot(request);
    let read = async {
        // Clicks on the same link wait for the lock of its row. Without this limit, they would occupy every connection.
        let _permit = state.limited.acquire().await.map_err(|_| Refusal::Unavailable)?;
        // HEAD and bots read the link without using up a click.
        let click =
            if is_click { store.consume_click(code).await } else { store.peek_click(code).await };
        click.map_err(Refusal::from)
    };
    let click = tokio::time::timeout(state.resolver.database_timeout, read)
        .await
        .unwrap_or(Err(Refusal::Unavailable))?;
    let ConsumedClick { id, original_url, redirect_status } =
        click.ok_or_else(|| state.miss(request, Missing::UsedUp))?;
    let status = u16::try_from(redirect_status).unwrap_or(302);
    let redirect = Redirect::new(&original_url, status, None, id)
        .ok_or(Refusal::NotFound(Missing::Unknown))?;
    state.record_click(request, id, is_head, is_click);
    Ok(HttpResponse::build(redirect.status)
        .insert_header((LOCATION, redirect.location))
        .insert_header((CACHE_CONTROL, HeaderValue::from_static("no-store")))
        .finish())
}

/// Whole seconds until the link expires; `None` if it never does, 0 if it has.
fn remaining_s(redirect: &Redirect, clock: Clock) -> Option<u64> {
    let expires_at = redirect.expires_at_ms()?;
    let left = i128::from(expires_at) - i128::from(clock.now_ms());
    if left <= 0 {
        return Some(0);
    }
    // Rounded up, so that the last second does not count as expired.
    Some(u64::try_from(left).unwrap_or(u64::MAX).div_ceil(1_000))
}

#[inline]
fn redirect_to(
    redirect: &Redirect,
    remaining: Option<u64>,
    permanent_max_age_s: u32,
) -> HttpResponse {
    let is_permanent =
        matches!(redirect.status, StatusCode::MOVED_PERMANENTLY | StatusCode::PERMANENT_REDIRECT);
    let cache_control = if is_permanent {
        // Rounded down, so that no browser caches it past its expiry.
        let life = remaining.map_or(u64::MAX, |seconds| seconds - 1);
        let max_age = life.min(permanent_max_age_s.into());
        HeaderValue::try_from(format!("private, max-age={max_age}"))
            .unwrap_or(HeaderValue::from_static("no-store"))
    } else {
        HeaderValue::from_static("private, max-age=0")
    };
    HttpResponse::build(redirect.status)
        .insert_header((LOCATION, redirect.location.clone()))
        .insert_header((CACHE_CONTROL, cache_control))
        .finish()
}

fn refuse(refusal: &Refusal) -> (ResolveOutcome, HttpResponse) {
    match refusal {
        Refusal::NotFound(why) => (why.outcome(), page(HttpResponse::NotFound(), pages::NOT_FOUND)),
        Refusal::TooManyMisses(seconds) => {
            let mut response = HttpResponse::TooManyRequests();
            response.insert_header((RETRY_AFTER, HeaderValue::from(*seconds)));
            (ResolveOutcome::TooManyMisses, page(response, pages::TOO_MANY))
        }
        Refusal::Unavailable => {
            let mut response = HttpResponse::ServiceUnavailable();
            response.insert_header((RETRY_AFTER, RETRY_AFTER_UNAVAILABLE));
            (ResolveOutcome::Unavailable, page(response, pages::UNAVAILABLE))
        }
    }
}

fn page(mut response: HttpResponseBuilder, body: &'static str) -> HttpResponse {
    response
        .insert_header((CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8")))
        .insert_header((CACHE_CONTROL, HeaderValue::from_static("no-store")))
        .insert_header((X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")))
        .insert_header((
            CONTENT_SECURITY_POLICY,
            HeaderValue::from_static(
                "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'",
            ),
        ))
        .body(body)
}

impl ResolveState {
    /// Charges a miss to its client, and returns the refusal.
    fn miss(&self, request: &HttpRequest, why: Missing) -> Refusal {
        match client_of(request).map(|client| self.budget.take(client)) {
            Some(Err(seconds)) => Refusal::TooManyMisses(seconds),
            Some(Ok(())) | None => Refusal::NotFound(why),
        }
    }

    /// Refuses a client that is over its budget, for any code.
    #[cold]
    fn refuse_if_over(&self, request: &HttpRequest) -> Result<(), Refusal> {
        match client_of(request).and_then(|client| self.budget.wait_of(client)) {
            Some(seconds) => Err(Refusal::TooManyMisses(seconds)),
            None => Ok(()),
        }
    }

    fn is_bot(&self, request: &HttpRequest) -> bool {
        self.agents.is_bot(header(request, &USER_AGENT).and_then(|value| value.to_str().ok()))
    }

    /// Copies the click into the buffer, without waiting. `is_counted` means that it used up one of the
    /// link's `max_clicks`.
    #[inline]
    fn record_click(&self, request: &HttpRequest, url_id: LinkId, is_head: bool, is_counted: bool) {
        let Some(clicks) = &self.clicks else { return };
        let is_prefetch = || {
            let purpose = header(request, &SEC_PURPOSE).or_else(|| header(request, &PURPOSE));
            purpose.is_some_and(|purpose| purpose.as_bytes().starts_with(b"prefetch"))
        };
        clicks.push(&ClickObservation {
            at_ms: self.clock.now_ms(),
            url_id,
            is_head,
            // A prefetch that used up a click counts as a click.
            is_prefetch: !is_counted && is_prefetch(),
            is_counted,
            has_opted_out: header_bytes(request, &SEC_GPC) == b"1",
            client: address_of(request),
            agent: header_bytes(request, &USER_AGENT),
            referrer: header_bytes(request, &REFERER),
            language: header_bytes(request, &ACCEPT_LANGUAGE),
        });
    }

    /// Logs every error, and one redirect or miss in `log_sample`.
    #[inline]
    fn log(
        &self,
        request: &HttpRequest,
        outcome: ResolveOutcome,
        status: StatusCode,
        began: Instant,
    ) {
        if outcome != ResolveOutcome::Unavailable {
            let left = self.until_logged.get();
            if self.log_sample == 0 || left > 1 {
                self.until_logged.set(left.saturating_sub(1));
                return;
            }
            self.until_logged.set(self.log_sample);
        }
        write_log(request, status, began);
    }
}

#[cold]
fn write_log(request: &HttpRequest, status: StatusCode, began: Instant) {
    let header =
        |name: &str| request.headers().get(name).and_then(|v| v.to_str().ok()).unwrap_or_default();
    // A client may send an id of any length; only a short one is logged.
    let request_id =
        Some(header("x-request-id")).filter(|id| has_code_shape(id)).unwrap_or_default();
    let trace_id = trace_id_from_traceparent(header("traceparent")).unwrap_or_default();
    RequestLine {
        request_id,
        trace_id,
        method: request.method().as_str(),
        route: "/{code}",
        status: status.as_u16(),
        duration: began.elapsed(),
        queries: None,
        failure: None,
    }
    .log();
}

#[inline]
fn header<'a>(request: &'a HttpRequest, name: &HeaderName) -> Option<&'a HeaderValue> {
    request.headers().get(name)
}

/// The value of a header; empty without it.
#[inline]
fn header_bytes<'a>(request: &'a HttpRequest, name: &HeaderName) -> &'a [u8] {
    header(request, name).map_or(b"", HeaderValue::as_bytes)
}

/// The client's address. nginx overwrites the header with exactly one address.
fn address_of(request: &HttpRequest) -> Option<IpAddr> {
    header(request, &X_FORWARDED_FOR)?.to_str().ok()?.parse().ok()
}

fn client_of(request: &HttpRequest) -> Option<ClientNetwork> {
    address_of(request).map(ClientNetwork::from)
}
