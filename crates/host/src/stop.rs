//! `stop`: ends the service on this server, so that another one can take its place without losing a change.

use crate::{
    deploy::STOP_SECONDS,
    docker,
    error::HostError,
    output::say,
    plan::Occupation,
    state::State,
    unit::{self, Lock},
};

/// PostgreSQL writes all its changed pages before it ends, in seconds.
const DATABASE_SECONDS: u64 = 120;
/// How long the sidecar may take to push the last segments, in seconds.
const DRAIN_SECONDS: u64 = 660;

/// Stops what writes, then PostgreSQL, which archives its last changes, and the rest once the repository has them.
pub fn stop() -> Result<(), HostError> {
    let _locks = (unit::lock_to_prepare()?, unit::lock(Lock::Change)?);
    let state = State::read()?;
    match unit::occupied()? {
        Occupation::Free => {}
        other => return Err(other.refusal()),
    }
    let mut all: Vec<String> = docker::services()?.into_iter().collect();
    let writers: Vec<String> = all.iter().filter(|service| writes(service)).cloned().collect();
    say!("stopping {}", writers.join(", "));
    docker::stop(&writers, STOP_SECONDS)?;
    say!("stopping postgres");
    docker::stop(&["postgres".to_owned()], DATABASE_SECONDS)?;
    let current = state.installation.current.as_deref();
    if let Some(current) = current.filter(|_| all.iter().any(|service| service == "backup")) {
        say!("pushing the last changes to the repository");
        let drain = ["run", "--rm", "--no-deps", "-T", "backup", "drain"];
        state.compose(current)?.run(&drain, DRAIN_SECONDS).map_err(|error| {
            HostError::Step(format!(
                "the service is stopped, and the repository does not have its last changes; repeat this, or start the service \
                 with `deploy.sh apply`: {error}"
            ))
        })?;
    }
    all.retain(|service| !writers.contains(service) && service != "postgres");
    docker::stop(&all, STOP_SECONDS)?;
    say!("everything is stopped, and stays so after a restart; `deploy.sh apply` starts it");
    Ok(())
}

/// Whether the service writes to PostgreSQL.
fn writes(service: &str) -> bool {
    ["gateway", "shortener", "worker"].iter().any(|name| service.starts_with(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_writes_stops_before_the_database() {
        for service in ["gateway-blue", "shortener-green", "worker"] {
            assert!(writes(service), "{service}");
        }
        for service in ["postgres", "backup", "nginx", "redis", "migrate"] {
            assert!(!writes(service), "{service}");
        }
    }
}
