//! Logs, metrics, traces and health routes for every process.
//!
//! The crate knows no product type: it is told a service's name and hands back a meter, a registry
//! and middleware.
//!
//! Invariants:
//! - Nothing here waits for a log reader, a scraper or a collector: logs go through a bounded queue,
//!   spans through a bounded batch, metrics are pulled.
//! - No label holds a path, an id or anything else that a client chooses; each stream of a metric
//!   has a cardinality limit ([`metrics::CARDINALITY_LIMIT`]) beyond which points fold into one.
//! - Only [`Telemetry::init`] touches global state, and only once in a process.
//!
//! # Metrics on a hot path
//!
//! An `add` with attributes costs about a hundred nanoseconds and more under contention. A *bound*
//! instrument has looked its attributes up already and costs a tenth, so bind one for each (route,
//! status class) at start and keep it:
//!
//! ```
//! use linnet_telemetry::metrics::{self, BoundCounter, BoundHistogram, KeyValue, Meter};
//!
//! struct ResolveMetrics {
//!     found: BoundCounter<u64>,
//!     missing: BoundCounter<u64>,
//!     duration: BoundHistogram<f64>,
//! }
//!
//! impl ResolveMetrics {
//!     fn new(meter: &Meter) -> Self {
//!         let answers = meter.u64_counter("answers").with_description("Answers sent").build();
//!         let duration = metrics::latency_histogram(meter, "answer.duration", "Time to answer");
//!         let class = |class: &'static str| {
//!             [KeyValue::new("route", "/{code}"), KeyValue::new("status_class", class)]
//!         };
//!         Self {
//!             found: answers.bind(&class("3xx")),
//!             missing: answers.bind(&class("4xx")),
//!             duration: duration.bind(&[KeyValue::new("route", "/{code}")]),
//!         }
//!     }
//! }
//!
//! let (telemetry, reader) = linnet_telemetry::testing::telemetry();
//! let answers = ResolveMetrics::new(&telemetry.meter());
//! answers.found.add(1);
//! answers.missing.add(2);
//! answers.duration.record(0.000_25);
//! assert_eq!(reader.value("answers_total", &[("status_class", "4xx")]), Some(2.0));
//! assert_eq!(reader.value("answer_duration_seconds_count", &[]), Some(1.0));
//! ```

pub mod admin;
pub mod config;
pub mod context;
mod log;
pub mod metrics;
mod otlp;
mod process;
pub mod request;
mod telemetry;
pub mod testing;
pub mod trace_headers;

pub use admin::{AdminState, CheckState, Readiness, ReadinessReport, admin_routes};
pub use config::{LogFormat, TelemetrySettings};
pub use metrics::LATENCY_BUCKETS_SECONDS;
pub use request::RequestTelemetry;
pub use telemetry::{ServiceInfo, Telemetry, TelemetryError};
