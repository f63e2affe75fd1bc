//! Metrics of deployments and of drift, as files that node-exporter reads.

use std::fmt::Write as _;

use crate::{
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
