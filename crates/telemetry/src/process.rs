//! Metrics of this process, read from `/proc/self` at each scrape.
//!
//! The names are those of the Prometheus client libraries. A file that can't be read leaves its
//! metrics out; it never fails a scrape.

use std::{collections::HashMap, fs};

use prometheus::{
    core::{Collector, Desc},
    proto::{Counter, Gauge, Metric, MetricFamily, MetricType},
};

/// What the kernel calls `USER_HZ`: the unit of times in `/proc`, 100 on every Linux that runs Rust.
const TICKS_PER_SECOND: f64 = 100.0;

/// Name, help and type, in the order of [`values`].
const METRICS: [(&str, &str, MetricType); 7] = [
    ("process_resident_memory_bytes", "Resident memory size in bytes", MetricType::GAUGE),
    ("process_virtual_memory_bytes", "Virtual memory size in bytes", MetricType::GAUGE),
    ("process_cpu_seconds_total", "User and system CPU time in seconds", MetricType::COUNTER),
    ("process_start_time_seconds", "Start time since the Unix epoch in seconds", MetricType::GAUGE),
    ("process_threads", "Threads of the process", MetricType::GAUGE),
    ("process_open_fds", "Open file descriptors", MetricType::GAUGE),
    ("process_max_fds", "Limit of open file descriptors", MetricType::GAUGE),
];

fn values() -> [Option<f64>; METRICS.len()] {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    [
        status_kib(&status, "VmRSS:"),
        status_kib(&status, "VmSize:"),
        cpu_seconds(&stat),
        start_time(&stat),
        stat_field(&stat, 20),
        open_fds(),
        max_fds(),
    ]
}

pub(crate) struct ProcessCollector {
    // The registry tells collectors apart by what they describe: without any, this one would be
    // taken for the OpenTelemetry exporter's.
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

fn family(name: &str, help: &str, kind: MetricType, value: f64) -> MetricFamily {
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

/// A line `VmRSS:   1234 kB` of `/proc/self/status`, in bytes.
fn status_kib(status: &str, key: &str) -> Option<f64> {
    let line = status.lines().find_map(|line| line.strip_prefix(key))?;
    let kib: f64 = line.split_whitespace().next()?.parse().ok()?;
    Some(kib * 1024.0)
}

/// Field `number` of `/proc/self/stat`, counted from 1 as in proc(5).
///
/// The second field is the command in parentheses and may itself hold spaces and parentheses, so
/// counting starts behind the last one.
fn stat_field(stat: &str, number: usize) -> Option<f64> {
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_whitespace().nth(number.checked_sub(3)?)?.parse().ok()
}

fn cpu_seconds(stat: &str) -> Option<f64> {
    Some((stat_field(stat, 14)? + stat_field(stat, 15)?) / TICKS_PER_SECOND)
}

fn start_time(stat: &str) -> Option<f64> {
    let boot = fs::read_to_string("/proc/stat").ok()?;
    let boot: f64 =
        boot.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()?;
    Some(boot + stat_field(stat, 22)? / TICKS_PER_SECOND)
}

fn open_fds() -> Option<f64> {
    let count = fs::read_dir("/proc/self/fd").ok()?.count();
    // The descriptor that lists the folder is one of them.
    u32::try_from(count.saturating_sub(1)).ok().map(f64::from)
}

fn max_fds() -> Option<f64> {
    let limits = fs::read_to_string("/proc/self/limits").ok()?;
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_with_spaces_and_parentheses_shifts_nothing() {
        let stat = "42 (a (b) c) S 1 2 3 4 5 6 7 8 9 10 250 150 0 0 20 0 7 0 900 0";
        assert_eq!(cpu_seconds(stat), Some(4.0));
        assert_eq!(stat_field(stat, 20), Some(7.0));
        assert_eq!(stat_field(stat, 22), Some(900.0));
    }

    #[test]
    fn a_file_that_is_not_as_expected_gives_nothing() {
        assert_eq!(cpu_seconds(""), None);
        assert_eq!(cpu_seconds("1 (x) S"), None);
        assert_eq!(status_kib("VmRSS: much kB", "VmRSS:"), None);
    }
}
