//! Builds a process's telemetry when it starts, and flushes it when everything else has stopped.

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
    error::TelemetryError,
    log::{JsonLayer, LogWriter, LogWriterHandle},
    metrics::Metrics,
    otlp,
    service::ServiceInfo,
};

/// Time for which [`Telemetry::shutdown`] waits for the collector.
const SPAN_FLUSH_TIMEOUT: Duration = Duration::from_secs(4);

/// Time for which the last log lines may be written.
const LOG_FLUSH_TIMEOUT: Duration = Duration::from_secs(1);

/// Owns the meter provider, the registry, the span exporter and the log writer.
pub struct Telemetry {
    metrics: Metrics,
    spans: Option<SdkTracerProvider>,
    logs: Option<LogWriterHandle>,
}

impl Telemetry {
    /// Installs the global subscriber, the `traceparent` propagator and the meter provider. Log lines are written to
    /// standard output, and spans to the collector if one is configured.
    pub fn init(
        settings: &TelemetrySettings,
        service: ServiceInfo,
    ) -> Result<Self, TelemetryError> {
        let filter = config::parse_filter(&settings.log_level).map_err(TelemetryError::Filter)?;
        let metrics = Metrics::new(service, settings.metrics)?;
        // Set before the span exporter is built, which counts dropped spans on the global meter.
        global::set_meter_provider(metrics.provider.clone());
        let (spans, span_layer) = match settings.effective_otlp_endpoint() {
            Some(endpoint) => {
                let ca_file = settings.effective_otlp_ca_file();
                let (provider, tracer) =
                    otlp::tracer_provider(&endpoint, ca_file.as_deref(), service)?;
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

    /// Metrics without global state, for tests.
    pub(crate) fn metrics_only(service: ServiceInfo) -> Result<Self, TelemetryError> {
        Ok(Self { metrics: Metrics::new(service, true)?, spans: None, logs: None })
    }

    /// The meter for every instrument of the process.
    pub fn meter(&self) -> Meter {
        self.metrics.meter.clone()
    }

    /// The provider, which owns the metrics: they stop when it is dropped.
    pub(crate) fn meter_provider(&self) -> SdkMeterProvider {
        self.metrics.provider.clone()
    }

    /// The registry that `/metrics` renders; further collectors may be registered.
    pub fn registry(&self) -> &prometheus::Registry {
        &self.metrics.registry
    }

    /// Exports the remaining spans and writes the last log lines. Blocks for at most 5 s, so call it after everything
    /// else has stopped.
    pub fn shutdown(mut self) {
        if let Some(spans) = self.spans.take()
            && let Err(error) = spans.shutdown_with_timeout(SPAN_FLUSH_TIMEOUT)
        {
            tracing::warn!(error = &error as &dyn std::error::Error, "spans lost at shutdown");
        }
    }
}

impl Drop for Telemetry {
    fn drop(&mut self) {
        if let Some(logs) = &self.logs {
            // A failure cannot be logged any more.
            logs.flush(LOG_FLUSH_TIMEOUT);
        }
    }
}

/// Excludes `hyper`: exporting the spans of the exporter's own HTTP client would create more of them.
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
        .with_description("Log lines dropped because standard output was slow or closed.")
        .with_callback(move |observer| observer.observe(dropped.load(Ordering::Relaxed), &[]))
        .build();
}
