//! The meter provider, and the registry that `/metrics` renders.
//!
//! Invariants:
//! - Series have the labels of their instrument only: no scope labels and no `target_info`.
//! - Every histogram has explicit boundaries, usually those of [`latency_histogram`].
//! - Each metric has a bounded number of label sets. Further ones are folded into `otel_metric_overflow="true"`.

use opentelemetry::metrics::MeterProvider as _;
use opentelemetry_sdk::metrics::{Instrument, SdkMeterProvider, Stream};
use prometheus::Registry;

pub use opentelemetry::{
    KeyValue,
    metrics::{
        BoundCounter, BoundGauge, BoundHistogram, BoundUpDownCounter, Counter, Gauge, Histogram,
        Meter, ObservableCounter, ObservableGauge, UpDownCounter,
    },
};

use crate::{
    clock::ClockCollector, error::TelemetryError, process::ProcessCollector, service::ServiceInfo,
};

/// Bucket boundaries for response times, in seconds: 0.5 ms to 10 s.
pub const LATENCY_BUCKETS_SECONDS: &[f64] =
    &[0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

/// Label sets that one metric may have. The SDK allocates memory for all of them at start.
pub const CARDINALITY_LIMIT: usize = 200;

/// Label sets of the API's request durations: route × method × status.
pub const REQUEST_CARDINALITY_LIMIT: usize = 1000;

pub(crate) const REQUEST_DURATION: &str = "http.server.request.duration";

const METER_NAME: &str = "linnet";

/// A histogram of seconds with [`LATENCY_BUCKETS_SECONDS`]; `/metrics` appends `_seconds` to `name`.
pub fn latency_histogram(
    meter: &Meter,
    name: &'static str,
    description: &'static str,
) -> Histogram<f64> {
    meter
        .f64_histogram(name)
        .with_description(description)
        .with_unit("s")
        .with_boundaries(LATENCY_BUCKETS_SECONDS.to_vec())
        .build()
}

/// The provider, and the registry that it exports to.
pub(crate) struct Metrics {
    pub(crate) provider: SdkMeterProvider,
    pub(crate) meter: Meter,
    pub(crate) registry: Registry,
}

impl Metrics {
    /// Without `instruments`, the product's instruments record nothing.
    pub(crate) fn new(service: ServiceInfo, instruments: bool) -> Result<Self, TelemetryError> {
        let registry = Registry::new();
        let mut provider = SdkMeterProvider::builder();
        if instruments {
            let exporter = opentelemetry_prometheus::exporter()
                .with_registry(registry.clone())
                .scope_info_enabled(false)
                .without_target_info()
                .build()?;
            provider = provider.with_reader(exporter).with_view(bounded_stream);
        }
        let provider = provider.build();
        registry.register(Box::new(ProcessCollector::new()?))?;
        registry.register(Box::new(ClockCollector::new()?))?;
        registry.register(Box::new(build_info(service)?))?;
        let meter = provider.meter(METER_NAME);
        Ok(Self { provider, meter, registry })
    }
}

/// Sets the cardinality limit only: boundaries in a view would override the instrument's own.
fn bounded_stream(instrument: &Instrument) -> Option<Stream> {
    let limit = if instrument.name() == REQUEST_DURATION {
        REQUEST_CARDINALITY_LIMIT
    } else {
        CARDINALITY_LIMIT
    };
    Stream::builder().with_cardinality_limit(limit).build().ok()
}

fn build_info(service: ServiceInfo) -> Result<prometheus::IntGauge, prometheus::Error> {
    let opts = prometheus::Opts::new("build_info", "Build information; always 1.")
        .const_label("service", service.name)
        .const_label("version", service.version)
        .const_label("release", service.release);
    let gauge = prometheus::IntGauge::with_opts(opts)?;
    gauge.set(1);
    Ok(gauge)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;

    #[test]
    fn the_exposition_has_explicit_buckets_and_no_scope() {
        let (telemetry, reader) = testing::telemetry();
        latency_histogram(&telemetry.meter(), "lookup.duration", "x").record(0.003, &[]);
        let text = reader.text();
        for bound in LATENCY_BUCKETS_SECONDS {
            let line = format!("lookup_duration_seconds_bucket{{le=\"{bound}\"}} ");
            assert!(text.contains(&line), "{line} is not in\n{text}");
        }
        assert!(!text.contains("otel_scope") && !text.contains("target_info"), "{text}");
        let le = |bound| reader.value("lookup_duration_seconds_bucket", &[("le", bound)]);
        assert_eq!((le("0.0025"), le("0.005"), le("+Inf")), (Some(0.0), Some(1.0), Some(1.0)));
    }

    #[test]
    fn label_sets_beyond_the_limit_are_folded_into_one_series() {
        let (telemetry, reader) = testing::telemetry();
        let counter = telemetry.meter().u64_counter("things").build();
        for number in 0..5_000_i64 {
            counter.add(1, &[KeyValue::new("n", number)]);
        }
        let series = reader.text().lines().filter(|line| line.starts_with("things_total")).count();
        assert!((2..=CARDINALITY_LIMIT + 1).contains(&series), "{series} series");
        assert_eq!(reader.value("things_total", &[]), Some(5_000.0));
    }

    #[test]
    fn without_instruments_only_the_process_has_metrics() {
        let service = ServiceInfo { name: "test", version: "0.0.0", release: "test" };
        let metrics = Metrics::new(service, false).unwrap();
        let counter = metrics.meter.u64_counter("things").build();
        counter.add(1, &[]);
        counter.bind(&[]).add(1);
        let names: Vec<_> =
            metrics.registry.gather().iter().map(|family| family.name().to_owned()).collect();
        assert!(names.contains(&"build_info".to_owned()));
        assert!(!names.iter().any(|name| name.starts_with("things")), "{names:?}");
    }

    #[test]
    fn build_and_process_have_metrics() {
        let (_telemetry, reader) = testing::telemetry();
        assert_eq!(reader.value("build_info", &[("service", "test")]), Some(1.0));
        for name in [
            "process_resident_memory_bytes",
            "process_cpu_seconds_total",
            "process_open_fds",
            "process_start_time_seconds",
        ] {
            assert!(reader.value(name, &[]).is_some(), "{name}");
        }
        assert!(reader.value("process_resident_memory_bytes", &[]).unwrap() > 100_000.0);
    }
}
