//! Reads the counters of a color from the metrics of its two processes.
//!
//! Counters of histograms are exact at the bounds of buckets, so shares above a bound are exact as well. Prometheus is
//! not involved: a scrape would delay each decision, and a new series loses its first increments.

use std::collections::BTreeMap;

use crate::fisher::Sample;

const DURATIONS: &str = "http_server_request_duration_seconds_bucket";
const REQUESTS: &str = "http_server_request_duration_seconds_count";
const TIMEOUTS: &str = "linnet_db_timeouts_total";
const DROPPED: &str = "linnet_clicks_dropped_total";

/// The route of redirects in the metrics.
pub const REDIRECT: &str = "/{code}";

/// Counters of one route.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RouteCounters {
    /// Responses.
    pub all: u64,
    /// Responses with a status from 500.
    pub errors: u64,
    /// Responses with the status 404.
    pub not_found: u64,
    /// Responses whose durations `within` counts: those since latency began to count.
    pub timed: u64,
    /// Requests that took at most the bound, in microseconds.
    pub within: BTreeMap<u64, u64>,
}

impl RouteCounters {
    /// Requests slower than the bound, which must be one of `within`.
    pub fn slower_than(&self, bound_us: u64) -> Sample {
        let fast = self.within.get(&bound_us).copied().unwrap_or(self.timed);
        Sample { bad: self.timed.saturating_sub(fast), all: self.timed }
    }

    /// The smallest bound that `share` of the requests keep; `None` if no bound does.
    pub fn bound_of(&self, share: f64) -> Option<u64> {
        self.within
            .iter()
            .find(|(_, within)| {
                Sample { bad: **within, all: self.timed }.share() >= share && self.timed > 0
            })
            .map(|(bound, _)| *bound)
    }

    fn minus(&self, before: &Self) -> Self {
        let within = self.within.iter().map(|(bound, count)| {
            (*bound, count.saturating_sub(before.within.get(bound).copied().unwrap_or(0)))
        });
        Self {
            all: self.all.saturating_sub(before.all),
            errors: self.errors.saturating_sub(before.errors),
            not_found: self.not_found.saturating_sub(before.not_found),
            timed: self.timed.saturating_sub(before.timed),
            within: within.collect(),
        }
    }
}

/// Counters of a color at one moment, or their difference between two moments.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Counters {
    /// By route: redirects under [`REDIRECT`], the API's routes as the gateway reports them.
    pub routes: BTreeMap<String, RouteCounters>,
    /// Statements that got no connection in time.
    pub pool_timeouts: u64,
    /// Clicks that were not recorded.
    pub dropped_clicks: u64,
}

impl Counters {
    /// Adds a process's metrics in Prometheus's text format. Of the shortener only redirects count: the gateway reports
    /// the API.
    pub fn add(&mut self, metrics: &str, process: Process) {
        for line in metrics.lines() {
            let Some(series) = Series::parse(line) else { continue };
            match series.name {
                TIMEOUTS if series.label("kind") == Some("connection") => {
                    self.pool_timeouts += series.value;
                }
                DROPPED => self.dropped_clicks += series.value,
                DURATIONS | REQUESTS => self.add_requests(&series, process),
                _ => {}
            }
        }
    }

    fn add_requests(&mut self, series: &Series<'_>, process: Process) {
        let route = series.label("http_route").unwrap_or("");
        if (route == REDIRECT) != (process == Process::Shortener) {
            return;
        }
        let counters = self.routes.entry(route.to_owned()).or_default();
        if series.name == DURATIONS {
            if let Some(bound) = series.label("le").and_then(microseconds) {
                *counters.within.entry(bound).or_default() += series.value;
            }
            return;
        }
        counters.all += series.value;
        counters.timed += series.value;
        match series.label("http_response_status_code") {
            Some("404") => counters.not_found += series.value,
            Some(status) if status.starts_with('5') => counters.errors += series.value,
            _ => {}
        }
    }

    /// The difference to `before`; `None` if a process has restarted between, because its counters began again.
    #[must_use]
    pub fn since(&self, before: &Self) -> Option<Self> {
        let none = RouteCounters::default();
        let is_smaller = before
            .routes
            .iter()
            .any(|(route, counters)| self.routes.get(route).unwrap_or(&none).all < counters.all);
        if is_smaller {
            return None;
        }
        let routes = self.routes.iter().map(|(route, counters)| {
            (route.clone(), counters.minus(before.routes.get(route).unwrap_or(&none)))
        });
        Some(Self {
            routes: routes.collect(),
            pool_timeouts: self.pool_timeouts.saturating_sub(before.pool_timeouts),
            dropped_clicks: self.dropped_clicks.saturating_sub(before.dropped_clicks),
        })
    }

    /// Adds the counters of another process.
    pub fn add_all(&mut self, other: &Self) {
        for (route, more) in &other.routes {
            let sum = self.routes.entry(route.clone()).or_default();
            sum.all += more.all;
            sum.errors += more.errors;
            sum.not_found += more.not_found;
            sum.timed += more.timed;
            for (bound, count) in &more.within {
                *sum.within.entry(*bound).or_default() += count;
            }
        }
        self.pool_timeouts += other.pool_timeouts;
        self.dropped_clicks += other.dropped_clicks;
    }

    /// Removes the durations of a difference, and keeps its responses.
    pub fn forget_durations(&mut self) {
        for counters in self.routes.values_mut() {
            counters.timed = 0;
            counters.within.values_mut().for_each(|count| *count = 0);
        }
    }

    /// Lets the durations, as the base of a difference, count from `now` on. The responses keep counting from before.
    pub fn skip_durations(&mut self, now: &Self) {
        for (route, counters) in &now.routes {
            let base = self.routes.entry(route.clone()).or_default();
            base.timed = counters.timed;
            base.within.clone_from(&counters.within);
        }
    }

    /// The sum of the redirects, or of the API's routes.
    pub fn total(&self, kind: Kind) -> RouteCounters {
        let mut sum = RouteCounters::default();
        for (route, counters) in &self.routes {
            if kind.contains(route) {
                sum.all += counters.all;
                sum.errors += counters.errors;
                sum.not_found += counters.not_found;
            }
        }
        sum
    }
}

/// A program whose metrics are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Process {
    /// `linnet-gateway`.
    Gateway,
    /// `linnet-shortener serve`.
    Shortener,
}

/// The two kinds of requests, which are judged apart: a broken API must not hide behind many redirects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Short links.
    Redirects,
    /// Everything that the gateway serves.
    Api,
}

impl Kind {
    /// Both kinds.
    pub const ALL: [Self; 2] = [Self::Redirects, Self::Api];

    /// The name in messages.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Redirects => "redirects",
            Self::Api => "API requests",
        }
    }

    fn contains(self, route: &str) -> bool {
        (route == REDIRECT) == (self == Self::Redirects)
    }
}

fn microseconds(bound: &str) -> Option<u64> {
    let seconds: f64 = bound.parse().ok()?;
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "checked to be from 0 to an hour"
    )]
    (0.0..3600.0).contains(&seconds).then(|| (seconds * 1e6).round() as u64)
}

/// A line of the text format.
struct Series<'a> {
    name: &'a str,
    labels: &'a str,
    value: u64,
}

impl<'a> Series<'a> {
    /// `None` for comments, and for values that are not counts.
    fn parse(line: &'a str) -> Option<Self> {
        if line.starts_with('#') {
            return None;
        }
        // A label's value may contain spaces and braces, so the value follows the last brace.
        let (series, value) = match line.rsplit_once('}') {
            Some((series, value)) => (series, value),
            None => line.split_once(' ')?,
        };
        let value: f64 = value.split_whitespace().next()?.parse().ok()?;
        let (name, labels) = series.split_once('{').unwrap_or((series, ""));
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a saturating cast is what a counter needs"
        )]
        let count = value as u64;
        (value >= 0.0).then_some(Self { name, labels, value: count })
    }

    /// The label's value, as it is written. Linnet's routes and statuses contain nothing that is escaped.
    fn label(&self, name: &str) -> Option<&'a str> {
        let mut rest = self.labels;
        loop {
            let (label, after) = rest.split_once("=\"")?;
            let end = closing_quote(after)?;
            let (value, after) = after.split_at_checked(end)?;
            if label.trim_start_matches(',') == name {
                return Some(value);
            }
            rest = after.get(1..)?;
        }
    }
}

fn closing_quote(text: &str) -> Option<usize> {
    let mut is_escaped = false;
    text.bytes().position(|byte| {
        let is_end = byte == b'"' && !is_escaped;
        is_escaped = byte == b'\\' && !is_escaped;
        is_end
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHORTENER: &str = r#"# HELP http_server_request_duration_seconds Time
# TYPE http_server_request_duration_seconds histogram
http_server_request_duration_seconds_bucket{http_request_method="GET",http_response_status_code="302",http_route="/{code}",url_scheme="http",le="0.0005"} 90
http_server_request_duration_seconds_bucket{http_request_method="GET",http_response_status_code="302",http_route="/{code}",url_scheme="http",le="0.025"} 99
http_server_request_duration_seconds_bucket{http_request_method="GET",http_response_status_code="302",http_route="/{code}",url_scheme="http",le="+Inf"} 100
http_server_request_duration_seconds_count{http_request_method="GET",http_response_status_code="302",http_route="/{code}",url_scheme="http"} 100
http_server_request_duration_seconds_bucket{http_response_status_code="404",http_route="/{code}",le="0.0005"} 7
http_server_request_duration_seconds_count{http_response_status_code="404",http_route="/{code}"} 7
http_server_request_duration_seconds_count{http_response_status_code="503",error_type="503",http_route="/{code}"} 2
http_server_request_duration_seconds_count{http_response_status_code="200",http_route="/internal/v1/health"} 50
linnet_db_timeouts_total{kind="connection"} 3
linnet_db_timeouts_total{kind="lock"} 8
linnet_clicks_dropped_total{reason="buffer_full"} 4
linnet_ready 1
"#;
    const GATEWAY: &str = r#"http_server_request_duration_seconds_bucket{http_response_status_code="201",http_route="/api/v1/urls",le="0.01"} 5
http_server_request_duration_seconds_count{http_response_status_code="201",http_route="/api/v1/urls"} 6
http_server_request_duration_seconds_count{http_response_status_code="500",http_route="/api/v1/urls/{id}"} 1
weird{label="a \"} quoted, brace",http_route="x"} 9
"#;

    fn both() -> Counters {
        let mut counters = Counters::default();
        counters.add(SHORTENER, Process::Shortener);
        counters.add(GATEWAY, Process::Gateway);
        counters
    }

    #[test]
    fn counts_redirects_of_the_shortener_and_the_api_of_the_gateway() {
        let counters = both();
        let redirects = counters.total(Kind::Redirects);
        assert_eq!((redirects.all, redirects.errors, redirects.not_found), (109, 2, 7));
        let api = counters.total(Kind::Api);
        assert_eq!((api.all, api.errors), (7, 1));
        assert_eq!((counters.pool_timeouts, counters.dropped_clicks), (3, 4));
        assert!(!counters.routes.contains_key("/internal/v1/health"));
    }

    #[test]
    fn buckets_sum_over_statuses_and_give_shares_above_a_bound() {
        let counters = both();
        let route = &counters.routes[REDIRECT];
        assert_eq!(route.within[&500], 97);
        assert_eq!(route.slower_than(25_000), Sample { bad: 10, all: 109 });
        assert_eq!(route.bound_of(0.85), Some(500));
        assert_eq!(route.bound_of(0.999), None);
    }

    #[test]
    fn difference_starts_new_routes_at_zero_and_notices_a_restarted_process() {
        let before = both();
        let mut after = both();
        after.add(SHORTENER, Process::Shortener);
        after.add(
            "http_server_request_duration_seconds_count{http_response_status_code=\"200\",http_route=\"/docs\"} 3\n",
            Process::Gateway,
        );
        let since = after.since(&before).unwrap();
        assert_eq!(since.total(Kind::Redirects).all, 109);
        assert_eq!(since.routes["/docs"].all, 3);
        assert_eq!(before.since(&after), None);
        assert_eq!(Counters::default().since(&before), None);
    }

    #[test]
    fn durations_can_begin_later_than_responses() {
        let mut base = Counters::default();
        base.skip_durations(&both());
        let mut after = both();
        after.add(SHORTENER, Process::Shortener);
        let since = after.since(&base).unwrap();
        assert_eq!(since.total(Kind::Redirects).all, 218);
        assert_eq!(since.routes[REDIRECT].slower_than(25_000), Sample { bad: 10, all: 109 });
    }

    #[test]
    fn labels_with_quotes_and_braces_do_not_confuse_the_reader() {
        let series = Series::parse(r#"weird{a="x \"} y",b="z"} 9"#).unwrap();
        assert_eq!((series.label("b"), series.value), (Some("z"), 9));
        assert_eq!(series.label("c"), None);
        assert!(Series::parse("").is_none());
        assert!(Series::parse("name NaN").is_none());
    }
}
