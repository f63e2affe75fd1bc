//! Metrics of deployments and of drift, as files that node-exporter reads.

use std::fmt::Write as _;

use crate::{
    certificate::Life,
    error::HostError,
    files, paths,
    record::{Outcome, Record},
};

const OUTCOMES: [(Outcome, &str); 3] = [
    (Outcome::Succeeded, "succeeded"),
    (Outcome::RolledBack, "rolled-back"),
    (Outcome::Failed, "failed"),
];

/// Writes the state of a deployment.
pub fn write_deployment(record: &Record) -> Result<(), HostError> {
    files::write(format!("{}/deployment.prom", paths::METRICS), &deployment(record))
}

/// Writes the number of differences that a check found.
pub fn write_drift(differences: usize, now: u64) -> Result<(), HostError> {
    let mut text = String::new();
    gauge(&mut text, "linnet_host_drift", "Differences between the server and what was deployed.");
    line(&mut text, "linnet_host_drift", "", differences as u64);
    gauge(
        &mut text,
        "linnet_host_drift_checked_seconds",
        "Time of the last check, in seconds since 1970.",
    );
    line(&mut text, "linnet_host_drift_checked_seconds", "", now);
    files::write(format!("{}/drift.prom", paths::METRICS), &text)
}

/// Writes the life of the certificate that nginx presents.
pub fn write_certificate(life: Life) -> Result<(), HostError> {
    files::write(format!("{}/certificate.prom", paths::METRICS), &certificate(life))
}

fn certificate(life: Life) -> String {
    let mut text = String::new();
    for (name, help, time) in [
        ("before", "Begin of the life of the certificate that nginx presents", life.not_before),
        ("after", "End of the life of the certificate that nginx presents", life.not_after),
    ] {
        let name = format!("linnet_host_certificate_not_{name}_seconds");
        gauge(&mut text, &name, &format!("{help}, in seconds since 1970."));
        line(&mut text, &name, "", time);
    }
    text
}

fn deployment(record: &Record) -> String {
    let mut text = String::new();
    gauge(&mut text, "linnet_deployment_open", "1 while a deployment has not ended, otherwise 0.");
    line(&mut text, "linnet_deployment_open", "", u64::from(record.outcome.is_none()));
    gauge(
        &mut text,
        "linnet_deployment_started_seconds",
        "Start of the last deployment, in seconds since 1970.",
    );
    line(&mut text, "linnet_deployment_started_seconds", "", record.started);
    gauge(
        &mut text,
        "linnet_deployment_step_seconds",
        "Start of the last pass of a step, in seconds since 1970.",
    );
    for (index, step) in record.steps.iter().enumerate() {
        let is_last = record.steps.iter().skip(index + 1).all(|later| later.step != step.step);
        if is_last {
            let name = serde_json::to_string(&step.step).unwrap_or_default();
            line(
                &mut text,
                "linnet_deployment_step_seconds",
                &format!("{{step={name}}}"),
                step.started,
            );
        }
    }
    gauge(
        &mut text,
        "linnet_deployment_ended_seconds",
        "End of the last deployment by outcome, in seconds since 1970; 0 for the other outcomes.",
    );
    for (outcome, name) in OUTCOMES {
        let ended = if record.outcome == Some(outcome) { record.ended.unwrap_or(0) } else { 0 };
        line(
            &mut text,
            "linnet_deployment_ended_seconds",
            &format!("{{outcome=\"{name}\"}}"),
            ended,
        );
    }
    text
}

fn gauge(text: &mut String, name: &str, help: &str) {
    // Writing to a string cannot fail.
    let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} gauge");
}

fn line(text: &mut String, name: &str, labels: &str, value: u64) {
    let _ = writeln!(text, "{name}{labels} {value}");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{Step, tests::record};

    #[test]
    fn certificate_has_its_begin_and_its_end() {
        let text = certificate(Life { not_before: 1, not_after: 2 });
        for line in [
            "# TYPE linnet_host_certificate_not_after_seconds gauge",
            "linnet_host_certificate_not_before_seconds 1",
            "linnet_host_certificate_not_after_seconds 2",
        ] {
            assert!(text.lines().any(|found| found == line), "{text}");
        }
    }

    #[test]
    fn each_step_and_each_outcome_has_one_series() {
        let mut record = record(&[Step::Prepare, Step::Canary10, Step::Canary10]);
        record.finish(Outcome::RolledBack, 150);
        let text = deployment(&record);
        assert_eq!(text.matches("step=\"canary10\"").count(), 1);
        assert!(
            text.contains("linnet_deployment_ended_seconds{outcome=\"rolled-back\"} 150\n"),
            "{text}"
        );
        assert!(
            text.contains("linnet_deployment_ended_seconds{outcome=\"succeeded\"} 0\n"),
            "{text}"
        );
        assert!(text.contains("linnet_deployment_open 0\n"));
    }
}
