//! Telemetry for tests, without global state, whose metrics and log lines can be read.

use std::{
    io,
    sync::{Arc, Mutex},
};

use opentelemetry_sdk::metrics::SdkMeterProvider;
use prometheus::{
    Registry, TextEncoder,
    proto::{LabelPair, MetricFamily, MetricType},
};
use serde_json::Value;
use tracing::{level_filters::LevelFilter, subscriber::DefaultGuard};
use tracing_subscriber::{Layer as _, fmt::MakeWriter, layer::SubscriberExt as _};

use crate::{log::JsonLayer, service::ServiceInfo, telemetry::Telemetry};

/// Telemetry for one test, and a reader of its metrics.
///
/// # Panics
/// When the metrics exporter cannot be built.
#[expect(clippy::expect_used, reason = "a test fails by panicking")]
pub fn telemetry() -> (Telemetry, MetricsReader) {
    let service = ServiceInfo { name: "test", version: "0.0.0", release: "test" };
    let telemetry = Telemetry::metrics_only(service).expect("the metrics exporter");
    let reader = MetricsReader {
        registry: telemetry.registry().clone(),
        _provider: telemetry.meter_provider(),
    };
    (telemetry, reader)
}

/// Reads the metrics that a scrape returns.
#[derive(Clone)]
pub struct MetricsReader {
    registry: Registry,
    // The metrics stop when the provider is dropped, and a test may keep only the reader.
    _provider: SdkMeterProvider,
}

impl MetricsReader {
    /// The sum of all series with the exposed name and all of these labels; `None` if there is none. A histogram has
    /// `…_count`, `…_sum` and `…_bucket` with `le`.
    pub fn value(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let mut sum = None;
        for family in self.registry.gather() {
            for_each_sample(&family, |sample, series, le, value| {
                let has = |(key, expected): &(&str, &str)| {
                    le.is_some_and(|le| *key == "le" && le == *expected)
                        || series
                            .iter()
                            .any(|label| label.name() == *key && label.value() == *expected)
                };
                if sample == name && labels.iter().all(has) {
                    *sum.get_or_insert(0.0) += value;
                }
            });
        }
        sum
    }

    /// The metrics in the text format.
    ///
    /// # Panics
    /// When a metric cannot be encoded.
    #[expect(clippy::expect_used, reason = "a test fails by panicking")]
    pub fn text(&self) -> String {
        TextEncoder::new().encode_to_string(&self.registry.gather()).expect("valid metrics")
    }
}

fn for_each_sample(
    family: &MetricFamily,
    mut visit: impl FnMut(&str, &[LabelPair], Option<&str>, f64),
) {
    let name = family.name();
    for metric in family.get_metric() {
        let labels = metric.get_label();
        match family.get_field_type() {
            MetricType::COUNTER => visit(name, labels, None, metric.get_counter().get_value()),
            MetricType::GAUGE => visit(name, labels, None, metric.get_gauge().get_value()),
            MetricType::HISTOGRAM => {
                let histogram = metric.get_histogram();
                let bucket = format!("{name}_bucket");
                for entry in histogram.get_bucket() {
                    let le = entry.upper_bound().to_string();
                    visit(&bucket, labels, Some(&le), as_f64(entry.cumulative_count()));
                }
                let count = as_f64(histogram.get_sample_count());
                visit(&bucket, labels, Some("+Inf"), count);
                visit(&format!("{name}_count"), labels, None, count);
                visit(&format!("{name}_sum"), labels, None, histogram.get_sample_sum());
            }
            MetricType::SUMMARY | MetricType::UNTYPED => {}
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "a test counts far below 2^52")]
fn as_f64(count: u64) -> f64 {
    count as f64
}

/// Collects this thread's log lines, `info` and above, until it is dropped.
pub fn capture_logs() -> LogReader {
    let buffer = Buffer::default();
    let layer = JsonLayer::new(buffer.clone()).with_filter(LevelFilter::INFO);
    let subscriber = tracing_subscriber::registry().with(layer);
    LogReader { buffer, _guard: tracing::subscriber::set_default(subscriber) }
}

/// The log lines of the thread that called [`capture_logs`].
pub struct LogReader {
    buffer: Buffer,
    _guard: DefaultGuard,
}

impl LogReader {
    /// The lines so far.
    ///
    /// # Panics
    /// When a line is not JSON.
    #[expect(clippy::expect_used, reason = "a test fails by panicking")]
    pub fn lines(&self) -> Vec<Value> {
        self.buffer.lines().map(|line| line.expect("a JSON line")).collect()
    }
}

/// A log destination in memory.
#[derive(Clone, Default)]
pub(crate) struct Buffer(Arc<Mutex<Vec<u8>>>);

impl Buffer {
    pub(crate) fn lines(&self) -> impl Iterator<Item = serde_json::Result<Value>> + use<> {
        let bytes = self.0.lock().map_or_else(|_| Vec::new(), |bytes| bytes.clone());
        let lines: Vec<_> = bytes
            .split(|byte| *byte == b'\n')
            .filter(|line| !line.is_empty())
            .map(serde_json::from_slice)
            .collect();
        lines.into_iter()
    }
}

impl io::Write for Buffer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut buffer = self.0.lock().map_err(|_| io::Error::other("poisoned"))?;
        buffer.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Buffer {
    type Writer = Self;

    fn make_writer(&'a self) -> Self::Writer {
        self.clone()
    }
}
