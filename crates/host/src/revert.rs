//! The way back to the old release. Each part can be repeated, so `resume` completes an interrupted return.

use std::{collections::BTreeMap, thread, time::Duration};

use crate::{
    compose::Compose,
    deploy::{Deployment, MIGRATION, READY_SECONDS, STOP_SECONDS},
    docker,
    error::HostError,
    files,
    output::say,
    paths,
    plan::{self, OPERATOR, Rollback, WayBack, way_back},
    probe,
    record::{Outcome, Record, Way},
    state::{State, now, write_record},
};

/// A color that is given up may hang, so it is killed after this time, in seconds.
const GIVEN_UP_SECONDS: u64 = 15;
/// How long Docker may be unavailable, for example while it restarts.
const DOCKER_SECONDS: u64 = 60;
/// Between the last request that nginx sends to a color and its end.
const AFTER_SWAP: Duration = Duration::from_millis(500);

/// A healthy color finishes its requests and writes its clicks.
fn stop_seconds(reason: Option<&str>) -> u64 {
    if reason == Some(OPERATOR) { STOP_SECONDS } else { GIVEN_UP_SECONDS }
}

/// Points the links of releases to the one that serves again, and to the one before it.
fn link_to(release: &str) -> Result<(), HostError> {
    let before = files::read_record(release)?.and_then(|record| record.previous);
    files::link_releases(paths::LINKS, Some(release), before.as_deref())
}

impl Deployment {
    /// Returns to the release before.
    pub fn rollback() -> Result<(), HostError> {
        let state = State::read()?;
        let (open, current) = (state.open()?, state.current()?);
        match (plan::rollback(&state.installation, open.as_ref(), current.as_ref()), open) {
            (Rollback::Revert, Some(record)) => {
                Self::of(state, record).revert(Some(plan::OPERATOR))
            }
            (Rollback::Cold(previous), _) => {
                Self::return_to(&previous, plan::way_of_return(current.as_ref()))
            }
            (Rollback::Nothing(reason), _) => {
                Err(HostError::Refused(format!("cannot roll back: {reason}")))
            }
            (Rollback::Revert, None) => Err(HostError::Refused("no deployment is open".to_owned())),
        }
    }

    /// Deploys an earlier release whose images are still here, without a canary.
    fn return_to(previous: &str, way: Way) -> Result<(), HostError> {
        let old = files::read_record(previous)?
            .ok_or_else(|| HostError::Refused(format!("the record of {previous} is missing")))?;
        let record = Record {
            id: plan::id_of_return(previous, now()),
            way,
            by: plan::ROLLBACK.to_owned(),
            started: now(),
            ended: None,
            steps: Vec::new(),
            reverting: None,
            outcome: None,
            restore: None,
            ..old
        };
        let folder = |id: &str| format!("{}/{id}", paths::RELEASES);
        files::link_folder(folder(&record.id), folder(previous))?;
        write_record(&record)?;
        Self::start(&record.id)
    }

    /// Returns to the old release. Each part can be repeated, so an interrupted return is completed by `resume`.
    pub(crate) fn revert(mut self, reason: Option<&str>) -> Result<(), HostError> {
        if let Some(reason) = reason {
            say!("returning to the old release: {reason}");
            self.record.reverting = Some(reason.to_owned());
        }
        // The disk may be full, perhaps because of the new release. The way back must not end there.
        if let Err(error) = write_record(&self.record) {
            say!("warning: {error}");
        }
        let running = docker::running_once_available(DOCKER_SECONDS);
        let has_served = self.record.has_served();
        match (self.record.way, self.record.previous.clone()) {
            (Way::First, _) | (_, None) => self.revert_first(),
            (Way::InPlace, Some(previous)) => self.revert_in_place(&previous)?,
            (Way::Canary | Way::Return, Some(previous)) => {
                self.revert_color(&previous, &running)?;
            }
        }
        docker::remove_by_name(MIGRATION);
        let outcome = if has_served { Outcome::RolledBack } else { Outcome::Failed };
        self.finish(outcome)
    }

    /// There is no release to return to: what was started is removed. Volumes stay.
    fn revert_first(&mut self) {
        let compose = self.state.compose(&self.record.id);
        let down = |compose: Compose| compose.run(&["down", "--timeout", "20"], 120);
        if let Err(error) = compose.and_then(down) {
            say!("warning: {error}");
        }
        let installation = &mut self.state.installation;
        (installation.active, installation.blue, installation.worker) = (None, None, None);
        (installation.acme, installation.backup, installation.current) = (None, None, None);
        // `deploy.sh restore` takes a server without the link as one without a release.
        if let Err(error) = files::link_releases(paths::LINKS, None, None) {
            say!("warning: {error}");
        }
    }

    fn revert_color(
        &mut self,
        previous: &str,
        running: &BTreeMap<String, String>,
    ) -> Result<(), HostError> {
        let (new, old) = (self.record.color, self.record.color.other());
        let has_served = self.record.has_served();
        let moves_slots = || {
            let nginx = running.get("nginx");
            nginx.is_some_and(|id| docker::slots_of(id, &[old.name(), "10"]).is_ok())
        };
        // Each call of Docker takes time in which visitors get the new release.
        let slots = if has_served { String::new() } else { docker::slots(&[]).unwrap_or_default() };
        let is_old_running = old.services().iter().all(|service| running.contains_key(service));
        match way_back(has_served, &slots, new, is_old_running) {
            WayBack::Leave => {}
            WayBack::Slots if moves_slots() => {
                say!("  {old} serves all requests again");
            }
            WayBack::Slots | WayBack::Start => {
                self.ensure_old(previous)?;
                docker::set_slots(old, 10)?;
                say!("  {old} serves all requests again");
            }
        }
        // From here on, `resume` must find the decision.
        write_record(&self.record)?;
        let installation = &mut self.state.installation;
        installation.active = Some(old);
        installation.current = Some(previous.to_owned());
        let worker_follows = installation.worker.as_deref() == Some(self.record.id.as_str());
        if worker_follows {
            installation.worker = Some(previous.to_owned());
        }
        self.state.write()?;
        link_to(previous)?;
        if worker_follows {
            self.start_followers(previous)?;
        }
        thread::sleep(AFTER_SWAP);
        docker::remove(&new.services(), stop_seconds(self.record.reverting.as_deref()))?;
        self.state.installation.set_release(new, None);
        self.state.write()
    }

    /// The old color may have died meanwhile, for example with the server.
    fn ensure_old(&mut self, previous: &str) -> Result<(), HostError> {
        let old = self.record.color.other();
        if probe::is_color_ready(old) {
            return Ok(());
        }
        let record = files::read_record(previous)?
            .ok_or_else(|| HostError::Refused(format!("the record of {previous} is missing")))?;
        self.state.installation.set_release(old, Some(previous.to_owned()));
        self.state.write()?;
        let services = old.services();
        let names = services.each_ref().map(String::as_str);
        self.state.compose(previous)?.up(&names, 120)?;
        probe::wait_ready(&names, &record.release, READY_SECONDS)
    }

    fn revert_in_place(&mut self, previous: &str) -> Result<(), HostError> {
        let color = self.record.color;
        let record = files::read_record(previous)?
            .ok_or_else(|| HostError::Refused(format!("the record of {previous} is missing")))?;
        let installation = &mut self.state.installation;
        installation.set_release(color, Some(previous.to_owned()));
        installation.worker = Some(previous.to_owned());
        installation.current = Some(previous.to_owned());
        self.state.write()?;
        link_to(previous)?;
        let services = color.services();
        let names = services.each_ref().map(String::as_str);
        self.state.compose(previous)?.up(&names, 180)?;
        self.start_followers(previous)?;
        probe::wait_ready(&names, &record.release, READY_SECONDS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_color_that_is_bad_is_killed_early() {
        assert_eq!(stop_seconds(Some(OPERATOR)), STOP_SECONDS);
        assert_eq!(stop_seconds(Some("5 of 20 redirects failed")), GIVEN_UP_SECONDS);
    }
}
