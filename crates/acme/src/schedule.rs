//! Decides when to order a certificate, and for which names. Pure functions: the clock and the state are passed in.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};

use crate::{
    certificate::Certificate,
    names::Names,
    state::{self, RenewalWindow, State},
};

/// A certificate whose life is shorter is renewed earlier.
const SHORT_LIFE: Duration = Duration::from_secs(10 * 86_400);
/// The part of the life that is left at the renewal, without a suggestion of the CA.
const RENEW_AT: f64 = 1.0 / 3.0;
/// The same with a short life.
const RENEW_SHORT_AT: f64 = 1.0 / 2.0;
/// The renewal is earlier by up to this part of the life, at random.
const SPREAD: f64 = 1.0 / 30.0;
/// A suggestion of the CA has no effect once only this part of the life is left.
const LATEST_AT: f64 = 1.0 / 10.0;
/// A renewal drops names that do not lead here, once only this part of the life is left.
const URGENT_AT: f64 = 1.0 / 6.0;
/// Shortest time between two orders for the same names, if the clock is far ahead of the CA's.
const LONGEST_PAUSE: Duration = Duration::from_secs(12 * 3_600);
/// The same as a part of the certificate's life.
const PAUSE: f64 = 1.0 / 10.0;

/// What a decision depends on.
#[derive(Debug, Clone, Copy)]
pub struct Situation<'a> {
    /// The time.
    pub now: DateTime<Utc>,
    /// The names that the certificate should have.
    pub wanted: &'a Names,
    /// The certificate in use, if a CA issued it.
    pub certificate: Option<&'a Certificate>,
    /// The number of its folder.
    pub version: u64,
    /// Whether it is of the CA of the settings.
    pub is_of_this_ca: bool,
    /// What happened so far.
    pub state: &'a State,
    /// The first wait after a failure.
    pub retry: Duration,
}

/// Why an order is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// There is no certificate.
    First,
    /// The certificate lacks a name.
    Names,
    /// The certificate is of another CA, such as the one for trials.
    OtherCa,
    /// The certificate should be renewed.
    Renewal,
}

/// What to do now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// Order a certificate.
    Order(Cause),
    /// Wait at least until then.
    Wait(DateTime<Utc>),
}

impl Situation<'_> {
    /// Decides whether to order now.
    pub fn decide(&self) -> Decision {
        let cause = match self.due() {
            Ok(cause) => cause,
            Err(renewal) => return Decision::Wait(renewal),
        };
        match self.blocked_until(cause) {
            Some(until) => Decision::Wait(until),
            None => Decision::Order(cause),
        }
    }

    /// Why an order is due, or when the next renewal is.
    fn due(&self) -> Result<Cause, DateTime<Utc>> {
        let Some(certificate) = self.certificate else { return Ok(Cause::First) };
        if !self.is_of_this_ca {
            return Ok(Cause::OtherCa);
        }
        let renewal = self.renewal().unwrap_or(self.now);
        if self.now >= renewal {
            return Ok(Cause::Renewal);
        }
        if self.wanted.is_subset(&certificate.names) { Err(renewal) } else { Ok(Cause::Names) }
    }

    /// When the certificate in use is renewed; `None` without one.
    pub fn renewal(&self) -> Option<DateTime<Utc>> {
        let certificate = self.certificate?;
        let (life, end) = (certificate.life(), certificate.not_after);
        let window = self.state.window.filter(|window| window.version == self.version);
        Some(match window {
            Some(window) => {
                place_in(&window, self.state.position).min(before(end, life, LATEST_AT))
            }
            None => {
                let part = if life < SHORT_LIFE { RENEW_SHORT_AT } else { RENEW_AT };
                before(end, life, SPREAD.mul_add(self.state.position, part))
            }
        })
    }

    /// How long a due order has to wait.
    fn blocked_until(&self, cause: Cause) -> Option<DateTime<Utc>> {
        let state = self.state;
        // Changed names are tried at once: an operator has probably corrected them.
        let is_same = state.last_failure.as_ref().is_some_and(|last| last.names == *self.wanted);
        if is_same && let Some(next) = state.next_attempt {
            let is_sane = next - self.now <= delta(state::longest_wait(self.retry));
            return (self.now < next && is_sane).then_some(next);
        }
        let (Some(last), Some(certificate)) = (state.last_success, self.certificate) else {
            return None;
        };
        let pause = certificate.life().mul_f64(PAUSE).min(LONGEST_PAUSE);
        let until = last + delta(pause);
        (cause == Cause::Renewal && last <= self.now && self.now < until).then_some(until)
    }

    /// The names to order, given those that lead to this installation. `None` if an order would not help.
    ///
    /// A name that the certificate has is dropped only when little of its life is left, because an operator may still
    /// correct the DNS. A name that it does not have yet never delays the others.
    pub fn names_to_order(&self, cause: Cause, reachable: &Names) -> Option<Names> {
        if self.wanted.is_subset(reachable) {
            return Some(self.wanted.clone());
        }
        let names: Names = self.wanted.intersection(reachable).cloned().collect();
        if let Some(certificate) = self.certificate {
            let is_urgent = certificate.fraction_left(self.now) < URGENT_AT;
            let mut lost = self.wanted.intersection(&certificate.names);
            if lost.any(|name| !reachable.contains(name)) && !is_urgent {
                return None;
            }
            if cause == Cause::Names && names.is_subset(&certificate.names) {
                return None;
            }
        }
        (!names.is_empty()).then_some(names)
    }
}

/// The instant at which this part of a life is left.
fn before(end: DateTime<Utc>, life: Duration, part: f64) -> DateTime<Utc> {
    end - delta(life.mul_f64(part))
}

fn place_in(window: &RenewalWindow, position: f64) -> DateTime<Utc> {
    let length = (window.end - window.start).to_std().unwrap_or_default();
    window.start + delta(length.mul_f64(position.clamp(0.0, 1.0)))
}

/// Lives and waits are far below the longest `TimeDelta`.
fn delta(duration: Duration) -> TimeDelta {
    TimeDelta::from_std(duration).unwrap_or(TimeDelta::MAX)
}
