//! One step of the canary: watches both colors until the verdict.

use std::{
    thread,
    time::{Duration, Instant},
};

use crate::{
    color::Color,
    config::HostConfig,
    counters::Counters,
    error::HostError,
    probe::{self, Observed, Sockets},
    record::Step,
    verdict::{Limits, Observation, Phase, Verdict, decide},
};

const LOOK: Duration = Duration::from_secs(1);
/// How many looks in a row may find no counters.
const LOOKS_WITHOUT_DATA: u32 = 4;
/// The cold start of a cache makes the first requests slow: latency counts after this time.
const COLD: Duration = Duration::from_secs(4);
/// Rounds of synthetic requests for a step without enough requests of visitors.
const SYNTHETIC_ROUNDS: u64 = 10;

/// Both colors, with the counters at the start of the deployment.
pub struct Watch {
    new: Vec<Observed>,
    old: Vec<Observed>,
    color: Color,
    old_at_start: Counters,
}

impl Watch {
    /// Notes the counters. The new color must run.
    pub fn start(color: Color) -> Result<Self, HostError> {
        let new = probe::observe(color)?;
        let old = probe::observe(color.other())?;
        let old_at_start = probe::counters(&old).map(|(counters, _)| counters).unwrap_or_default();
        Ok(Self { new, old, color, old_at_start })
    }

    /// Watches until the verdict is to go, or returns the reason to go back as an error.
    pub fn step(&self, step: Step, config: &HostConfig) -> Result<String, HostError> {
        let started = Instant::now();
        let mut bases = self.bases()?;
        let mut is_warm = false;
        let mut without_data = 0;
        let mut synthetic = None;
        let limits = Limits::default();
        loop {
            thread::sleep(LOOK);
            let passed = started.elapsed();
            if !is_warm && passed >= COLD {
                bases.reset_latency(self);
                is_warm = true;
            }
            let mut seen = self.observe(step, &bases)?;
            seen.phase = phase(passed, config);
            seen.synthetic = synthetic;
            match decide(&seen, &limits) {
                Verdict::Go(reason) => return Ok(reason),
                Verdict::Back(reason) => return Err(HostError::Step(reason)),
                Verdict::Wait(_) => without_data = 0,
                Verdict::NoData(reason) => {
                    without_data += 1;
                    if without_data >= LOOKS_WITHOUT_DATA {
                        return Err(HostError::Step(reason));
                    }
                }
                Verdict::Inconclusive(reason) => {
                    println!("{reason}; sending synthetic requests");
                    let new = Sockets::of(self.color, &config.domain)?;
                    let old = Sockets::of(self.color.other(), &config.domain)?;
                    synthetic = Some(new.synthetic(&old, SYNTHETIC_ROUNDS));
                }
            }
        }
    }

    fn bases(&self) -> Result<Bases, HostError> {
        let new = probe::counters(&self.new).map(|(counters, _)| counters);
        let old = probe::counters(&self.old).map(|(counters, _)| counters);
        let new = new.ok_or_else(|| {
            HostError::Step("the new color's counters could not be read".to_owned())
        })?;
        Ok(Bases { new, old: old.unwrap_or_default() })
    }

    fn observe(&self, step: Step, bases: &Bases) -> Result<Observation, HostError> {
        let new = probe::counters(&self.new);
        let old = probe::counters(&self.old).map(|(counters, _)| counters);
        let (restarts, is_out_of_memory) = probe::ends(&self.new)?;
        let memory_share = new.as_ref().map_or(0.0, |(_, share)| *share);
        // Once all requests go to the new color, the old one is compared by what it did before.
        let old_base = if step == Step::Full { &self.old_at_start } else { &bases.old };
        Ok(Observation {
            canary: new.map(|(counters, _)| counters.since(&bases.new)),
            reference: old.map(|counters| counters.since(old_base)),
            restarts,
            is_out_of_memory,
            memory_share,
            least_requests: least_requests(step),
            phase: Phase::Early,
            synthetic: None,
        })
    }

    /// Watches the color that has all requests. Returns the reason to go back, if there is one.
    pub fn warm_look(&self, window: &mut Window) -> Result<Option<String>, HostError> {
        let (restarts, is_out_of_memory) = probe::ends(&self.new)?;
        let new = probe::counters(&self.new);
        let memory_share = new.as_ref().map_or(0.0, |(_, share)| *share);
        let counters = new.map(|(counters, _)| counters);
        let canary = counters.as_ref().map(|counters| counters.since(&window.base));
        if window.started.elapsed() >= WINDOW {
            *window = Window { base: counters.unwrap_or_default(), ..Window::start() };
        }
        let seen = Observation {
            canary,
            restarts,
            is_out_of_memory,
            memory_share,
            ..Observation::default()
        };
        let verdict = decide(&seen, &Limits::default());
        window.without_data =
            if matches!(verdict, Verdict::NoData(_)) { window.without_data + 1 } else { 0 };
        let is_bad =
            matches!(verdict, Verdict::Back(_)) || window.without_data >= LOOKS_WITHOUT_DATA;
        // If the old color cannot serve either, a store is down, and going back would not help.
        Ok((is_bad && probe::is_color_ready(self.color.other()))
            .then(|| verdict.reason().to_owned()))
    }
}

const WINDOW: Duration = Duration::from_secs(30);

/// A time over which errors of a color that serves are counted.
pub struct Window {
    started: Instant,
    base: Counters,
    without_data: u32,
}

impl Window {
    /// A window that begins now and counts from the start of the process.
    pub fn start() -> Self {
        Self { started: Instant::now(), base: Counters::default(), without_data: 0 }
    }

    /// A window that begins with the present counters of the watched color.
    pub fn of(watch: &Watch) -> Self {
        let base = probe::counters(&watch.new).map(|(counters, _)| counters).unwrap_or_default();
        Self { base, ..Self::start() }
    }
}

/// Counters at the start of a step.
struct Bases {
    new: Counters,
    old: Counters,
}

impl Bases {
    /// Latency is counted from now on; counts of responses continue from the start of the step.
    fn reset_latency(&mut self, watch: &Watch) {
        for (base, observed) in [(&mut self.new, &watch.new), (&mut self.old, &watch.old)] {
            let Some((now, _)) = probe::counters(observed) else { continue };
            base.skip_durations(&now);
        }
    }
}

const fn least_requests(step: Step) -> u64 {
    match step {
        Step::Canary10 => 100,
        _ => 500,
    }
}

fn phase(passed: Duration, config: &HostConfig) -> Phase {
    let seconds = passed.as_secs();
    if seconds < config.bake_seconds {
        Phase::Early
    } else if seconds < config.longest_bake_seconds.max(config.bake_seconds) {
        Phase::Ripe
    } else {
        Phase::Overdue
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn step_becomes_ripe_and_then_overdue() {
        let config =
            HostConfig { bake_seconds: 20, longest_bake_seconds: 60, ..HostConfig::default() };
        for (seconds, wanted) in
            [(0, Phase::Early), (19, Phase::Early), (20, Phase::Ripe), (60, Phase::Overdue)]
        {
            assert_eq!(phase(Duration::from_secs(seconds), &config), wanted);
        }
        assert!(least_requests(Step::Canary10) < least_requests(Step::Canary50));
    }
}
