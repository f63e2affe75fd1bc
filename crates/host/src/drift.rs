//! `check`: what differs from what was prepared and deployed.

use std::{collections::BTreeMap, path::Path};

use serde_json::Value;

use crate::{
    certificate, checks,
    color::Color,
    command::run,
    docker::{self, Container},
    error::HostError,
    installation::Installation,
    metrics,
    output::say,
    paths,
    state::{self, State, now},
};

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
    let settings = state::settings()?;
    differences.extend_from_slice(&settings.problems);
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
        let wanted = wanted(&state.compose(&current.id)?.configuration()?);
        differences.extend(differences_of_services(&state.installation, &wanted, &found(&wanted)?));
        let now = checks::fingerprint(&state, &current)?;
        if current.config.as_ref().is_some_and(|config| *config != now) {
            differences.push(format!(
                "the configuration of {} has changed since it was deployed (settings or Compose files)",
                current.release
            ));
        }
    }
    if state.config.tls && state.installation.current.is_some() {
        match certificate::served(settings.own_address(), &state.config.domain) {
            Ok(life) => metrics::write_certificate(life)?,
            Err(error) => differences.push(error.to_string()),
        }
    }
    metrics::write_drift(differences.len(), now())?;
    if differences.is_empty() {
        say!("nothing differs from what was deployed");
        return Ok(());
    }
    for difference in &differences {
        say!("{difference}");
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

/// The image of each service that runs all the time, by Compose's configuration.
fn wanted(configuration: &Value) -> BTreeMap<String, String> {
    let services = configuration.get("services").and_then(Value::as_object);
    services
        .into_iter()
        .flatten()
        .filter(|(service, _)| !matches!(service.as_str(), "migrate" | "preflight"))
        .map(|(service, value)| {
            let image = value.get("image").and_then(Value::as_str).unwrap_or_default();
            (service.clone(), image.to_owned())
        })
        .collect()
}

/// A service's container, and the id of the image that it should have.
struct Found {
    container: Option<Container>,
    image: String,
}

/// The containers of these services, and of those that have one besides.
fn found(wanted: &BTreeMap<String, String>) -> Result<BTreeMap<String, Found>, HostError> {
    let mut names = docker::services()?;
    names.extend(wanted.keys().cloned());
    names
        .into_iter()
        .filter(|service| !matches!(service.as_str(), "migrate" | "preflight"))
        .map(|service| {
            let image = wanted.get(&service).map_or("", String::as_str);
            // One that is not here is not that of the container.
            let image = docker::image_id(image).unwrap_or_default();
            Ok((service.clone(), Found { container: docker::container(&service)?, image }))
        })
        .collect()
}

fn differences_of_services(
    installation: &Installation,
    wanted: &BTreeMap<String, String>,
    found: &BTreeMap<String, Found>,
) -> Vec<String> {
    let is_absent = |service: &str| {
        Color::ALL.into_iter().any(|color| {
            installation.release_of(color).is_none()
                && color.services().iter().any(|name| name == service)
        })
    };
    let difference = |(service, found): (&String, &Found)| {
        let image = wanted.get(service).filter(|_| !is_absent(service));
        match (image, &found.container) {
            (None, Some(_)) => Some(format!(
                "{service} has a container although it is not deployed, or the settings do not select it"
            )),
            (Some(_), None) => Some(format!("{service} has no container")),
            (Some(_), Some(container)) if !container.is_running => {
                Some(format!("{service} is not running"))
            }
            (Some(image), Some(container)) if container.image != found.image => {
                Some(format!("{service} runs another image than {image}"))
            }
            _ => None,
        }
    };
    found.iter().filter_map(difference).collect()
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

    #[test]
    fn each_service_is_compared_also_stores_and_those_that_are_turned_off() {
        let configuration = serde_json::json!({"services": {
            "migrate": {"image": "s"}, "gateway-blue": {"image": "g"}, "gateway-green": {"image": "g"},
            "nginx": {"image": "n"}, "redis": {"image": "r"}, "postgres": {"image": "p"}, "worker": {"image": "s"},
        }});
        let wanted = wanted(&configuration);
        assert!(!wanted.contains_key("migrate") && wanted["nginx"] == "n");
        let running = |image: &str| Container {
            is_running: true,
            image: image.to_owned(),
            ..Container::default()
        };
        let stopped = Container { is_running: false, ..running("sha256:r") };
        let found = [
            ("gateway-blue", Some(running("sha256:g")), "sha256:g"),
            ("gateway-green", None, "sha256:g"),
            ("nginx", Some(running("sha256:old")), "sha256:n"),
            ("redis", Some(stopped), "sha256:r"),
            ("postgres", None, "sha256:p"),
            ("worker", Some(running("sha256:s")), "sha256:s"),
            ("backup", Some(running("sha256:b")), ""),
        ]
        .into_iter()
        .map(|(service, container, image)| {
            (service.to_owned(), Found { container, image: image.to_owned() })
        })
        .collect();
        let installation = Installation { blue: Some("v1".to_owned()), ..Installation::default() };
        assert_eq!(
            differences_of_services(&installation, &wanted, &found),
            [
                "backup has a container although it is not deployed, or the settings do not select it",
                "nginx runs another image than n",
                "postgres has no container",
                "redis is not running",
            ]
        );
    }
}
