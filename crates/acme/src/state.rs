//! State that survives a restart: failures, the next attempt, and the CA's suggested renewal time.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};

use crate::failure::Failure;

/// The name of the file.
pub(crate) const FILE: &str = "state.json";
/// Waits after the first three failures, and after each further one, as multiples of `acme.retry_s`.
const WAITS: [u32; 4] = [1, 10, 100, 1_440];
/// A wait is lengthened by up to this part, so that installations do not retry in step.
const JITTER: f64 = 0.2;

/// The state. A file from an older release lacks newer fields.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct State {
    /// Failures since the last success.
    pub(crate) failures: u32,
    /// The latest failure since the last success.
    pub(crate) last_failure: Option<Failure>,
    /// When the next attempt is due, after a failure.
    pub(crate) next_attempt: Option<DateTime<Utc>>,
    /// When the last certificate was installed.
    pub(crate) last_success: Option<DateTime<Utc>>,
    /// When the CA suggests to renew the certificate in use.
    pub(crate) window: Option<RenewalWindow>,
    /// When the CA was last asked for that.
    pub(crate) window_checked: Option<DateTime<Utc>>,
    /// The place of the renewal in its window: a random number from 0 to 1 for each certificate.
    pub(crate) position: f64,
}

/// The CA's suggestion (RFC 9773).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RenewalWindow {
    /// The folder of the certificate that it is for.
    pub(crate) version: u64,
    /// Its begin.
    pub(crate) start: DateTime<Utc>,
    /// Its end.
    pub(crate) end: DateTime<Utc>,
}

impl State {
    /// Records a failure. `random` is from 0 to 1.
    pub(crate) fn record_failure(&mut self, failure: Failure, retry: Duration, random: f64) {
        self.failures = self.failures.saturating_add(1);
        let wait = wait_after(self.failures, retry).mul_f64(1.0 + JITTER * random);
        self.next_attempt = TimeDelta::from_std(wait).ok().map(|wait| failure.at + wait);
        self.last_failure = Some(failure);
    }

    /// Records an installed certificate. `random` is from 0 to 1.
    pub(crate) fn record_success(&mut self, at: DateTime<Utc>, random: f64) {
        *self = Self { last_success: Some(at), position: random, ..Self::default() };
    }
}

fn wait_after(failures: u32, retry: Duration) -> Duration {
    let index = usize::try_from(failures.saturating_sub(1)).unwrap_or(usize::MAX);
    let longest = WAITS.last().copied().unwrap_or(1);
    retry * WAITS.get(index).copied().unwrap_or(longest)
}

/// Longest wait after a failure. A longer one means that the clock has been set back since.
pub(crate) fn longest_wait(retry: Duration) -> Duration {
    wait_after(u32::MAX, retry).mul_f64(1.0 + JITTER)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failure::Reason;

    const RETRY: Duration = Duration::from_mins(1);

    #[test]
    fn attempts_are_1_10_and_100_minutes_apart_and_then_daily() {
        let mut state = State::default();
        let at = DateTime::UNIX_EPOCH;
        let failure =
            Failure { at, reason: Reason::Refused, detail: String::new(), names: [].into() };
        let mut minutes = |random| {
            state.record_failure(failure.clone(), RETRY, random);
            (state.next_attempt.unwrap() - at).num_minutes()
        };
        assert_eq!([0.0; 6].map(&mut minutes), [1, 10, 100, 1_440, 1_440, 1_440]);
        assert_eq!(minutes(1.0), 1_728, "jitter lengthens a wait by up to a fifth");
        assert_eq!(longest_wait(RETRY).as_secs() / 60, 1_728);
    }

    #[test]
    fn a_success_forgets_failures_and_the_window_of_the_old_certificate() {
        let at = DateTime::UNIX_EPOCH;
        let window = RenewalWindow { version: 1, start: at, end: at };
        let mut state = State { failures: 3, window: Some(window), ..State::default() };
        state.record_success(at, 0.25);
        let expected = State { last_success: Some(at), position: 0.25, ..State::default() };
        assert_eq!(state, expected);
    }

    #[test]
    fn a_file_of_an_older_release_lacks_fields() {
        let state: State = serde_json::from_str(r#"{"failures": 2}"#).unwrap();
        assert_eq!(state, State { failures: 2, ..State::default() });
    }
}
