//! From a path to a redirect.

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
use linnet_platform::{clock::Clock, lifecycle::Lifecycle};
use linnet_telemetry::trace_headers::trace_id_from_traceparent;
use tokio::sync::Semaphore;

use crate::{Answer, HotLinks, LookupError, Redirect, Resolved, Resolver};
use linnet_clicks::{ClickBuffer, Enricher, Seen};
use linnet_domain::{LinkId, has_code_shape};
use linnet_store::{ConsumedClick, StoreError};

use super::{MissBudget, ResolveMetrics, budget::Client, metrics::Outcome, pages};

const SEC_GPC: HeaderName = HeaderName::from_static("sec-gpc");
const SEC_PURPOSE: HeaderName = HeaderName::from_static("sec-purpose");
/// What browsers sent before `Sec-Purpose`.
const PURPOSE: HeaderName = HeaderName::from_static("purpose");
const RETRY_AFTER_AWAY: HeaderValue = HeaderValue::from_static("1");

/// One worker's tools.
pub struct PublicState {
    /// The tiers.
    pub resolver: Resolver,
    /// What this worker is asked for most.
    pub hot: RefCell<HotLinks>,
    /// Where clicks go; `None` when they are not recorded.
    pub clicks: Option<ClickBuffer>,
    /// Connections that clicks on limited links may take.
    pub limited: Semaphore,
    /// Budgets of misses, of the process.
    pub budget: Arc<MissBudget>,
    /// Instruments, of the process.
    pub metrics: Arc<ResolveMetrics>,
    /// Whether the process is on its way out.
    pub lifecycle: Lifecycle,
    /// Knows bots by their user agent; of the process, since the pattern is large.
    pub agents: Arc<Enricher>,
    /// Longest life of a permanent redirect in a browser, in seconds.
    pub permanent_max_age_s: u32,
    /// Tells whether a link has expired, and when a click was.
    pub clock: Clock,
    /// One redirect in this many is logged; 0 logs none.
    pub log_sample: u32,
    /// Redirects until the next one that is logged.
    pub until_logged: Cell<u32>,
}

/// An answer that is no redirect.
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
        tracing::warn!(error, "a limited link could not be asked for");
        Self::Unavailable
    }
}

/// Why there is nothing to redirect to. Visitors are not told; it is only counted, and never by code.
#[derive(Debug, Clone, Copy)]
enum Missing {
    Unknown,
    Inactive,
    Expired,
    UsedUp,
}

impl Missing {
    fn outcome(self) -> Outcome {
        match self {
            Self::Unknown => Outcome::Unknown,
            Self::Inactive => Outcome::Inactive,
            Self::Expired => Outcome::Expired,
            Self::UsedUp => Outcome::UsedUp,
        }
    }
}

/// Answers every request of the public listener.
pub async fn serve(request: HttpRequest, state: web::Data<PublicState>) -> HttpResponse {
    let began = Instant::now();
    let is_head = match *request.method() {
        Method::GET => false,
        Method::HEAD => true,
        _ => {
            state.metrics.record(Outcome::BadMethod, began.elapsed().as_secs_f64());
            return HttpResponse::MethodNotAllowed()
                .insert_header((ALLOW, HeaderValue::from_static("GET, HEAD")))
                .finish();
        }
    };
    let (outcome, mut response) = match resolve(&request, &state, is_head, began).await {
        Ok(response) => (Outcome::Redirected, response),
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
    state: &PublicState,
    is_head: bool,
    began: Instant,
) -> Result<HttpResponse, Refusal> {
    if state.budget.any_over() {
        state.refuse_if_over(request)?;
    }
    // The raw path: what is percent-encoded is no code.
    let code = request.uri().path().strip_prefix('/').unwrap_or_default();
    if !has_code_shape(code) {
        return Err(state.miss(request, Missing::Unknown));
    }
    // Let go of before anything is awaited.
    let local = state.resolver.resolve_local(&mut state.hot.borrow_mut(), code, began);
    let resolved: Resolved = match local {
        Some(resolved) => resolved,
        None => state.resolver.resolve(code).await?,
    };
    match &resolved.entry().answer {
        Answer::Redirect(redirect) => match remaining_s(redirect, state.clock) {
            Some(0) => Err(state.miss(request, Missing::Expired)),
            remaining => {
                state.note_click(request, redirect.url_id, is_head, false);
                Ok(redirect_to(redirect, remaining, state.permanent_max_age_s))
            }
        },
        Answer::Limited => limited(request, state, code, is_head).await,
        // Without a row there is no version.
        Answer::Absent if resolved.entry().version == 0 => {
            Err(state.miss(request, Missing::Unknown))
        }
        Answer::Absent => Err(state.miss(request, Missing::Inactive)),
    }
}

/// A link with a click limit: the database decides, every time.
async fn limited(
    request: &HttpRequest,
    state: &PublicState,
    code: &str,
    is_head: bool,
) -> Result<HttpResponse, Refusal> {
    let store = &state.resolver.store;
    let is_click = !is_head && !state.is_bot(request);
    let ask = async {
        // Clicks on one link wait for its row: without a limit they would take every connection.
        let _permit = state.limited.acquire().await.map_err(|_| Refusal::Unavailable)?;
        // A look at a link and a bot's visit are no clicks.
        let click =
            if is_click { store.consume_click(code).await } else { store.peek_click(code).await };
        click.map_err(Refusal::from)
    };
    let click = tokio::time::timeout(state.resolver.database_timeout, ask)
        .await
        .unwrap_or(Err(Refusal::Unavailable))?;
    let ConsumedClick { id, original_url, redirect_status } =
        click.ok_or_else(|| state.miss(request, Missing::UsedUp))?;
    let status = u16::try_from(redirect_status).unwrap_or(302);
    let redirect = Redirect::new(&original_url, status, None, id)
        .ok_or(Refusal::NotFound(Missing::Unknown))?;
    state.note_click(request, id, is_head, is_click);
    Ok(HttpResponse::build(redirect.status)
        .insert_header((LOCATION, redirect.location))
        .insert_header((CACHE_CONTROL, HeaderValue::from_static("no-store")))
        .finish())
}

/// Whole seconds until the redirect stops; `None` if it never does, 0 if it has.
fn remaining_s(redirect: &Redirect, clock: Clock) -> Option<u64> {
    let expires_at = redirect.expires_at_ms()?;
    let left = i128::from(expires_at) - i128::from(clock.now_ms());
    if left <= 0 {
        return Some(0);
    }
    // Up, so that the last second is not taken for expiry.
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
        // Down, so that no browser keeps it past its end.
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

fn refuse(refusal: &Refusal) -> (Outcome, HttpResponse) {
    match refusal {
        Refusal::NotFound(why) => (why.outcome(), page(HttpResponse::NotFound(), pages::NOT_FOUND)),
        Refusal::TooManyMisses(seconds) => {
            let mut response = HttpResponse::TooManyRequests();
            response.insert_header((RETRY_AFTER, HeaderValue::from(*seconds)));
            (Outcome::TooManyMisses, page(response, pages::TOO_MANY))
        }
        Refusal::Unavailable => {
            let mut response = HttpResponse::ServiceUnavailable();
            response.insert_header((RETRY_AFTER, RETRY_AFTER_AWAY));
            (Outcome::Unavailable, page(response, pages::UNAVAILABLE))
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

impl PublicState {
    /// Counts a miss against its client; says what it gets.
    fn miss(&self, request: &HttpRequest, why: Missing) -> Refusal {
        match client_of(request).map(|client| self.budget.take(client)) {
            Some(Err(seconds)) => Refusal::TooManyMisses(seconds),
            Some(Ok(())) | None => Refusal::NotFound(why),
        }
    }

    /// Refuses a client that is over its budget, whatever it asks for.
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

    /// Leaves the click for the publisher: some copying, no waiting. `is_counted`: the link's limit
    /// has counted it.
    #[inline]
    fn note_click(&self, request: &HttpRequest, url_id: LinkId, is_head: bool, is_counted: bool) {
        let Some(clicks) = &self.clicks else { return };
        let looks_ahead = || {
            let purpose = header(request, &SEC_PURPOSE).or_else(|| header(request, &PURPOSE));
            purpose.is_some_and(|purpose| purpose.as_bytes().starts_with(b"prefetch"))
        };
        clicks.push(&Seen {
            at_ms: self.clock.now_ms(),
            url_id,
            is_head,
            // A prefetch that took a click from a limit is one.
            is_prefetch: !is_counted && looks_ahead(),
            is_counted,
            opted_out: header_bytes(request, &SEC_GPC) == b"1",
            client: address_of(request),
            agent: header_bytes(request, &USER_AGENT),
            referrer: header_bytes(request, &REFERER),
            language: header_bytes(request, &ACCEPT_LANGUAGE),
        });
    }

    /// Errors always, redirects and misses one in `log_sample`.
    #[inline]
    fn log(&self, request: &HttpRequest, outcome: Outcome, status: StatusCode, began: Instant) {
        if outcome != Outcome::Unavailable {
            let left = self.until_logged.get();
            if self.log_sample == 0 || left > 1 {
                self.until_logged.set(left.saturating_sub(1));
                return;
            }
            self.until_logged.set(self.log_sample);
        }
        write_log(request, outcome, status, began);
    }
}

#[cold]
fn write_log(request: &HttpRequest, outcome: Outcome, status: StatusCode, began: Instant) {
    let header =
        |name: &str| request.headers().get(name).and_then(|v| v.to_str().ok()).unwrap_or_default();
    // A long or odd one is not worth a line of its size.
    let request_id =
        Some(header("x-request-id")).filter(|id| has_code_shape(id)).unwrap_or_default();
    let trace_id = trace_id_from_traceparent(header("traceparent")).unwrap_or_default();
    let (method, status) = (request.method().as_str(), status.as_u16());
    let duration_ms = began.elapsed().as_secs_f64() * 1e3;
    if outcome == Outcome::Unavailable {
        tracing::error!(
            request_id,
            trace_id,
            method,
            route = "/{code}",
            status,
            duration_ms,
            "request"
        );
    } else {
        tracing::info!(
            request_id,
            trace_id,
            method,
            route = "/{code}",
            status,
            duration_ms,
            "request"
        );
    }
}

#[inline]
fn header<'a>(request: &'a HttpRequest, name: &HeaderName) -> Option<&'a HeaderValue> {
    request.headers().get(name)
}

/// What came under this name; nothing if nothing did.
#[inline]
fn header_bytes<'a>(request: &'a HttpRequest, name: &HeaderName) -> &'a [u8] {
    header(request, name).map_or(b"", HeaderValue::as_bytes)
}

/// The client's address. nginx always sets the header itself, to one address.
fn address_of(request: &HttpRequest) -> Option<IpAddr> {
    header(request, &X_FORWARDED_FOR)?.to_str().ok()?.parse().ok()
}

fn client_of(request: &HttpRequest) -> Option<Client> {
    address_of(request).map(Client::of)
}
