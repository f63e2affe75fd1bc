//! Decides what a deployment does next, from the counters of both colors. No I/O and no clock.
//!
//! * There is one look at the end of each step, because each further look at p < 0.01 would add its own false alarms.
//!   Between, only rules without statistics apply: a restart, an out-of-memory kill, or most requests failing.
//! * A missing value is never a pass: without data the verdict is [`Verdict::NoData`].
//! * Redirects and API requests are judged apart.

use crate::{
    counters::{Counters, Kind, RouteCounters},
    fisher::{Sample, probability},
};

/// Bounds of the decision.
#[derive(Debug, Clone, PartialEq)]
pub struct Limits {
    /// A difference counts below this probability of being chance.
    pub significance: f64,
    /// Fewer errors than this are never significant.
    pub least_errors: u64,
    /// The share of errors at which the old color no longer matters, with at least `absolute_errors` of them.
    pub absolute_share: f64,
    /// See `absolute_share`.
    pub absolute_errors: u64,
    /// The share of errors that ends a step at once, with at least `absolute_errors` of them.
    pub hard_share: f64,
    /// How much larger the share of 404s, or of slow requests, must be.
    pub least_difference: f64,
    /// How much longer the 95th percentile must be, in microseconds.
    pub least_delay_us: u64,
    /// Requests that a route needs for a judgment of its latency.
    pub route_requests: u64,
    /// Requests that a color must have expected before their absence counts.
    pub least_expected: u64,
    /// The color gets too few requests if it got less than one in this number of those that its slots should bring.
    pub absent_factor: u64,
    /// The share of the memory limit at which the color is about to be killed.
    pub memory_share: f64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            significance: 0.01,
            least_errors: 3,
            absolute_share: 0.01,
            absolute_errors: 5,
            hard_share: 0.2,
            least_difference: 0.05,
            least_delay_us: 20_000,
            route_requests: 20,
            least_expected: 30,
            absent_factor: 20,
            memory_share: 0.97,
        }
    }
}

/// The observations of a step.
#[derive(Debug, Clone, Default)]
pub struct Observation {
    /// Counters of the new color since the step began; `None` if they could not be read.
    pub canary: Option<Counters>,
    /// The same of the old color.
    pub reference: Option<Counters>,
    /// Processes of the new color that have ended since they were started.
    pub restarts: u64,
    /// Whether the kernel killed one of them for its memory.
    pub is_out_of_memory: bool,
    /// The largest used share of a memory limit, from 0 to 1.
    pub memory_share: f64,
    /// Redirects and API requests that the slots of the step should have brought to the new color, if that is
    /// known; otherwise 0.
    pub expected: [u64; 2],
    /// Whether Docker did not report if processes have ended.
    pub is_docker_silent: bool,
    /// Requests that the step needs for its verdict.
    pub least_requests: u64,
    /// Where the step is in time.
    pub phase: Phase,
    /// Results of synthetic requests, if any were sent.
    pub synthetic: Option<Sample>,
    /// Why the first one of them failed.
    pub synthetic_failure: Option<String>,
}

/// Where a step is in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Phase {
    /// Its shortest duration has not passed.
    #[default]
    Early,
    /// Its shortest duration has passed.
    Ripe,
    /// Its longest duration has passed.
    Overdue,
}

/// The decision, with the reason in words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Take the next step.
    Go(String),
    /// Look again later.
    Wait(String),
    /// Return to the old color.
    Back(String),
    /// The counters could not be read. The caller looks again and returns to the old color if that lasts.
    NoData(String),
    /// Too few requests for a decision. The caller sends synthetic ones and looks again.
    Inconclusive(String),
}

impl Verdict {
    /// The word in records.
    pub const fn word(&self) -> &'static str {
        match self {
            Self::Go(_) => "go",
            Self::Wait(_) => "wait",
            Self::Back(_) => "back",
            Self::NoData(_) => "no data",
            Self::Inconclusive(_) => "inconclusive",
        }
    }

    /// The reason, in words.
    pub fn reason(&self) -> &str {
        match self {
            Self::Go(reason)
            | Self::Wait(reason)
            | Self::Back(reason)
            | Self::NoData(reason)
            | Self::Inconclusive(reason) => reason,
        }
    }
}

/// Decides.
pub fn decide(seen: &Observation, limits: &Limits) -> Verdict {
    if let Some(reason) = crash(seen, limits) {
        return Verdict::Back(reason);
    }
    let Some(canary) = &seen.canary else {
        return Verdict::NoData("the new color's counters could not be read".to_owned());
    };
    if let Some(reason) = Kind::ALL.into_iter().find_map(|kind| hard_rule(canary, kind, limits)) {
        return Verdict::Back(reason);
    }
    if let Some(reason) = Kind::ALL
        .into_iter()
        .zip(seen.expected)
        .find_map(|(kind, expected)| absent(canary, kind, expected, limits))
    {
        return Verdict::Back(reason);
    }
    if let Some(tried) = seen.synthetic
        && tried.bad > 0
    {
        let why = seen.synthetic_failure.as_deref().unwrap_or("unknown");
        return Verdict::Back(format!(
            "{} of {} synthetic requests failed, the first because {why}",
            tried.bad, tried.all
        ));
    }
    if seen.is_docker_silent {
        return Verdict::Wait("Docker does not report whether a process has ended".to_owned());
    }
    let requests: u64 = Kind::ALL.into_iter().map(|kind| canary.total(kind).all).sum();
    let is_enough = requests >= seen.least_requests;
    match seen.phase {
        Phase::Early => return Verdict::Wait(format!("{requests} requests so far")),
        Phase::Ripe if !is_enough => {
            return Verdict::Wait(format!("{requests} of {} requests", seen.least_requests));
        }
        Phase::Overdue if !is_enough && seen.synthetic.is_none() => {
            return Verdict::Inconclusive(format!(
                "only {requests} of {} requests arrived",
                seen.least_requests
            ));
        }
        Phase::Ripe | Phase::Overdue => {}
    }
    let Some(reference) = &seen.reference else {
        return Verdict::NoData("the old color's counters could not be read".to_owned());
    };
    if let Some(reason) = comparison(canary, reference, limits) {
        return Verdict::Back(reason);
    }
    Verdict::Go(summary(canary, seen.synthetic))
}

fn summary(canary: &Counters, synthetic: Option<Sample>) -> String {
    let [redirects, api] = Kind::ALL.map(|kind| canary.total(kind));
    let mut text = format!(
        "{} redirects and {} API requests, {} errors",
        redirects.all,
        api.all,
        redirects.errors + api.errors
    );
    if let Some(tried) = synthetic {
        text.push_str("; too few for statistics, ");
        text.push_str(&tried.all.to_string());
        text.push_str(" synthetic requests passed");
    }
    text
}

fn crash(seen: &Observation, limits: &Limits) -> Option<String> {
    if seen.is_out_of_memory {
        return Some("the kernel killed a process of the new color for its memory".to_owned());
    }
    if seen.restarts > 0 {
        return Some("a process of the new color ended".to_owned());
    }
    (seen.memory_share >= limits.memory_share).then(|| {
        format!("a process of the new color uses {:.0} % of its memory", seen.memory_share * 100.0)
    })
}

fn hard_rule(canary: &Counters, kind: Kind, limits: &Limits) -> Option<String> {
    let errors = errors_of(&canary.total(kind));
    (errors.bad >= limits.absolute_errors && errors.share() >= limits.hard_share)
        .then(|| format!("{} of {} {} failed", errors.bad, errors.all, kind.name()))
}

/// nginx retries a request on another slot, so visitors do not notice that it cannot reach the new color, and the new
/// color counts nothing.
fn absent(canary: &Counters, kind: Kind, expected: u64, limits: &Limits) -> Option<String> {
    let found = canary.total(kind).all;
    let is_absent =
        expected >= limits.least_expected && found.saturating_mul(limits.absent_factor) < expected;
    is_absent.then(|| {
        format!(
            "only {found} {} of about {expected} reached the new color; nginx may not be able to connect to it",
            kind.name()
        )
    })
}

fn comparison(canary: &Counters, reference: &Counters, limits: &Limits) -> Option<String> {
    Kind::ALL
        .into_iter()
        .find_map(|kind| {
            let (new, old) = (canary.total(kind), reference.total(kind));
            more_errors(&new, &old, kind, limits)
                .or_else(|| more_not_found(&new, &old, kind, limits))
        })
        .or_else(|| more_losses(canary, reference, limits))
        .or_else(|| slower_route(canary, reference, limits))
}

const fn errors_of(counters: &RouteCounters) -> Sample {
    Sample { bad: counters.errors, all: counters.all }
}

fn more_errors(
    new: &RouteCounters,
    old: &RouteCounters,
    kind: Kind,
    limits: &Limits,
) -> Option<String> {
    let (new, old) = (errors_of(new), errors_of(old));
    let name = kind.name();
    if new.bad >= limits.absolute_errors && new.share() > limits.absolute_share {
        return Some(format!("{} of {} {name} failed", new.bad, new.all));
    }
    let is_worse = new.bad >= limits.least_errors && probability(new, old) < limits.significance;
    is_worse.then(|| {
        format!(
            "{} of {} {name} failed, against {} of {} of the old color",
            new.bad, new.all, old.bad, old.all
        )
    })
}

fn more_not_found(
    new: &RouteCounters,
    old: &RouteCounters,
    kind: Kind,
    limits: &Limits,
) -> Option<String> {
    let [new, old] =
        [new, old].map(|counters| Sample { bad: counters.not_found, all: counters.all });
    let is_worse = new.bad >= limits.least_errors
        && old.all > 0
        && new.share() - old.share() >= limits.least_difference
        && probability(new, old) < limits.significance;
    is_worse.then(|| {
        format!(
            "{} of {} {} were 404, against {} of {} of the old color",
            new.bad,
            new.all,
            kind.name(),
            old.bad,
            old.all
        )
    })
}

/// Requests that waited for a connection in vain, and clicks that were dropped, each compared as a share of the requests.
fn more_losses(canary: &Counters, reference: &Counters, limits: &Limits) -> Option<String> {
    let requests = |counters: &Counters| -> u64 {
        Kind::ALL.into_iter().map(|kind| counters.total(kind).all).sum()
    };
    let (new_all, old_all) = (requests(canary), requests(reference));
    [
        ("statements got no database connection", canary.pool_timeouts, reference.pool_timeouts),
        ("clicks were dropped", canary.dropped_clicks, reference.dropped_clicks),
    ]
    .into_iter()
    .find_map(|(what, new, old)| {
        // One request can lose more than one of them.
        let [new_share, old_share] =
            [(new, new_all), (old, old_all)].map(|(bad, all)| Sample { bad, all: all.max(bad) });
        (new >= limits.least_errors && probability(new_share, old_share) < limits.significance)
            .then(|| format!("{new} {what}, against {old} of the old color"))
    })
}

/// Each route by itself, because a slow route would not be noticed among many fast requests of others. The level of
/// significance is divided among the routes.
fn slower_route(canary: &Counters, reference: &Counters, limits: &Limits) -> Option<String> {
    let pairs: Vec<_> = canary
        .routes
        .iter()
        .filter_map(|(route, new)| Some((route, new, reference.routes.get(route)?)))
        .filter(|(_, new, old)| new.timed.min(old.timed) >= limits.route_requests)
        .collect();
    pairs.iter().find_map(|(route, new, old)| {
        let usual = old.bound_of(0.95)?;
        let bound = *old.within.keys().find(|bound| **bound >= usual + limits.least_delay_us)?;
        let (slow, before) = (new.slower_than(bound), old.slower_than(bound));
        #[expect(clippy::cast_precision_loss, reason = "a few hundred routes at most")]
        let significance = limits.significance / pairs.len() as f64;
        let is_worse = slow.bad >= limits.absolute_errors
            && slow.share() - before.share() >= limits.least_difference
            && probability(slow, before) < significance;
        is_worse.then(|| {
            format!(
                "{} of {} requests to {route} took longer than {} ms, against {} of {} of the old color",
                slow.bad,
                slow.all,
                bound / 1000,
                before.bad,
                before.all
            )
        })
    })
}

#[cfg(test)]
#[path = "verdict_tests.rs"]
mod tests;
