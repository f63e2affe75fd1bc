//! The state of a server thread of the resolve listener, and what each request does with it.

use std::{
    cell::{Cell, RefCell},
    sync::Arc,
    time::Instant,
};

use actix_web::{
    HttpRequest,
    http::{
        StatusCode,
        header::{ACCEPT_LANGUAGE, HeaderName, REFERER, USER_AGENT},
    },
};
use linnet_clicks::{ClickBuffer, ClickObservation, UserAgentParser};
use linnet_domain::{ClickKind, LinkId, has_code_shape};
use linnet_platform::{clock::Clock, lifecycle::Lifecycle};
use linnet_telemetry::{request::RequestLine, trace_headers::trace_id_from_traceparent};
use tokio::sync::Semaphore;

use super::{
    MissBudget, ResolveMetrics,
    metrics::ResolveOutcome,
    request::{address_of, client_of, header_bytes, is_prefetch},
    response::Refusal,
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
    /// Another method, which only a redirect with 307 or 308 answers. The body is not read.
    Other,
}

impl ResolveState {
    /// Charges a request for a code without a link to the budget of its client, and returns the refusal.
    pub(super) fn guess(&self, request: &HttpRequest) -> Refusal {
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

    /// The kind of a visit.
    pub(super) fn kind_of(&self, request: &HttpRequest, visit: Visit) -> ClickKind {
        let is_bot = self.agents.is_bot(header_bytes(request, &USER_AGENT));
        ClickKind::of(visit == Visit::Head, is_bot, is_prefetch(request))
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
