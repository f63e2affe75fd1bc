//! `status`, `follow` and `check`: what the server does, in words.

use std::{fmt::Write as _, path::Path};

use crate::{
    checks,
    color::Color,
    command::run,
    docker,
    error::HostError,
    files, metrics, paths,
    plan::Occupation,
    record::{Outcome, Record, Step},
    restore,
    state::{self, State, now},
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
    print!("{text}");
    Ok(())
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
    println!("{value}");
    Ok(())
}

/// Prints the journal of the unit until the deployment ends or only keeps its old color warm. Its output ending early, as
/// when the client disconnects, does not affect the deployment.
pub fn follow(id: Option<&str>) -> Result<(), HostError> {
    let state = State::read()?;
    let id = match (id, unit::occupied()?) {
        (Some(id), _) => id.to_owned(),
        (None, Occupation::Restoring) => return restore::follow(0),
        (None, _) => state
            .installation
            .open
            .ok_or_else(|| HostError::Refused("no deployment is open".to_owned()))?,
    };
    unit::follow_journal(|| {
        let is_warm = files::read_record(&id)?
            .is_some_and(|record| record.step() == Step::Warm && record.reverting.is_none());
        Ok(is_warm || !unit::is_active())
    })?;
    end_of(files::read_record(&id)?.as_ref())
}

fn end_of(record: Option<&Record>) -> Result<(), HostError> {
    let Some(record) = record else {
        return Err(HostError::Refused("the record is missing".to_owned()));
    };
    match record.outcome {
        Some(Outcome::Succeeded) => Ok(()),
        None if record.step() == Step::Warm && record.reverting.is_none() => {
            println!(
                "{} serves all requests; the old color stays for a fast rollback",
                record.release
            );
            Ok(())
        }
        Some(Outcome::RolledBack | Outcome::Failed) => Err(HostError::Step(format!(
            "{} was not deployed: {}",
            record.release,
            record.reverting.as_deref().unwrap_or("see `journalctl -u linnet-deploy`")
        ))),
        None => Err(HostError::Interrupted(record.release.clone())),
    }
}

/// Prints what differs from what was deployed, and fails if anything does.
pub fn check() -> Result<(), HostError> {
    let state = State::read()?;
    let mut differences = Vec::new();
    // Both outputs, whole: each line is a difference.
    let script = "text=$(\"$0\" --check 2>&1); code=$?; [ $code = 0 ] || printf '%s\\nexit %s\\n' \"$text\" $code";
    differences.extend(differences_of(&run("sh", &["-c", script, paths::INIT], 120)?));
    differences.extend(state.config.unknown.keys().map(|name| {
        format!("{} has the unknown setting {name}; correct its name or remove it", paths::CONFIG)
    }));
    differences.extend(state::settings()?.problems);
    for mount in docker::mounts()? {
        if !Path::new(&mount.source).exists() {
            differences.push(format!(
                "{} has {} mounted, which is missing, so it cannot start again; run `deploy.sh apply`",
                mount.service, mount.source
            ));
        }
    }
    if state.open()?.is_none()
        && let Some(current) = state.current()?
    {
        differences.extend(container_differences(&state)?);
        let now = checks::fingerprint(&state, &current)?;
        if current.config.as_ref().is_some_and(|config| *config != now) {
            differences.push(format!(
                "the configuration of {} has changed since it was deployed (settings or Compose files)",
                current.release
            ));
        }
    }
    metrics::write_drift(differences.len(), now())?;
    if differences.is_empty() {
        println!("nothing differs from what was deployed");
        return Ok(());
    }
    for difference in &differences {
        println!("{difference}");
    }
    Err(HostError::Refused(format!(
        "{} differences; `deploy.sh init` and `deploy.sh apply` restore what was deployed",
        differences.len()
    )))
}

/// The lines of `linnet-init --check`. Its last one is the exit code if it is not 0.
fn differences_of(text: &str) -> Vec<String> {
    let mut lines: Vec<String> =
        text.lines().filter(|line| !line.is_empty()).map(str::to_owned).collect();
    // Beside other lines, the code adds nothing.
    if lines.len() > 1 && lines.last().is_some_and(|line| line.starts_with("exit ")) {
        lines.pop();
    }
    lines
}

fn container_differences(state: &State) -> Result<Vec<String>, HostError> {
    let mut differences = Vec::new();
    for color in Color::ALL {
        let record = match state.installation.release_of(color) {
            Some(id) => files::read_record(id)?,
            None => None,
        };
        let [gateway, shortener] = color.services();
        let wanted = |service: &str| {
            let images = record.as_ref().map(|record| &record.images)?;
            Some(if service.starts_with("gateway") { &images.gateway } else { &images.shortener })
        };
        for service in [gateway, shortener] {
            let found = docker::container(&service)?;
            match (wanted(&service), found) {
                (None, None) => {}
                (None, Some(_)) => {
                    differences.push(format!("{service} runs although its color is not deployed"));
                }
                (Some(_), None) => differences.push(format!("{service} has no container")),
                (Some(image), Some(container)) => {
                    let id = run("docker", &["image", "inspect", "--format", "{{.Id}}", image], 15)
                        .unwrap_or_default();
                    if id != container.image {
                        differences.push(format!("{service} runs another image than {image}"));
                    }
                    if !container.is_running {
                        differences.push(format!("{service} is not running"));
                    }
                }
            }
        }
    }
    Ok(differences)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_line_of_the_comparison_is_a_difference() {
        let many = "not as prepared: write /etc/a\n".repeat(100) + "exit 1";
        assert_eq!(differences_of(&many).len(), 100);
        assert_eq!(differences_of("\nexit 127"), ["exit 127"]);
        assert!(differences_of("").is_empty());
    }
}
