//! Decides when to order a certificate, and for which names. Pure functions: the clock and the state are passed in.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};

use crate::{
    certificate::Certificate,
    names::Names,
    state::{self, RenewalWindow, State},
};

/// A certificate whose life is shorter is renewed earlier.
const SHORT_LIFE: Duration = Duration::from_hours(10 * 24);
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
const LONGEST_PAUSE: Duration = Duration::from_hours(12);
/// The same as a part of the certificate's life.
const PAUSE: f64 = 1.0 / 10.0;

/// The input of a decision.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Situation<'a> {
    /// The time.
    pub(crate) now: DateTime<Utc>,
    /// The names that the certificate should have.
    pub(crate) wanted: &'a Names,
    /// The certificate in use, if a CA issued it.
    pub(crate) certificate: Option<&'a Certificate>,
    /// The number of its folder.
    pub(crate) version: u64,
    /// Whether it is of the CA of the settings.
    pub(crate) is_of_this_ca: bool,
    /// Failures, successes, and the suggestion of the CA.
    pub(crate) state: &'a State,
    /// The first wait after a failure.
    pub(crate) retry: Duration,
}

/// Why an order is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cause {
    /// There is no certificate.
    First,
    /// The certificate lacks a name.
    Names,
    /// The certificate is of another CA, such as the one for trials.
    OtherCa,
    /// The certificate should be renewed.
    Renewal,
}

/// The result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Decision {
    /// Order a certificate.
    Order(Cause),
    /// Wait at least until then.
    Wait(DateTime<Utc>),
}

impl Situation<'_> {
    /// Decides whether to order now.
    pub(crate) fn decide(&self) -> Decision {
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
    pub(crate) fn renewal(&self) -> Option<DateTime<Utc>> {
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
        let is_repeated =
            state.last_failure.as_ref().is_some_and(|last| last.names == *self.wanted);
        if is_repeated && let Some(next) = state.next_attempt {
            let is_sane = next - self.now <= delta(state::longest_wait(self.retry));
            return (self.now < next && is_sane).then_some(next);
        }
        let (Some(success), Some(certificate)) = (state.last_success, self.certificate) else {
            return None;
        };
        let pause = certificate.life().mul_f64(PAUSE).min(LONGEST_PAUSE);
        let until = success + delta(pause);
        (cause == Cause::Renewal && success <= self.now && self.now < until).then_some(until)
    }

    /// The names to order, given those that lead to this installation. `None` if an order would not help.
    ///
    /// A name that the certificate has is dropped only when little of its life is left, because an operator may still
    /// correct the DNS. A name that it does not have yet never delays the others.
    pub(crate) fn names_to_order(&self, cause: Cause, reachable: &Names) -> Option<Names> {
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

#[cfg(test)]
mod tests {
    use rcgen::{KeyPair, date_time_ymd};

    use super::*;
    use crate::{
        failure::{Failure, Reason},
        placeholder,
    };

    const RETRY: Duration = Duration::from_mins(1);

    fn names(list: &[&str]) -> Names {
        list.iter().map(|name| name.parse().unwrap()).collect()
    }

    /// A certificate that lives from the 1st of March on.
    fn certificate(list: &[&str], days: u8) -> Certificate {
        let mut params = placeholder::params(&names(list)).unwrap();
        params.not_before = date_time_ymd(2026, 3, 1);
        params.not_after = date_time_ymd(2026, 3, 1 + days);
        let pem = params.self_signed(&KeyPair::generate().unwrap()).unwrap().pem();
        Certificate::parse(pem.as_bytes()).unwrap()
    }

    fn hours(hours: i64) -> DateTime<Utc> {
        "2026-03-01T00:00:00Z".parse::<DateTime<Utc>>().unwrap() + TimeDelta::hours(hours)
    }

    fn situation<'a>(
        now: DateTime<Utc>,
        wanted: &'a Names,
        certificate: Option<&'a Certificate>,
        state: &'a State,
    ) -> Situation<'a> {
        Situation { now, wanted, certificate, version: 1, is_of_this_ca: true, state, retry: RETRY }
    }

    fn failed(at: DateTime<Utc>, wanted: &Names) -> State {
        let mut state = State::default();
        let failure =
            Failure { at, reason: Reason::Refused, detail: String::new(), names: wanted.clone() };
        state.record_failure(failure, RETRY, 0.0);
        state
    }

    #[test]
    fn without_a_suggestion_a_third_of_the_life_is_left_or_a_half_of_a_short_one() {
        let (wanted, state) = (names(&["a.example"]), State::default());
        for (days, due) in [(30, 20 * 24), (9, 108)] {
            let certificate = certificate(&["a.example"], days);
            let decide =
                |hour| situation(hours(hour), &wanted, Some(&certificate), &state).decide();
            assert_eq!(decide(0), Decision::Wait(hours(due)), "{days} days");
            assert_eq!(decide(due - 1), Decision::Wait(hours(due)));
            assert_eq!(decide(due), Decision::Order(Cause::Renewal));
        }
        // The place is random, up to a thirtieth of the life earlier.
        let state = State { position: 1.0, ..State::default() };
        let certificate = certificate(&["a.example"], 30);
        let renewal = situation(hours(0), &wanted, Some(&certificate), &state).renewal();
        assert_eq!(renewal, Some(hours(19 * 24)));
    }

    #[test]
    fn the_suggestion_of_the_ca_decides_if_it_is_for_this_certificate_and_not_too_late() {
        let wanted = names(&["a.example"]);
        let certificate = certificate(&["a.example"], 30);
        let window = |version, start, end| State {
            window: Some(RenewalWindow { version, start: hours(start), end: hours(end) }),
            position: 0.5,
            ..State::default()
        };
        let renewal = |state: &State| {
            situation(hours(0), &wanted, Some(&certificate), state).renewal().unwrap()
        };
        assert_eq!(renewal(&window(1, 100, 200)), hours(150));
        assert_eq!(renewal(&window(1, 1_000, 2_000)), hours(27 * 24), "a tenth is left");
        assert_ne!(renewal(&window(7, 100, 200)), hours(150), "it is for another certificate");
        // A window in the past: the CA is about to revoke the certificate.
        let revoked = window(1, -20, -10);
        let decision = situation(hours(1), &wanted, Some(&certificate), &revoked).decide();
        assert_eq!(decision, Decision::Order(Cause::Renewal));
    }

    #[test]
    fn a_missing_name_and_another_ca_are_ordered_at_once_and_a_removed_name_is_not() {
        let state = State::default();
        let certificate = certificate(&["a.example", "b.example"], 30);
        let decide =
            |wanted: &Names| situation(hours(1), wanted, Some(&certificate), &state).decide();
        assert_eq!(decide(&names(&["a.example", "c.example"])), Decision::Order(Cause::Names));
        assert!(matches!(decide(&names(&["a.example"])), Decision::Wait(_)));
        let wanted = names(&["a.example"]);
        let mut other = situation(hours(1), &wanted, Some(&certificate), &state);
        other.is_of_this_ca = false;
        assert_eq!(other.decide(), Decision::Order(Cause::OtherCa));
        let none = situation(hours(1), &wanted, None, &state).decide();
        assert_eq!(none, Decision::Order(Cause::First));
    }

    #[test]
    fn failures_wait_unless_the_names_change_or_the_clock_was_set_back() {
        let wanted = names(&["a.example"]);
        let state = failed(hours(0), &wanted);
        let next = hours(0) + TimeDelta::minutes(1);
        let decide = |now, wanted: &Names| situation(now, wanted, None, &state).decide();
        assert_eq!(decide(hours(0), &wanted), Decision::Wait(next));
        assert_eq!(decide(next, &wanted), Decision::Order(Cause::First));
        let corrected = names(&["b.example"]);
        assert_eq!(decide(hours(0), &corrected), Decision::Order(Cause::First));
        assert_eq!(decide(hours(-1_000), &wanted), Decision::Order(Cause::First));
    }

    #[test]
    fn a_wrong_clock_does_not_order_again_and_again() {
        let wanted = names(&["a.example"]);
        let certificate = certificate(&["a.example"], 30);
        // Behind: the certificate is not valid yet.
        let state = State { last_success: Some(hours(-9_000)), ..State::default() };
        let behind = situation(hours(-9_000), &wanted, Some(&certificate), &state).decide();
        assert!(matches!(behind, Decision::Wait(_)));
        // Ahead: it has expired.
        let state = State { last_success: Some(hours(9_000)), ..State::default() };
        let ahead = |hour| situation(hours(hour), &wanted, Some(&certificate), &state).decide();
        assert_eq!(ahead(9_001), Decision::Wait(hours(9_012)));
        assert_eq!(ahead(9_012), Decision::Order(Cause::Renewal));
    }

    #[test]
    fn a_new_name_that_leads_elsewhere_is_left_out() {
        let state = State::default();
        let certificate = certificate(&["a.example"], 30);
        let wanted = names(&["a.example", "b.example", "c.example"]);
        let order = |reachable: &[&str]| {
            situation(hours(1), &wanted, Some(&certificate), &state)
                .names_to_order(Cause::Names, &names(reachable))
        };
        assert_eq!(order(&["a.example", "b.example", "c.example"]), Some(wanted.clone()));
        assert_eq!(order(&["a.example", "b.example"]), Some(names(&["a.example", "b.example"])));
        assert_eq!(order(&["a.example"]), None, "nothing would change");
        let first = situation(hours(1), &wanted, None, &state);
        assert_eq!(first.names_to_order(Cause::First, &names(&[])), None);
        let some = first.names_to_order(Cause::First, &names(&["b.example"]));
        assert_eq!(some, Some(names(&["b.example"])));
    }

    #[test]
    fn a_name_of_the_certificate_is_dropped_only_when_little_of_its_life_is_left() {
        let state = State::default();
        let certificate = certificate(&["a.example", "b.example"], 30);
        let wanted = names(&["a.example", "b.example"]);
        let order = |hour| {
            situation(hours(hour), &wanted, Some(&certificate), &state)
                .names_to_order(Cause::Renewal, &names(&["a.example"]))
        };
        assert_eq!(order(21 * 24), None);
        assert_eq!(order(26 * 24), Some(names(&["a.example"])));
    }
}
