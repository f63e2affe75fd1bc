//! Errors of [`Telemetry::init`](crate::Telemetry::init), which end the start of a process.

use std::io;

/// Why telemetry could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// `log_level` is not a filter.
    #[error("telemetry.log_level: {0}")]
    Filter(String),
    /// The process already has a subscriber.
    #[error("could not install the log subscriber")]
    Subscriber(#[from] tracing_subscriber::util::TryInitError),
    /// The thread that writes logs could not be started.
    #[error("could not start the log writer")]
    LogWriter(#[source] io::Error),
    /// The metrics exporter could not be built.
    #[error("could not build the metrics exporter")]
    MetricsExporter(#[from] opentelemetry_sdk::error::OTelSdkError),
    /// Two metrics have the same name.
    #[error("could not register a metric")]
    Registry(#[from] prometheus::Error),
    /// The span exporter could not be built.
    #[error("could not build the span exporter")]
    SpanExporter(#[from] opentelemetry_otlp::ExporterBuildError),
    /// The CA file for the collector cannot be used.
    #[error("telemetry.otlp_ca_file: {0}")]
    CaFile(#[from] linnet_tls::CaFileError),
    /// The span exporter's runtime could not be started.
    #[error("could not start the span exporter")]
    Runtime(#[source] io::Error),
}
