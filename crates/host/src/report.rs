//! `status` and `follow`: what the server does, in words.

use std::fmt::Write as _;

use crate::{
    color::Color,
    command::run,
    docker,
    error::HostError,
    files,
    output::say,
    plan::Occupation,
    record::{Outcome, Record, Step},
    restore,
    state::{State, now},
    unit,
};

/// Prints what serves, what is open and what ends it.
pub fn status() -> Result<(), HostError> {
    let state = State::read()?;
    let mut text = String::new();
    match state.current()? {
        Some(current) => {
            let color = state.installation.active.map_or("no color", Color::name);
            // Writing to a string cannot fail.
            let _ = writeln!(
                text,
                "release   {} ({color}), deployed by {}",
                current.release, current.by
            );
            if let Some(previous) = &current.previous {
                let _ = writeln!(text, "before    {previous}");
            }
        }
        None => text.push_str("release   none; deploy one with `deploy.sh release`\n"),
    }
    for color in Color::ALL {
        if let Some(release) = state.installation.release_of(color) {
            let ready = if crate::probe::is_color_ready(color) { "ready" } else { "NOT ready" };
            let _ = writeln!(text, "{color:<9} {release}, {ready}");
        }
    }
    if let Ok(slots) = docker::slots(&[]) {
        for line in slots.lines() {
            let _ = writeln!(text, "slots     {line}");
        }
    }
    text += &sidecars();
    if let Some(open) = state.open()? {
        text += &describe_open(&open, unit::is_active());
    }
    match unit::occupied()? {
        Occupation::Restoring => text.push_str("restore   it is running\n"),
        Occupation::RestoreInterrupted => text.push_str(
            "restore   it was interrupted, and the service may be stopped; run `deploy.sh resume`, or repeat it\n",
        ),
        _ => {}
    }
    say!("{}", text.trim_end());
    Ok(())
}

/// The state of the certificate and of the backups, as the sidecars report it.
fn sidecars() -> String {
    let mut text = String::new();
    for (service, program) in [("acme", "/linnet-acme"), ("backup", "linnet-backup")] {
        let Ok(Some(container)) = docker::container(service) else { continue };
        // Both fail if something is wrong, after they have printed it. The repository may not respond.
        let script = "timeout 20 docker exec \"$0\" \"$1\" status 2>&1 || true";
        let report = if container.is_running {
            run("sh", &["-c", script, &container.id, program], 30).unwrap_or_default()
        } else {
            "error: it is not running; `deploy.sh apply` starts it".to_owned()
        };
        for line in main_lines(&report) {
            let _ = writeln!(text, "{service:<9} {line}");
        }
    }
    text
}

/// Of a sidecar's report, the lines for an overview. The last line of the one of backups is the newest backup.
fn main_lines(report: &str) -> Vec<&str> {
    let starts = [
        "certificate",
        "left",
        "missing",
        "last failure",
        "WAL that waits",
        "restore test",
        "error:",
    ];
    let mut lines: Vec<&str> =
        report.lines().filter(|line| starts.iter().any(|start| line.starts_with(start))).collect();
    if let Some((_, backups)) = report.split_once("BACKUP ") {
        lines.push(backups.lines().skip(1).last().unwrap_or("no backup yet"));
    }
    lines
}

fn describe_open(open: &Record, is_running: bool) -> String {
    let mut text = String::new();
    let step = open.step();
    let _ = writeln!(
        text,
        "open      {} since {} s: {}",
        open.release,
        now().saturating_sub(open.started),
        step.description()
    );
    for passed in &open.steps {
        let result = passed.result.as_deref().unwrap_or("not finished");
        let _ = writeln!(text, "          {:?}: {result}", passed.step);
    }
    let next = match (is_running, open.reverting.as_deref()) {
        (true, Some(reason)) => format!("it is returning to the old release: {reason}"),
        (true, None) if step == Step::Warm => {
            "the new release serves; `deploy.sh rollback` returns within seconds".to_owned()
        }
        (true, None) => "it is running; `deploy.sh rollback` ends it".to_owned(),
        (false, Some(_)) => "it was interrupted while returning; run `deploy.sh resume`".to_owned(),
        (false, None) => format!(
            "it was interrupted, {} of 10 slots lead to the new release; run `deploy.sh resume` or `deploy.sh rollback`",
            step.slots()
        ),
    };
    let _ = writeln!(text, "next      {next}");
    text
}

/// Prints the state and the last records as JSON, for the pipeline.
pub fn status_json() -> Result<(), HostError> {
    let state = State::read()?;
    let value = serde_json::json!({
        "installation": state.installation,
        "current": state.current()?,
        "open": state.open()?,
        "running": unit::is_active(),
        "restoring": state.is_restore_open(),
    });
    say!("{value}");
    Ok(())
}

/// Prints the journal of the unit, from `since` in seconds since 1970, until the deployment ends or only keeps its old color
/// warm. Its output ending early, as when the client disconnects, does not affect the deployment.
pub fn follow(id: Option<&str>, since: u64) -> Result<(), HostError> {
    let state = State::read()?;
    let id = match (id, unit::occupied()?) {
        (Some(id), _) => id.to_owned(),
        (None, Occupation::Restoring) => return restore::follow(None),
        (None, _) => state
            .installation
            .open
            .ok_or_else(|| HostError::Refused("no deployment is open".to_owned()))?,
    };
    unit::follow_journal(since, || {
        let is_warm = files::read_record(&id)?
            .is_some_and(|record| record.step() == Step::Warm && record.reverting.is_none());
        Ok(is_warm || !unit::is_active())
    })?;
    let is_open = State::read()?.installation.open.as_deref() == Some(&id);
    end_of(files::read_record(&id)?.as_ref(), is_open)
}

/// `is_open`: the installation names the record as the one that has not ended.
fn end_of(record: Option<&Record>, is_open: bool) -> Result<(), HostError> {
    let Some(record) = record else {
        return Err(HostError::Refused("the record is missing".to_owned()));
    };
    match record.outcome {
        Some(Outcome::Succeeded) => Ok(()),
        None if record.step() == Step::Warm && record.reverting.is_none() => {
            say!("{} serves all requests; the old color stays for a fast rollback", record.release);
            Ok(())
        }
        Some(Outcome::RolledBack | Outcome::Failed) => Err(HostError::Step(format!(
            "{} was not deployed: {}",
            record.release,
            record.reverting.as_deref().unwrap_or("see `journalctl -u linnet-deploy`")
        ))),
        // As with a full disk: `resume` would find nothing to continue.
        None if !is_open => Err(HostError::Step(format!(
            "the deployment of {} did not begin, and nothing was changed; `journalctl -u linnet-deploy` has the reason",
            record.release
        ))),
        None => Err(HostError::Interrupted(record.release.clone())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::tests::record;

    #[test]
    fn deployment_that_did_not_begin_is_not_called_interrupted() {
        let unstarted = record(&[]);
        assert!(matches!(end_of(Some(&unstarted), true), Err(HostError::Interrupted(_))));
        let error = end_of(Some(&unstarted), false).unwrap_err();
        assert!(error.to_string().contains("did not begin, and nothing was changed"), "{error}");
        assert_eq!(error.exit_code(), 1);
        assert!(end_of(Some(&record(&[Step::Warm])), true).is_ok());
    }

    #[test]
    fn overview_has_the_certificate_the_last_failure_and_the_newest_backup() {
        let acme = "certificate   v-2: go.example.com\nissuer        R11\nleft          60 days, 67 % of its life\n\
                    last failure  dns\ndirectory     https://x\n";
        assert_eq!(main_lines(acme).len(), 3);
        let backup = "WAL that waits: 0 segment(s), 0 KiB\nrestore test: none yet\nnewest WAL segment: none\nBACKUP KIND\n";
        assert_eq!(main_lines(backup).last(), Some(&"no backup yet"));
        let backup = backup.to_owned() + "20261127F full\n20261128D differential\n";
        assert_eq!(main_lines(&backup).last(), Some(&"20261128D differential"));
        assert_eq!(
            main_lines("error: the repository cannot be reached"),
            ["error: the repository cannot be reached"]
        );
    }
}
