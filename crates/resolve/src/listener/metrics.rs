//! What the public listener counts. Everything is bound at start: no label holds a code.

use linnet_telemetry::metrics::{self, BoundCounter, BoundHistogram, KeyValue, Meter};

/// One answer's outcome.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Redirected.
    Redirected,
    /// No such code.
    Unknown,
    /// Switched off, or deleted a moment ago.
    Inactive,
    /// Past its end.
    Expired,
    /// All its clicks are taken.
    UsedUp,
    /// The client is over its budget of misses.
    TooManyMisses,
    /// A method other than `GET` and `HEAD`.
    BadMethod,
    /// A dependency is away, or too much is under way.
    Unavailable,
}

impl Outcome {
    const ALL: [Self; 8] = [
        Self::Redirected,
        Self::Unknown,
        Self::Inactive,
        Self::Expired,
        Self::UsedUp,
        Self::TooManyMisses,
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
            Self::BadMethod => "bad_method",
            Self::Unavailable => "unavailable",
        }
    }

    /// The status that stands for the outcome in the duration metric.
    const fn status(self) -> &'static str {
        match self {
            Self::Redirected => "302",
            Self::Unknown | Self::Inactive | Self::Expired | Self::UsedUp => "404",
            Self::TooManyMisses => "429",
            Self::BadMethod => "405",
            Self::Unavailable => "503",
        }
    }
}

/// The instruments of the process.
pub struct ResolveMetrics {
    outcomes: [(BoundCounter<u64>, BoundHistogram<f64>); 8],
}

impl ResolveMetrics {
    /// Registers the instruments.
    pub fn new(meter: &Meter) -> Self {
        let answers = meter
            .u64_counter("linnet_resolve_responses")
            .with_description("Answers to visitors of short links, by outcome")
            .build();
        let duration = metrics::latency_histogram(
            meter,
            "http.server.request.duration",
            "Time from a request's head to its answer",
        );
        let outcomes = Outcome::ALL.map(|outcome| {
            let labels = [
                KeyValue::new("http.route", "/{code}"),
                KeyValue::new("http.request.method", "GET"),
                KeyValue::new("http.response.status_code", outcome.status()),
            ];
            let outcome = KeyValue::new("outcome", outcome.name());
            (answers.bind(&[outcome]), duration.bind(&labels))
        });
        Self { outcomes }
    }

    /// Counts an answer that took `seconds`.
    #[inline]
    pub fn record(&self, outcome: Outcome, seconds: f64) {
        if let Some((answers, duration)) = self.outcomes.get(outcome as usize) {
            answers.add(1);
            duration.record(seconds);
        }
    }
}
