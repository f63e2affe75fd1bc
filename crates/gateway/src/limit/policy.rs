//! Rate policies, decisions about requests, and their response headers.

use std::{num::NonZeroU32, time::Duration};

use actix_web::http::header::{HeaderMap, HeaderName, HeaderValue};

use crate::counters::LimitReason;

/// The policy, as in <https://datatracker.ietf.org/doc/draft-ietf-httpapi-ratelimit-headers/>.
const POLICY_HEADER: HeaderName = HeaderName::from_static("ratelimit-policy");
/// The remaining quota, as in the same draft.
const QUOTA_HEADER: HeaderName = HeaderName::from_static("ratelimit");

const MICROS_PER_MINUTE: u64 = 60_000_000;

/// The rate limit of one kind of client: a quota of `burst` requests that refills evenly.
#[derive(Debug, Clone)]
pub(crate) struct RatePolicy {
    name: &'static str,
    reason: LimitReason,
    per_minute: NonZeroU32,
    burst: NonZeroU32,
    header: String,
}

impl RatePolicy {
    /// `name` appears in the response headers.
    pub(crate) fn new(
        name: &'static str,
        reason: LimitReason,
        (per_minute, burst): (NonZeroU32, NonZeroU32),
    ) -> Self {
        let refill = interval(per_minute).saturating_mul(burst.get());
        let header = format!("\"{name}\";q={burst};w={}", seconds_rounded_up(refill));
        Self { name, reason, per_minute, burst, header }
    }

    /// The name in headers and problems.
    pub(crate) fn name(&self) -> &'static str {
        self.name
    }

    /// The label under which rejections are counted.
    pub(crate) fn reason(&self) -> LimitReason {
        self.reason
    }

    /// Time in which one request refills; at least 1 µs.
    pub(crate) fn interval(&self) -> Duration {
        interval(self.per_minute)
    }

    /// Requests that a full quota allows at once.
    pub(crate) fn burst(&self) -> NonZeroU32 {
        self.burst
    }
}

fn interval(per_minute: NonZeroU32) -> Duration {
    Duration::from_micros((MICROS_PER_MINUTE / u64::from(per_minute.get())).max(1))
}

/// Rounds up, so that a client that waits for the time in a header is not rejected again.
fn seconds_rounded_up(duration: Duration) -> u64 {
    duration.as_secs() + u64::from(duration.subsec_nanos() > 0)
}

/// Whether one request is within its rate, and the quota that remains.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RateDecision {
    pub(crate) is_allowed: bool,
    /// Further requests that are allowed at once.
    pub(crate) remaining: u32,
    /// Time until a request is allowed; zero if this one is.
    pub(crate) retry_after: Duration,
    /// Time until the quota has one more request; zero if it is full.
    pub(crate) more_after: Duration,
}

impl RateDecision {
    /// The value of `Retry-After` in seconds, at least 1.
    pub(crate) fn retry_after_s(&self) -> u64 {
        seconds_rounded_up(self.retry_after).max(1)
    }
}

/// Adds `RateLimit` and `RateLimit-Policy`, each a list with an item for every policy.
pub(crate) fn write_headers(quotas: &[(RateDecision, &RatePolicy)], headers: &mut HeaderMap) {
    let quota = quotas.iter().map(|(decision, policy)| {
        let more_after_s = seconds_rounded_up(decision.more_after);
        format!("\"{}\";r={};t={more_after_s}", policy.name, decision.remaining)
    });
    let policies = quotas.iter().map(|(_, policy)| policy.header.as_str());
    let value = |text: String| HeaderValue::from_maybe_shared(bytes::Bytes::from(text));
    let quota = value(quota.collect::<Vec<_>>().join(", "));
    let policies = value(policies.collect::<Vec<_>>().join(", "));
    if let (Ok(quota), Ok(policies)) = (quota, policies) {
        headers.insert(QUOTA_HEADER, quota);
        headers.insert(POLICY_HEADER, policies);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(per_minute: u32, burst: u32) -> RatePolicy {
        let number = |n| NonZeroU32::new(n).unwrap();
        RatePolicy::new("default", LimitReason::Key, (number(per_minute), number(burst)))
    }

    #[test]
    fn headers_are_structured_fields() {
        let policy = policy(600, 100);
        let decision = RateDecision {
            is_allowed: true,
            remaining: 42,
            retry_after: Duration::ZERO,
            more_after: Duration::from_micros(5_800_001),
        };
        let mut headers = HeaderMap::new();
        let quotas = [(decision, &policy), (RateDecision { remaining: 7, ..decision }, &policy)];
        write_headers(&quotas, &mut headers);
        let item = "\"default\";q=100;w=10";
        assert_eq!(headers.get("ratelimit-policy").unwrap(), &format!("{item}, {item}"));
        let expected = "\"default\";r=42;t=6, \"default\";r=7;t=6";
        assert_eq!(headers.get("ratelimit").unwrap(), expected);
    }

    #[test]
    fn retry_after_is_rounded_up() {
        let after = |micros| RateDecision {
            is_allowed: false,
            remaining: 0,
            retry_after: Duration::from_micros(micros),
            more_after: Duration::ZERO,
        };
        assert_eq!(after(1).retry_after_s(), 1);
        assert_eq!(after(1_000_001).retry_after_s(), 2);
    }

    #[test]
    fn highest_rate_has_an_interval_above_zero() {
        assert_eq!(policy(60_000_000, 1).interval(), Duration::from_micros(1));
    }

    #[test]
    fn interval_and_window_follow_from_the_rate() {
        for (per_minute, burst, micros, window) in [(60, 10, 1_000_000, 10), (7, 1, 8_571_428, 9)] {
            let policy = policy(per_minute, burst);
            assert_eq!(policy.interval(), Duration::from_micros(micros));
            assert_eq!(policy.header, format!("\"default\";q={burst};w={window}"));
            assert_eq!((policy.name(), policy.burst().get()), ("default", burst));
            assert_eq!(policy.reason(), LimitReason::Key);
        }
    }

    #[test]
    fn seconds_are_rounded_up_to_the_next_whole_one() {
        for (nanos, seconds) in
            [(0, 0), (1, 1), (999_999_999, 1), (1_000_000_000, 1), (1_000_000_001, 2)]
        {
            assert_eq!(seconds_rounded_up(Duration::from_nanos(nanos)), seconds, "{nanos}");
        }
        let now = RateDecision {
            is_allowed: true,
            remaining: 1,
            retry_after: Duration::ZERO,
            more_after: Duration::ZERO,
        };
        assert_eq!(now.retry_after_s(), 1, "at least one second");
    }
}
