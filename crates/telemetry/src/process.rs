//! Metrics of this process, read from `/proc/self` at each scrape.
//!
//! The names are those of the Prometheus client libraries. A file that cannot be read omits its metrics and never fails a
//! scrape. (The `prometheus` crate has a collector like this one, but it counts processor time in whole seconds.)

use std::collections::HashMap;

use procfs::process::{LimitValue, Process};
use prometheus::{
    core::{Collector, Desc},
    proto::{Counter, Gauge, Metric, MetricFamily, MetricType},
};

use crate::control_group::control_group_limit;

/// Name, help and type, in the order of [`values`].
const METRICS: [(&str, &str, MetricType); 8] = [
    ("process_resident_memory_bytes", "Resident memory, in bytes.", MetricType::GAUGE),
    ("process_virtual_memory_bytes", "Virtual memory, in bytes.", MetricType::GAUGE),
    (
        "process_cpu_seconds_total",
        "Processor time in user and system mode, in seconds.",
        MetricType::COUNTER,
    ),
    (
        "process_start_time_seconds",
        "Start time, in seconds since the Unix epoch.",
        MetricType::GAUGE,
    ),
    ("process_threads", "Number of threads.", MetricType::GAUGE),
    ("process_open_fds", "Number of open file descriptors.", MetricType::GAUGE),
    ("process_max_fds", "Limit of open file descriptors.", MetricType::GAUGE),
    (
        "linnet_process_memory_limit_bytes",
        "Memory limit of the process's control group, in bytes. Absent without one.",
        MetricType::GAUGE,
    ),
];

#[expect(clippy::cast_precision_loss, reason = "sizes and times are far below 2^52")]
fn values() -> [Option<f64>; METRICS.len()] {
    let Ok(process) = Process::myself() else { return [None; METRICS.len()] };
    let stat = process.stat().ok();
    let stat = stat.as_ref();
    let seconds = |ticks: u64| ticks as f64 / procfs::ticks_per_second() as f64;
    [
        stat.map(|stat| stat.rss as f64 * procfs::page_size() as f64),
        stat.map(|stat| stat.vsize as f64),
        stat.map(|stat| seconds(stat.utime + stat.stime)),
        stat.zip(procfs::boot_time_secs().ok())
            .map(|(stat, boot)| boot as f64 + seconds(stat.starttime)),
        stat.map(|stat| stat.num_threads as f64),
        // `process` itself holds one open file.
        process.fd_count().ok().map(|count| count.saturating_sub(1) as f64),
        process.limits().ok().and_then(|limits| match limits.max_open_files.soft_limit {
            LimitValue::Value(limit) => Some(limit as f64),
            LimitValue::Unlimited => None,
        }),
        control_group_limit().map(|bytes| bytes as f64),
    ]
}

pub(crate) struct ProcessCollector {
    // The registry identifies a collector by its descriptions. Without any, this one would collide with the
    // OpenTelemetry exporter's.
    descs: Vec<Desc>,
}

impl ProcessCollector {
    pub(crate) fn new() -> Result<Self, prometheus::Error> {
        let describe = |(name, help, _): (&str, &str, MetricType)| {
            Desc::new(name.to_owned(), help.to_owned(), Vec::new(), HashMap::new())
        };
        let descs = METRICS.into_iter().map(describe).collect::<Result<_, _>>()?;
        Ok(Self { descs })
    }
}

impl Collector for ProcessCollector {
    fn desc(&self) -> Vec<&Desc> {
        self.descs.iter().collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        METRICS
            .into_iter()
            .zip(values())
            .filter_map(|((name, help, kind), value)| Some(family(name, help, kind, value?)))
            .collect()
    }
}

pub(crate) fn family(name: &str, help: &str, kind: MetricType, value: f64) -> MetricFamily {
    let mut metric = Metric::default();
    if kind == MetricType::COUNTER {
        let mut counter = Counter::default();
        counter.set_value(value);
        metric.set_counter(counter);
    } else {
        let mut gauge = Gauge::default();
        gauge.set_value(value);
        metric.set_gauge(gauge);
    }
    let mut family = MetricFamily::default();
    family.set_name(name.to_owned());
    family.set_help(help.to_owned());
    family.set_field_type(kind);
    family.set_metric(vec![metric]);
    family
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{SystemTime, UNIX_EPOCH};

    #[test]
    fn every_value_is_present_and_plausible() {
        // The limit of the control group is optional.
        let [resident, virtual_memory, cpu, start, threads, open, max, _] =
            values().map(Option::unwrap_or_default);
        assert!(resident > 100_000.0 && virtual_memory > resident, "{resident} {virtual_memory}");
        assert!((0.0..10_000.0).contains(&cpu), "{cpu}");
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64();
        assert!(start < now + 2.0 && start > now - 86_400.0, "started at {start}, now {now}");
        assert!(threads >= 1.0 && open >= 3.0 && max >= open, "{threads} {open} {max}");
    }

    #[test]
    fn an_open_file_is_counted() {
        let before = values()[5].unwrap();
        let files: Vec<_> = (0..50).map(|_| std::fs::File::open("/dev/null").unwrap()).collect();
        let open = values()[5].unwrap();
        assert!(open >= before + 40.0, "{before}, then {open}");
        drop(files);
    }
}
