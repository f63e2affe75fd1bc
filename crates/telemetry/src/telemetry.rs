//! The owner of a process's telemetry: built once at start, shut down last.

use std::{io, sync::atomic::Ordering, time::Duration};

use opentelemetry::{global, metrics::Meter};
use opentelemetry_sdk::{
    metrics::SdkMeterProvider, propagation::TraceContextPropagator, trace::SdkTracerProvider,
};
use tracing::level_filters::LevelFilter;
use tracing_subscriber::{
    Layer as _, Registry as SpanRegistry, filter::Targets, layer::SubscriberExt as _,
    util::SubscriberInitExt as _,
};

use crate::{
    config::{self, LogFormat, TelemetrySettings},
    log::{JsonLayer, LogWriter, LogWriterHandle},
    metrics::Metrics,
    otlp,
};

/// How long [`Telemetry::shutdown`] waits for the collector.
const SPAN_FLUSH_TIMEOUT: Duration = Duration::from_secs(4);

/// How long the last log lines may take to leave.
const LOG_FLUSH_TIMEOUT: Duration = Duration::from_secs(1);

/// What the running program is, for `build_info`, the readiness answer and the spans' resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ServiceInfo {
    /// The service's name, such as `gateway`.
    pub name: &'static str,
    /// The crate's version.
    pub version: &'static str,
    /// What was deployed: a commit, a tag, an image's digest.
    pub release: &'static str,
}

/// Why telemetry could not be set up. All of these end the start.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// `log_level` is no filter.
    #[error("telemetry.log_level: {0}")]
    Filter(String),
    /// Something in this process has installed a subscriber before.
    #[error("could not install the log subscriber")]
    Subscriber(#[from] tracing_subscriber::util::TryInitError),
    /// The thread that writes logs could not be started.
    #[error("could not start the log writer")]
    LogWriter(#[source] io::Error),
    /// The metrics exporter could not be built.
    #[error("could not build the metrics exporter")]
    MetricsExporter(#[from] opentelemetry_sdk::error::OTelSdkError),
    /// Two metrics of one name.
    #[error("could not register a metric")]
    Registry(#[from] prometheus::Error),
    /// The span exporter could not be built.
    #[error("could not build the span exporter")]
    SpanExporter(#[from] opentelemetry_otlp::ExporterBuildError),
    /// The span exporter's runtime could not be started.
    #[error("could not start the span exporter")]
    Runtime(#[source] io::Error),
}

/// Owns the meter provider, the registry, the span exporter and the log writer.
pub struct Telemetry {
    metrics: Metrics,
    spans: Option<SdkTracerProvider>,
    logs: Option<LogWriterHandle>,
}

impl Telemetry {
    /// Installs the global subscriber (log lines to standard output; spans to the collector, if one
    /// is configured), the `traceparent` propagator and the meter provider.
    pub fn init(
        settings: &TelemetrySettings,
        service: ServiceInfo,
    ) -> Result<Self, TelemetryError> {
        let filter = config::parse_filter(&settings.log_level).map_err(TelemetryError::Filter)?;
        let metrics = Metrics::new(service, settings.metrics)?;
        // Before the span exporter is built: it counts what it drops on the global meter.
        global::set_meter_provider(metrics.provider.clone());
        let (spans, span_layer) = match settings.effective_otlp_endpoint() {
            Some(endpoint) => {
                let (provider, tracer) = otlp::tracer_provider(&endpoint, service)?;
                let layer = tracing_opentelemetry::layer().with_tracer(tracer);
                (Some(provider), Some(layer.with_filter(exported_targets())))
            }
            None => (None, None),
        };
        let (writer, logs) = LogWriter::start(io::stdout()).map_err(TelemetryError::LogWriter)?;
        let log_layer = match settings.log_format {
            LogFormat::Json => JsonLayer::new(writer).boxed(),
            LogFormat::Text => {
                tracing_subscriber::fmt::layer().with_ansi(false).with_writer(writer).boxed()
            }
        };
        SpanRegistry::default().with(span_layer).with(log_layer.with_filter(filter)).try_init()?;
        global::set_text_map_propagator(TraceContextPropagator::new());
        count_dropped_lines(&metrics.meter, &logs);
        Ok(Self { metrics, spans, logs: Some(logs) })
    }

    /// Metrics alone, without touching anything global: what tests use.
    pub(crate) fn metrics_only(service: ServiceInfo) -> Result<Self, TelemetryError> {
        Ok(Self { metrics: Metrics::new(service, true)?, spans: None, logs: None })
    }

    /// The meter that every instrument of the process comes from.
    pub fn meter(&self) -> Meter {
        self.metrics.meter.clone()
    }

    /// What keeps the metrics alive.
    pub(crate) fn meter_provider(&self) -> SdkMeterProvider {
        self.metrics.provider.clone()
    }

    /// What `/metrics` renders; further collectors may be registered here.
    pub fn registry(&self) -> &prometheus::Registry {
        &self.metrics.registry
    }

    /// Sends the spans that still wait and writes the last log lines. Blocks for at most five
    /// seconds, so it belongs behind everything else that stops.
    pub fn shutdown(mut self) {
        if let Some(spans) = self.spans.take()
            && let Err(error) = spans.shutdown_with_timeout(SPAN_FLUSH_TIMEOUT)
        {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "the last spans were not sent"
            );
        }
    }
}

impl Drop for Telemetry {
    fn drop(&mut self) {
        if let Some(logs) = &self.logs {
            // Nobody is left to tell that the last lines were lost.
            logs.flush(LOG_FLUSH_TIMEOUT);
        }
    }
}

/// Spans of the exporter's own HTTP client would beget spans.
fn exported_targets() -> Targets {
    Targets::new()
        .with_default(LevelFilter::INFO)
        .with_target("linnet_telemetry", LevelFilter::DEBUG)
        .with_target("hyper", LevelFilter::OFF)
        .with_target("hyper_util", LevelFilter::OFF)
        .with_target("opentelemetry", LevelFilter::OFF)
}

fn count_dropped_lines(meter: &Meter, logs: &LogWriterHandle) {
    let dropped = logs.dropped();
    let _registered = meter
        .u64_observable_counter("log.lines.dropped")
        .with_description("Log lines lost because standard output was slow or gone")
        .with_callback(move |observer| observer.observe(dropped.load(Ordering::Relaxed), &[]))
        .build();
}
