//! Metrics of the resolve listener. Every instrument is bound at start, and no label has a code.

use linnet_telemetry::metrics::{self, BoundCounter, BoundHistogram, KeyValue, Meter};

/// The outcome of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ResolveOutcome {
    /// Redirected.
    Redirected,
    /// No such code.
    Unknown,
    /// The link is inactive or deleted, or the code is banned.
    Inactive,
    /// The link has expired.
    Expired,
    /// All `max_clicks` are used up.
    UsedUp,
    /// The client is over its budget of misses.
    TooManyMisses,
    /// A prefetch of a link with `max_clicks`, which only a person may use up.
    PrefetchRefused,
    /// `OPTIONS`, for a link that resolves.
    Options,
    /// A method that the link does not redirect.
    BadMethod,
    /// PostgreSQL cannot be reached, or too many lookups are in flight.
    Unavailable,
}

impl ResolveOutcome {
    const ALL: [Self; 10] = [
        Self::Redirected,
        Self::Unknown,
        Self::Inactive,
        Self::Expired,
        Self::UsedUp,
        Self::TooManyMisses,
        Self::PrefetchRefused,
        Self::Options,
        Self::BadMethod,
        Self::Unavailable,
    ];

    const fn name(self) -> &'static str {
        match self {
            Self::Redirected => "redirected",
            Self::Unknown => "unknown",
            Self::Inactive => "inactive",
            Self::Expired => "expired",
            Self::UsedUp => "used_up",
            Self::TooManyMisses => "too_many_misses",
            Self::PrefetchRefused => "prefetch_refused",
            Self::Options => "options",
            Self::BadMethod => "bad_method",
            Self::Unavailable => "unavailable",
        }
    }

    /// The status code of the outcome in the duration metric; 302 for every redirect, `None` if it is not timed.
    const fn status(self) -> Option<&'static str> {
        match self {
            Self::Redirected => Some("302"),
            Self::Unknown | Self::Inactive | Self::Expired | Self::UsedUp => Some("404"),
            Self::TooManyMisses => Some("429"),
            Self::Options => Some("204"),
            Self::BadMethod => Some("405"),
            Self::Unavailable => Some("503"),
            // Its 503 is meant for the browser and is not a failure, so it must not use up an error budget.
            Self::PrefetchRefused => None,
        }
    }
}

/// The instruments of the process, by outcome.
pub struct ResolveMetrics {
    outcomes: [(BoundCounter<u64>, Option<BoundHistogram<f64>>); 10],
}

impl ResolveMetrics {
    /// Registers the instruments.
    pub fn new(meter: &Meter) -> Self {
        let responses = meter
            .u64_counter("linnet_resolve_responses")
            .with_description("Responses to visitors of short links, by outcome.")
            .build();
        let duration = metrics::latency_histogram(
            meter,
            "http.server.request.duration",
            "Time from the head of a request to its response, in seconds.",
        );
        let outcomes = ResolveOutcome::ALL.map(|outcome| {
            let duration = outcome.status().map(|status| {
                let mut labels = vec![
                    KeyValue::new("http.route", "/{code}"),
                    KeyValue::new("http.request.method", "GET"),
                    KeyValue::new("http.response.status_code", status),
                    KeyValue::new("url.scheme", "http"),
                ];
                if status.starts_with('5') {
                    labels.push(KeyValue::new("error.type", status));
                }
                duration.bind(&labels)
            });
            (responses.bind(&[KeyValue::new("outcome", outcome.name())]), duration)
        });
        Self { outcomes }
    }

    /// Records a response that took `seconds`.
    #[inline]
    pub fn record(&self, outcome: ResolveOutcome, seconds: f64) {
        if let Some((responses, duration)) = self.outcomes.get(outcome as usize) {
            responses.add(1);
            if let Some(duration) = duration {
                duration.record(seconds);
            }
        }
    }
}
