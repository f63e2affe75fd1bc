//! `apply`: gives the containers of the current release changed settings, and nginx and the stores new images.
//!
//! The configuration is checked in containers of their own before any is replaced, and the service is tried afterwards.

use crate::{
    checks,
    color::Color,
    compose::Compose,
    deploy::STOP_SECONDS,
    docker,
    error::HostError,
    files,
    output::say,
    paths,
    plan::Occupation,
    probe,
    state::State,
    unit::{self, Lock},
};

/// How long the processes, and then nginx, may take until they respond, in seconds.
const READY_SECONDS: u64 = 60;

/// Recreates the containers whose configuration or image has changed, which interrupts them for seconds.
pub fn apply() -> Result<(), HostError> {
    let _locks = (unit::lock_to_prepare()?, unit::lock(Lock::Change)?);
    let state = State::read()?;
    match unit::occupied()? {
        Occupation::Free => {}
        other => return Err(other.refusal()),
    }
    let (Some(mut current), Some(color)) = (state.current()?, state.installation.active) else {
        return Err(HostError::Refused(
            "no release is deployed; run `deploy.sh release` first".to_owned(),
        ));
    };
    checks::settings()?;
    state.write()?;
    let compose = state.compose(&current.id)?;
    let all = compose.services()?;
    let services = services(&all, &state);
    check(&compose, color, services.iter().any(|service| service == "acme"))?;
    let names: Vec<&str> = services.iter().map(String::as_str).collect();
    compose.up(&names, 600)?;
    // The backup sidecar, for example, after backups were turned off.
    let left: Vec<String> =
        docker::services()?.into_iter().filter(|service| !all.contains(service)).collect();
    docker::remove(&left, STOP_SECONDS)?;
    // From now on, the settings that were applied are what was deployed.
    current.config = Some(checks::fingerprint(&state, &current)?);
    files::write_json(files::record_path(&current.id), &current)?;
    let [gateway, shortener] = color.services();
    probe::wait_ready(&[&gateway, &shortener, "worker"], &current.release, READY_SECONDS)?;
    probe::wait_for_nginx(color, &state.config.domain, READY_SECONDS)?;
    say!("all containers have the configuration of {}, and the service responds", current.id);
    Ok(())
}

/// All services but those that run once, and the color that is not deployed.
fn services(all: &[String], state: &State) -> Vec<String> {
    let is_absent = |service: &str| {
        Color::ALL.into_iter().any(|color| {
            state.installation.release_of(color).is_none() && service.ends_with(color.name())
        })
    };
    let stay = |service: &&String| {
        !is_absent(service) && !matches!(service.as_str(), "migrate" | "preflight")
    };
    all.iter().filter(stay).cloned().collect()
}

/// The processes and nginx check their configuration, as they would at their start.
fn check(compose: &Compose, color: Color, has_acme: bool) -> Result<(), HostError> {
    let [gateway, shortener] = color.services();
    let process: &[&str] = &["--check-config"];
    let nginx: &[&str] = &["nginx", "-t", "-g", "daemon off; pid /tmp/nginx.pid;"];
    let acme = has_acme.then_some(("acme", process));
    let processes = [(gateway.as_str(), process), (&shortener, process)];
    for (service, command) in processes.into_iter().chain(acme).chain([("nginx", nginx)]) {
        let run = ["run", "--rm", "--no-deps", "-T", service];
        let run: Vec<&str> = run.into_iter().chain(command.iter().copied()).collect();
        compose.run(&run, 60).map_err(|error| {
            HostError::Refused(format!(
                "the configuration of {service} is not valid, so nothing was restarted; correct {}: {error}",
                paths::SETTINGS
            ))
        })?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{config::HostConfig, installation::Installation};

    #[test]
    fn only_services_of_the_installation_are_recreated() {
        let all =
            ["migrate", "gateway-blue", "gateway-green", "shortener-green", "nginx", "worker"]
                .map(str::to_owned);
        let installation = Installation { green: Some("v1".to_owned()), ..Installation::default() };
        let state = State { config: HostConfig::default(), installation };
        assert_eq!(services(&all, &state), ["gateway-green", "shortener-green", "nginx", "worker"]);
    }
}
