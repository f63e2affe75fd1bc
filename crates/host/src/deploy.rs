//! Runs a deployment, step by step, in the unit `linnet-deploy`.
//!
//! * The record and the installation are written before a step acts, so that every state that a killed process leaves is
//!   one of [`crate::plan`].
//! * A step that fails returns to the old release, and so does a verdict.

use std::{
    thread,
    time::{Duration, Instant},
};

use crate::{
    canary::{Watch, Window},
    checks,
    color::Color,
    compose::CONFIG_SECONDS,
    docker,
    error::HostError,
    files,
    output::say,
    paths,
    plan::{self, Failure, Resume},
    probe::{self, Sockets},
    record::{Images, Outcome, Record, Step, Way},
    state::{State, now, write_record},
    tidy,
};

/// How long a new process may take until it is ready, in seconds.
pub(crate) const READY_SECONDS: u64 = 60;
/// A process drains for 2.5 s and finishes its requests within 15 s; it is killed after this time.
pub(crate) const STOP_SECONDS: u64 = 35;
/// The container of a migration, which continues if its client is killed.
pub(crate) const MIGRATION: &str = "linnet-migrate";
const WARM_LOOK: Duration = Duration::from_secs(3);

/// Seconds for which the old color still stays warm, after a restart of the process that keeps it.
fn warm_left(began: Option<u64>, now: u64, seconds: u64) -> u64 {
    let passed = now.saturating_sub(began.unwrap_or(now));
    seconds.saturating_sub(passed)
}

/// A deployment with the state that it changes.
pub struct Deployment {
    pub(crate) state: State,
    pub(crate) record: Record,
    watch: Option<Watch>,
}

impl Deployment {
    pub(crate) const fn of(state: State, record: Record) -> Self {
        Self { state, record, watch: None }
    }

    /// Starts the deployment of a record. One whose new release serves already, and only keeps the old color warm, ends
    /// first.
    pub fn start(id: &str) -> Result<(), HostError> {
        let mut record = files::read_record(id)?
            .ok_or_else(|| HostError::Refused(format!("there is no record {id}")))?;
        if let Err(error) = Self::end_warm(Some(id)) {
            record.reverting = Some(format!("the deployment before has not ended: {error}"));
            record.finish(Outcome::Failed, now());
            files::write_json(files::record_path(id), &record)?;
            return Err(error);
        }
        let mut state = State::read()?;
        // Which color is free is known only now.
        let active = state.installation.active;
        record.previous.clone_from(&state.installation.current);
        record.way = match (active, record.way) {
            (None, _) => Way::First,
            (Some(_), way) => way,
        };
        record.color = match (active, record.way) {
            (None, _) => Color::Blue,
            (Some(color), Way::InPlace) => color,
            (Some(color), _) => color.other(),
        };
        state.installation.open = Some(record.id.clone());
        write_record(&record)?;
        state.write()?;
        Self::of(state, record).run_from(Step::Prepare)
    }

    /// Ends the open deployment, unless it is that of `id`. Its new release must serve already.
    pub fn end_warm(id: Option<&str>) -> Result<(), HostError> {
        let state = State::read()?;
        match state.open()?.filter(|open| Some(open.id.as_str()) != id) {
            None => Ok(()),
            Some(open) if open.step() < Step::Warm || open.reverting.is_some() => {
                Err(HostError::Interrupted(open.release))
            }
            Some(open) => Self::of(state, open).run_from(Step::Retire),
        }
    }

    /// Continues the open deployment.
    pub fn resume() -> Result<(), HostError> {
        let mut state = State::read()?;
        let open = state.open()?;
        match (plan::resume(open.as_ref()), open) {
            (Resume::Continue(step), Some(record)) => Self::of(state, record).run_from(step),
            (Resume::Revert, Some(record)) => Self::of(state, record).revert(None),
            _ => {
                // A process that was killed at its end has left the note.
                state.installation.open = None;
                say!("no deployment is open");
                state.write()
            }
        }
    }

    pub(crate) fn run_from(mut self, first: Step) -> Result<(), HostError> {
        let mut next = Some(first);
        while let Some(step) = next {
            say!("{}: {}", self.record.release, step.description());
            self.record.begin(step, now());
            let result = write_record(&self.record).and_then(|()| self.act(step));
            let text = result.as_ref().map_or_else(ToString::to_string, Clone::clone);
            self.record.end_step(&text, now());
            if let Err(error) = result.and_then(|_| write_record(&self.record)) {
                return self.fail(step, &error);
            }
            say!("  {text}");
            next = step.next(self.record.way);
        }
        self.finish(Outcome::Succeeded)
    }

    fn act(&mut self, step: Step) -> Result<String, HostError> {
        match step {
            Step::Prepare => self.prepare(),
            Step::Migrate => self.migrate(),
            Step::Start => self.start_color(),
            Step::Smoke => self.smoke(),
            Step::Canary10 | Step::Canary50 => self.canary(step),
            Step::Full => self.full(),
            Step::Follow => self.follow(),
            Step::Warm => self.warm(),
            Step::Retire => self.retire(),
        }
    }

    fn fail(self, step: Step, error: &HostError) -> Result<(), HostError> {
        match plan::after_failure(step) {
            Failure::Return => self.revert(Some(&error.to_string())),
            Failure::Stop => {
                if let Err(error) = write_record(&self.record) {
                    say!("warning: {error}");
                }
                let text = format!(
                    "the deployment of {} has not ended: {error}; `deploy.sh resume` repeats its last step",
                    self.record.release
                );
                say!("{text}");
                Err(HostError::Step(text))
            }
        }
    }

    fn services(&self) -> [String; 2] {
        self.record.color.services()
    }

    fn prepare(&self) -> Result<String, HostError> {
        checks::generate_secrets(&self.record.id)?;
        checks::before(&self.state, &self.record)?;
        let compose = self.state.compose(&self.record.id)?;
        compose.run(&["config", "--quiet"], CONFIG_SECONDS)?;
        Ok("memory, disk, secrets and configuration are in order".to_owned())
    }

    /// With the image of the new release, while the old one continues to use the schema.
    fn migrate(&self) -> Result<String, HostError> {
        let compose = self.state.compose(&self.record.id)?;
        let image = format!("LINNET_SHORTENER_IMAGE={}", self.record.images.shortener);
        // One whose client was killed continues by itself.
        docker::remove_by_name(MIGRATION);
        let run = ["run", "--rm", "--no-deps", "-T", "--name", MIGRATION, "migrate"];
        let result = compose.run_with(&image, &run, 900);
        docker::remove_by_name(MIGRATION);
        result.map_err(|error| {
            HostError::Step(format!(
                "the migration did not complete; its completed parts stay, and the old release works with them: {error}"
            ))
        })?;
        Ok("the schema is migrated".to_owned())
    }

    fn start_color(&mut self) -> Result<String, HostError> {
        self.state.installation.set_release(self.record.color, Some(self.record.id.clone()));
        let is_first = self.record.way == Way::First;
        if is_first {
            self.state.installation.worker = Some(self.record.id.clone());
        }
        self.state.write()?;
        let compose = self.state.compose(&self.record.id)?;
        let services = self.services();
        let names = services.each_ref().map(String::as_str);
        if is_first {
            if let Some(options) = &self.record.restore {
                self.state.restore(&self.record.id, options, None)?;
                // `resume` must not restore again: it would discard what was written since.
                self.record.restore = None;
                write_record(&self.record)?;
            }
            compose.run(&["up", "--detach", "--no-build"], 600)?;
        } else {
            compose.up(&names, 180)?;
        }
        probe::wait_ready(&names, &self.record.release, READY_SECONDS)?;
        Ok(format!("{} reports {}", self.record.color, self.record.release))
    }

    fn smoke(&self) -> Result<String, HostError> {
        let host = &self.state.config.domain;
        let new = Sockets::of(self.record.color, host)?;
        let has_other = matches!(self.record.way, Way::Canary | Way::Return);
        let old =
            if has_other { Some(Sockets::of(self.record.color.other(), host)?) } else { None };
        let passed = new.smoke_test(old.as_ref())?;
        probe::reach_from_nginx(self.record.color, host)?;
        Ok(format!("{passed} requests returned what they should"))
    }

    fn watch(&mut self) -> Result<&mut Watch, HostError> {
        let watch = match self.watch.take() {
            Some(watch) => watch,
            None => Watch::start(self.record.color, self.record.step())?,
        };
        Ok(self.watch.insert(watch))
    }

    fn canary(&mut self, step: Step) -> Result<String, HostError> {
        let color = self.record.color;
        self.watch()?;
        docker::set_slots(color, step.slots())?;
        let config = self.state.config.clone();
        self.watch()?.step(step, &config)
    }

    fn full(&mut self) -> Result<String, HostError> {
        let color = self.record.color;
        let is_canary = self.record.way == Way::Canary;
        if is_canary {
            self.watch()?;
        }
        docker::set_slots(color, 10)?;
        self.state.installation.active = Some(color);
        self.state.write()?;
        let text = if is_canary {
            let config = self.state.config.clone();
            self.watch()?.step(Step::Full, &config)?
        } else {
            format!("{color} serves all requests")
        };
        self.note_current()?;
        Ok(text)
    }

    /// The release counts as current once it serves.
    fn note_current(&mut self) -> Result<(), HostError> {
        let previous = self.record.previous.as_deref();
        files::link_releases(paths::LINKS, Some(&self.record.id), previous)?;
        self.state.installation.current = Some(self.record.id.clone());
        self.state.installation.active = Some(self.record.color);
        self.state.write()
    }

    fn follow(&mut self) -> Result<String, HostError> {
        if matches!(self.record.way, Way::First | Way::InPlace) {
            self.note_current()?;
        }
        self.state.installation.worker = Some(self.record.id.clone());
        self.state.write()?;
        let id = self.record.id.clone();
        let names = self.start_followers(&id)?;
        probe::wait_ready(&["worker"], &self.record.release, READY_SECONDS)?;
        Ok(format!("{} follow the release", names.join(", ")))
    }

    /// Replaces what has one instance, by that of the release. It returns the names. A sidecar for which the release has no
    /// image, because the server got it later, continues as it is.
    pub(crate) fn start_followers(&mut self, id: &str) -> Result<Vec<&'static str>, HostError> {
        let images = files::read_record(id)?.map(|record| record.images);
        let sidecars = images.as_ref().map(Images::sidecars).unwrap_or_default();
        let compose = self.state.compose(id)?;
        let services = compose.services()?;
        let mut names = vec!["worker"];
        names.extend(sidecars.into_iter().filter(|name| services.iter().any(|all| all == name)));
        self.state.installation.note_sidecars(&names, id);
        self.state.write()?;
        compose.up(&names, 120)?;
        Ok(names)
    }

    fn warm(&mut self) -> Result<String, HostError> {
        let seconds = self.state.config.warm_seconds;
        let began = self
            .record
            .steps
            .iter()
            .filter(|step| step.step == Step::Warm)
            .map(|step| step.started)
            .min();
        let left = warm_left(began, now(), seconds);
        // Not the wall clock, which may be set meanwhile.
        let end = Instant::now() + Duration::from_secs(left);
        let host = self.state.config.domain.clone();
        let watch = self.watch()?;
        let mut window = Window::of(watch);
        while Instant::now() < end {
            if let Some(reason) = watch.warm_look(&mut window, &host) {
                return Err(HostError::Step(reason));
            }
            thread::sleep(WARM_LOOK);
        }
        Ok(format!("the old color was kept for {seconds} s"))
    }

    fn retire(&mut self) -> Result<String, HostError> {
        let old = self.record.color.other();
        // A return whose record could not be written may have moved them.
        if plan::lead_to(&docker::slots(&[])?, old) {
            return Err(HostError::Step(format!(
                "{old} has requests, so it is not removed; complete the return with `deploy.sh rollback`"
            )));
        }
        docker::remove(&old.services(), STOP_SECONDS)?;
        self.state.installation.set_release(old, None);
        self.state.write()?;
        Ok(format!("{old} is removed"))
    }

    pub(crate) fn finish(mut self, outcome: Outcome) -> Result<(), HostError> {
        self.record.config = checks::fingerprint(&self.state, &self.record).ok();
        self.record.finish(outcome, now());
        write_record(&self.record)?;
        self.state.installation.open = None;
        self.state.write()?;
        tidy::tidy(&self.state);
        match outcome {
            Outcome::Succeeded => {
                checks::install_program(&self.record.id)?;
                say!("{} is deployed", self.record.release);
                Ok(())
            }
            Outcome::RolledBack | Outcome::Failed => {
                let reason = self.record.reverting.unwrap_or_default();
                Err(HostError::Step(format!("{} was not deployed: {reason}", self.record.release)))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn warm_time_continues_after_a_restart_and_never_grows() {
        assert_eq!(warm_left(Some(100), 100, 600), 600);
        assert_eq!(warm_left(Some(100), 400, 600), 300);
        assert_eq!(warm_left(Some(100), 9000, 600), 0);
        // The clock was set back.
        assert_eq!(warm_left(Some(100), 50, 600), 600);
        assert_eq!(warm_left(None, 50, 600), 600);
    }
}
