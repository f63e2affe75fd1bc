//! What a rate allows, and how that is told to clients.

use std::{num::NonZeroU32, time::Duration};

use actix_web::http::header::{HeaderMap, HeaderName, HeaderValue};

/// Tells the policy: <https://datatracker.ietf.org/doc/draft-ietf-httpapi-ratelimit-headers/>.
const POLICY_HEADER: HeaderName = HeaderName::from_static("ratelimit-policy");
/// Tells what is left of it.
const LEFT_HEADER: HeaderName = HeaderName::from_static("ratelimit");

const MICROS_PER_MINUTE: u64 = 60_000_000;

/// A rate: `burst` requests at once, refilled evenly.
#[derive(Debug, Clone)]
pub(crate) struct Policy {
    name: &'static str,
    per_minute: NonZeroU32,
    burst: NonZeroU32,
    header: HeaderValue,
}

impl Policy {
    /// A policy that clients see as `name`.
    pub(crate) fn new(name: &'static str, (per_minute, burst): (NonZeroU32, NonZeroU32)) -> Self {
        let refill = interval(per_minute).saturating_mul(burst.get());
        let text = format!("\"{name}\";q={burst};w={}", whole_seconds(refill));
        let header = HeaderValue::from_str(&text).unwrap_or(HeaderValue::from_static(""));
        Self { name, per_minute, burst, header }
    }

    /// How long one request takes to refill.
    pub(crate) fn interval(&self) -> Duration {
        interval(self.per_minute)
    }

    /// Requests that may come at once.
    pub(crate) fn burst(&self) -> NonZeroU32 {
        self.burst
    }
}

fn interval(per_minute: NonZeroU32) -> Duration {
    Duration::from_micros((MICROS_PER_MINUTE / u64::from(per_minute.get())).max(1))
}

/// Rounded up: a client that waits that long is not sent away again.
fn whole_seconds(duration: Duration) -> u64 {
    duration.as_secs() + u64::from(duration.subsec_nanos() > 0)
}

/// A policy's answer to one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Verdict {
    pub(crate) allowed: bool,
    /// Requests that could come at once now.
    pub(crate) remaining: u32,
    /// Until a request would be allowed; zero if this one was.
    pub(crate) retry_after: Duration,
    /// Until `remaining` is the burst again.
    pub(crate) reset: Duration,
}

impl Verdict {
    /// Whole seconds for `Retry-After`, at least 1.
    pub(crate) fn retry_after_seconds(&self) -> u64 {
        whole_seconds(self.retry_after).max(1)
    }

    /// Adds the two headers.
    pub(crate) fn write(&self, policy: &Policy, headers: &mut HeaderMap) {
        let left =
            format!("\"{}\";r={};t={}", policy.name, self.remaining, whole_seconds(self.reset));
        if let Ok(left) = HeaderValue::from_maybe_shared(bytes::Bytes::from(left)) {
            headers.insert(LEFT_HEADER, left);
            headers.insert(POLICY_HEADER, policy.header.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(per_minute: u32, burst: u32) -> Policy {
        let number = |n| NonZeroU32::new(n).unwrap();
        Policy::new("default", (number(per_minute), number(burst)))
    }

    #[test]
    fn headers_are_structured_fields() {
        let policy = policy(600, 100);
        let verdict = Verdict {
            allowed: true,
            remaining: 42,
            retry_after: Duration::ZERO,
            reset: Duration::from_micros(5_800_001),
        };
        let mut headers = HeaderMap::new();
        verdict.write(&policy, &mut headers);
        assert_eq!(headers.get("ratelimit-policy").unwrap(), "\"default\";q=100;w=10");
        assert_eq!(headers.get("ratelimit").unwrap(), "\"default\";r=42;t=6");
    }

    #[test]
    fn waiting_is_never_told_too_short() {
        let wait = |micros| Verdict {
            allowed: false,
            remaining: 0,
            retry_after: Duration::from_micros(micros),
            reset: Duration::ZERO,
        };
        assert_eq!(wait(1).retry_after_seconds(), 1);
        assert_eq!(wait(1_000_001).retry_after_seconds(), 2);
    }

    #[test]
    fn the_fastest_rate_still_has_an_interval() {
        assert_eq!(policy(60_000_000, 1).interval(), Duration::from_micros(1));
    }
}
