//! Requests through nginx's pods of a canary in a cluster, and the same through those of the release before.
//!
//! * nginx counts no responses by status. A nginx that fails every request therefore appears in no counter: the pods behind
//!   it receive fewer requests, or those of the nginx before.
//! * Both kinds of pods get the same requests, so a failure of a store or of the processes behind both is no evidence.

use std::net::ToSocketAddrs as _;

use crate::{
    error::HostError,
    fisher::{Sample, probability},
    http,
    probe::expected,
    verdict::Limits,
};

pub(crate) const UNKNOWN_CODE: &str = "/linnet-host-unknown-code";
/// Rounds that a step needs before it may end.
const LEAST_ROUNDS: u64 = 10;

/// The names of the two services, with their port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entrances {
    /// Leads to the new pods only.
    pub canary: String,
    /// Leads to the pods of the release before only.
    pub stable: String,
}

/// The results of the requests of a step so far.
#[derive(Debug)]
pub struct NginxCheck {
    entrances: Entrances,
    canary: Sample,
    stable: Sample,
    /// Why a round through the new pods failed first.
    failure: Option<String>,
}

impl NginxCheck {
    /// No request has been sent yet.
    pub const fn new(entrances: Entrances) -> Self {
        let none = Sample { bad: 0, all: 0 };
        Self { entrances, canary: none, stable: none, failure: None }
    }

    /// Sends one round through both.
    pub fn round(&mut self) {
        let canary = round(&self.entrances.canary);
        self.canary.all += 1;
        if let Err(reason) = canary {
            self.canary.bad += 1;
            self.failure.get_or_insert(reason);
        }
        self.stable.all += 1;
        self.stable.bad += u64::from(round(&self.entrances.stable).is_err());
    }

    /// Whether there have been enough rounds for the end of a step.
    pub const fn is_enough(&self) -> bool {
        self.canary.all >= LEAST_ROUNDS
    }

    /// The reason to go back at once: most rounds through the new pods fail, and those through the others do not.
    pub fn hard_fault(&self, limits: &Limits) -> Option<String> {
        let is_broken = self.canary.bad >= limits.absolute_errors
            && self.canary.share() >= limits.hard_share
            && self.stable.share() < self.canary.share() / 2.0;
        is_broken.then(|| self.describe())
    }

    /// The reason to go back at the end of a step.
    pub fn fault(&self, limits: &Limits) -> Option<String> {
        let is_worse = self.canary.bad >= limits.least_errors
            && probability(self.canary, self.stable) < limits.significance;
        is_worse.then(|| self.describe())
    }

    fn describe(&self) -> String {
        format!(
            "{} of {} rounds of requests through nginx's new pods failed, against {} of {} through the others, the first because {}",
            self.canary.bad,
            self.canary.all,
            self.stable.bad,
            self.stable.all,
            self.failure.as_deref().unwrap_or("unknown")
        )
    }
}

/// The ways of a redirect, of the API and of pages. No visitor has a link with the unknown code.
fn round(entrance: &str) -> Result<(), String> {
    for path in ["/health", "/api/v1/urls", "/docs/"] {
        try_one(entrance, path, &|status| expected(path, status))?;
    }
    try_one(entrance, UNKNOWN_CODE, &is_not_found)
}

/// The unknown code must be a 404.
pub(crate) fn is_not_found(status: u16) -> Result<(), HostError> {
    match status {
        404 => Ok(()),
        _ => Err(HostError::Unhealthy(format!("an unknown code returned {status} instead of 404"))),
    }
}

/// One request to the first address of a name with a port.
pub(crate) fn try_one(
    name: &str,
    path: &str,
    is_expected: &dyn Fn(u16) -> Result<(), HostError>,
) -> Result<(), String> {
    let address = name.to_socket_addrs().ok().and_then(|mut found| found.next());
    let address = address.ok_or_else(|| format!("{name} has no address"))?;
    let response = http::get(&address.to_string(), path);
    let status = response.map_err(|error| format!("{name}{path}: {error}"))?.status;
    is_expected(status).map_err(|error| format!("{name}: {error}"))
}

#[cfg(test)]
#[path = "nginx_check_tests.rs"]
pub(crate) mod tests;
