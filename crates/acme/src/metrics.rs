//! The metrics of the certificate in use and of orders.

use chrono::{DateTime, Utc};
use linnet_platform::clock::Clock;
use linnet_telemetry::metrics::{KeyValue, Meter};

use crate::{
    failure::Reason,
    snapshot::{Shared, Snapshot},
};

type Read = fn(&Snapshot, DateTime<Utc>) -> Option<f64>;

/// Name, description and value.
const GAUGES: [(&str, &str, Read); 9] = [
    (
        "linnet_acme_certificate_not_after_timestamp",
        "End of the life of the certificate in use, in seconds since 1970.",
        |snapshot, _| snapshot.certificate.as_ref().map(|c| seconds(c.not_after)),
    ),
    (
        "linnet_acme_certificate_life_left_ratio",
        "Part of the life of the certificate in use that is left, from 0 to 1; 0 without one.",
        |snapshot, now| Some(snapshot.certificate.as_ref().map_or(0.0, |c| c.fraction_left(now))),
    ),
    (
        "linnet_acme_certificate_issued",
        "Certificate in use: 1 a CA issued it, 0 it is a placeholder or missing.",
        |snapshot, _| Some(f64::from(u8::from(snapshot.is_trusted))),
    ),
    (
        "linnet_acme_missing_names",
        "Names that the settings list and the certificate in use lacks.",
        |snapshot, _| Some(count(snapshot.missing_names as u64)),
    ),
    (
        "linnet_acme_last_success_timestamp",
        "Time at which the certificate in use was installed, in seconds since 1970.",
        |snapshot, _| snapshot.state.last_success.map(seconds),
    ),
    (
        "linnet_acme_renewal_timestamp",
        "Time of the next renewal, in seconds since 1970.",
        |snapshot, _| snapshot.renewal.map(seconds),
    ),
    (
        "linnet_acme_renewal_window_start_timestamp",
        "Begin of the renewal window that the CA suggests, in seconds since 1970.",
        |snapshot, _| snapshot.state.window.map(|window| seconds(window.start)),
    ),
    (
        "linnet_acme_renewal_window_end_timestamp",
        "End of the renewal window that the CA suggests, in seconds since 1970.",
        |snapshot, _| snapshot.state.window.map(|window| seconds(window.end)),
    ),
    (
        "linnet_acme_consecutive_failures",
        "Failed attempts to order a certificate since the last success.",
        |snapshot, _| Some(f64::from(snapshot.state.failures)),
    ),
];

/// Registers the metrics. A value that does not exist yet has no series.
pub(crate) fn register(meter: &Meter, shared: &Shared, clock: Clock) {
    for (name, description, read) in GAUGES {
        let shared = shared.clone();
        let mut gauge = meter.f64_observable_gauge(name).with_description(description);
        if name.ends_with("_timestamp") {
            gauge = gauge.with_unit("s");
        }
        gauge
            .with_callback(move |observer| {
                if let Some(value) = shared.with(|snapshot| read(snapshot, clock.now())) {
                    observer.observe(value, &[]);
                }
            })
            .build();
    }
    register_counters(meter, shared);
}

fn register_counters(meter: &Meter, shared: &Shared) {
    let of_orders = shared.clone();
    meter
        .u64_observable_counter("linnet_acme_orders")
        .with_description("Certificates ordered and installed.")
        .with_callback(move |observer| {
            observer.observe(of_orders.with(|snapshot| snapshot.orders), &[]);
        })
        .build();
    let of_failures = shared.clone();
    meter
        .u64_observable_counter("linnet_acme_failures")
        .with_description("Failed attempts to order a certificate, by reason.")
        .with_callback(move |observer| {
            for reason in Reason::ALL {
                let failures = of_failures
                    .with(|snapshot| snapshot.failures.get(&reason).copied().unwrap_or_default());
                observer.observe(failures, &[KeyValue::new("reason", reason.name())]);
            }
        })
        .build();
}

#[expect(clippy::cast_precision_loss, reason = "times and counts are far below 2^52")]
fn count(number: u64) -> f64 {
    number as f64
}

#[expect(clippy::cast_precision_loss, reason = "times are far below 2^52")]
fn seconds(time: DateTime<Utc>) -> f64 {
    time.timestamp() as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{certificate::Certificate, names::Names, placeholder::placeholder};

    #[test]
    fn metrics_show_the_certificate_and_failures_by_reason() {
        let (telemetry, reader) = linnet_telemetry::testing::telemetry();
        let shared = Shared::default();
        let names = Names::from(["go.example.com".parse().unwrap()]);
        let chain = placeholder(&names).unwrap().chain;
        let certificate = Certificate::parse(chain.as_bytes()).unwrap();
        let middle = certificate.not_before + (certificate.not_after - certificate.not_before) / 2;
        register(&telemetry.meter(), &shared, Clock::Fixed(middle));
        let ratio = "linnet_acme_certificate_life_left_ratio";
        assert_eq!(reader.value(ratio, &[]), Some(0.0));
        let end = "linnet_acme_certificate_not_after_timestamp_seconds";
        assert_eq!(reader.value(end, &[]), None);

        let not_after = seconds(certificate.not_after);
        shared.with(|snapshot| {
            snapshot.certificate = Some(certificate);
            snapshot.is_trusted = true;
            snapshot.failures.insert(Reason::Dns, 2);
        });
        assert_eq!(reader.value(end, &[]), Some(not_after));
        assert!((reader.value(ratio, &[]).unwrap() - 0.5).abs() < 1e-6);
        assert_eq!(reader.value("linnet_acme_failures_total", &[("reason", "dns")]), Some(2.0));
        assert_eq!(reader.value("linnet_acme_failures_total", &[("reason", "storage")]), Some(0.0));
        assert_eq!(reader.value("linnet_acme_certificate_issued", &[]), Some(1.0));
    }
}
