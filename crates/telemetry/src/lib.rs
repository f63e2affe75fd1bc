//! Logs, metrics, traces and health routes for every process, independent of the product.
//!
//! Invariants:
//! - Nothing here waits for a log reader, a scrape or a collector: log lines pass through a bounded queue, spans through a
//!   bounded batch, and metrics are pulled.
//! - No label has a path, an id or another value that clients choose. A metric with more than
//!   [`metrics::CARDINALITY_LIMIT`] label sets folds the others into one.
//! - Only [`Telemetry::init`] changes global state, once per process.
//!
//! # Metrics on a hot path
//!
//! An `add` with attributes takes about 100 ns, and more under contention. A *bound* instrument has its attributes resolved
//! and takes a tenth of that, so bind one for each (route, status class) at start:
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
//!         let responses =
//!             meter.u64_counter("responses").with_description("Responses sent.").build();
//!         let duration =
//!             metrics::latency_histogram(meter, "response.duration", "Response time, in seconds.");
//!         let class = |class: &'static str| {
//!             [KeyValue::new("route", "/{code}"), KeyValue::new("status_class", class)]
//!         };
//!         Self {
//!             found: responses.bind(&class("3xx")),
//!             missing: responses.bind(&class("4xx")),
//!             duration: duration.bind(&[KeyValue::new("route", "/{code}")]),
//!         }
//!     }
//! }
//!
//! let (telemetry, reader) = linnet_telemetry::testing::telemetry();
//! let metrics = ResolveMetrics::new(&telemetry.meter());
//! metrics.found.add(1);
//! metrics.missing.add(2);
//! metrics.duration.record(0.000_25);
//! assert_eq!(reader.value("responses_total", &[("status_class", "4xx")]), Some(2.0));
//! assert_eq!(reader.value("response_duration_seconds_count", &[]), Some(1.0));
//! ```

pub mod admin;
mod clock;
pub mod config;
pub mod context;
mod control_group;
mod error;
mod error_chain;
mod log;
pub mod metrics;
mod otlp;
mod process;
pub mod request;
mod service;
mod telemetry;
pub mod testing;
pub mod trace_headers;

pub use admin::{AdminState, CheckState, Readiness, ReadinessReport, admin_routes};
pub use config::{LogFormat, TelemetrySettings};
pub use control_group::control_group_limit;
pub use error::TelemetryError;
pub use error_chain::error_chain;
pub use log::QUEUE_LINES as QUEUED_LOG_LINES;
pub use metrics::LATENCY_BUCKETS_SECONDS;
pub use request::RequestTelemetry;
pub use service::ServiceInfo;
pub use telemetry::Telemetry;
