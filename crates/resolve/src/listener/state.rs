//! The state of a server thread of the resolve listener, and what each request does with it.

use std::{
    cell::{Cell, RefCell},
    sync::Arc,
    time::Instant,
};

use actix_web::{
    HttpRequest,
    http::{
        Method, StatusCode,
        header::{ACCEPT_LANGUAGE, HeaderName, REFERER, USER_AGENT},
    },
};
use linnet_clicks::{ClickBuffer, ClickObservation, UserAgentParser};
use linnet_domain::{ClickKind, LinkId, has_code_shape, is_reserved_code};
use linnet_platform::{clock::Clock, lifecycle::Lifecycle};
use linnet_telemetry::{request::RequestLine, trace_headers::trace_id_from_traceparent};
use tokio::sync::Semaphore;

use super::{
    MissBudget, ResolveMetrics,
    metrics::ResolveOutcome,
    request::{address_of, client_of, header_bytes, is_prefetch},
    response::{Refusal, keeps_method},
};
use crate::{Absence, HotLinks, Resolver};

const SEC_GPC: HeaderName = HeaderName::from_static("sec-gpc");

/// The state of one server thread.
pub struct ResolveState {
    /// The cache tiers.
    pub resolver: Resolver,
    /// The thread's own copies of the hottest links.
    pub hot: RefCell<HotLinks>,
    /// The click buffer; `None` when clicks are not recorded.
    pub clicks: Option<ClickBuffer>,
    /// Permits for clicks on links with `max_clicks`, so that they cannot occupy every database connection.
    pub limited: Arc<Semaphore>,
    /// Permits for visitors who wait until a new limit has settled.
    pub settling: Semaphore,
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
    /// One redirect or miss in this many is logged; 0 logs none.
    pub log_sample: u32,
    /// Responses until the next one that is logged.
    pub until_logged: Cell<u32>,
}

/// How a request visits a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Visit {
    /// `GET`.
    Get,
    /// `HEAD`.
    Head,
    /// `POST`, `PUT` or `PATCH`, which only a link with 307 or 308 redirects. The body is not read.
    Submit,
    /// `OPTIONS`, which asks for the methods that a link supports.
    Options,
    /// Another method, which no link supports.
    Other,
}

impl Visit {
    /// The visit that a request with this method makes.
    pub(super) fn of(method: &Method) -> Self {
        match *method {
            Method::GET => Self::Get,
            Method::HEAD => Self::Head,
            Method::POST | Method::PUT | Method::PATCH => Self::Submit,
            Method::OPTIONS => Self::Options,
            _ => Self::Other,
        }
    }

    /// The response to a method that a link with this status does not redirect. Such a request is not a click.
    pub(super) fn refusal(self, status: StatusCode) -> Option<Refusal> {
        match self {
            Self::Get | Self::Head => None,
            Self::Submit if keeps_method(status) => None,
            Self::Options => Some(Refusal::Options(status)),
            Self::Submit | Self::Other => Some(Refusal::BadMethod(status)),
        }
    }
}

impl ResolveState {
    /// Charges a request for a code without a link to the budget of its client, and returns the refusal. A reserved word
    /// does not count as a guess: no link can have it, and browsers and crawlers request such paths by themselves.
    pub(super) fn guess(&self, request: &HttpRequest, code: &str) -> Refusal {
        if is_reserved_code(code) {
            return Refusal::NotFound(Absence::Unknown);
        }
        match client_of(request).map(|client| self.budget.take(client)) {
            Some(Err(seconds)) => Refusal::TooManyMisses(seconds),
            Some(Ok(())) | None => Refusal::NotFound(Absence::Unknown),
        }
    }

    /// Refuses a client that is over its budget, for any code.
    #[cold]
    pub(super) fn refuse_if_over(&self, request: &HttpRequest) -> Result<(), Refusal> {
        match client_of(request).and_then(|client| self.budget.wait_of(client)) {
            Some(seconds) => Err(Refusal::TooManyMisses(seconds)),
            None => Ok(()),
        }
    }

    /// The kind of a visit. Only `GET` and the methods that submit a body can be a person's.
    pub(super) fn kind_of(&self, request: &HttpRequest, visit: Visit) -> ClickKind {
        let is_bot = self.agents.is_bot(header_bytes(request, &USER_AGENT));
        ClickKind::of(!matches!(visit, Visit::Get | Visit::Submit), is_bot, is_prefetch(request))
    }

    /// Copies the click into the buffer, without waiting. `is_counted` means that it used up one of the
    /// link's `max_clicks`.
    #[inline]
    pub(super) fn record_click(
        &self,
        request: &HttpRequest,
        url_id: LinkId,
        visit: Visit,
        is_counted: bool,
    ) {
        let Some(clicks) = &self.clicks else { return };
        clicks.push(&ClickObservation {
            at_ms: self.clock.now_ms(),
            url_id,
            is_head: visit == Visit::Head,
            is_prefetch: is_prefetch(request),
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
    pub(super) fn log(
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
