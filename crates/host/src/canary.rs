//! One step of the canary: watches both colors until the verdict.

use std::{
    thread,
    time::{Duration, Instant},
};

use crate::{
    color::Color,
    config::HostConfig,
    counters::{Counters, Kind},
    error::HostError,
    output::say,
    probe::{self, Observed, Sockets},
    record::Step,
    verdict::{Limits, Observation, Phase, Verdict, decide},
};

/// Time between two looks at the counters.
pub(crate) const LOOK: Duration = Duration::from_secs(1);
/// How many looks in a row may find no counters.
const LOOKS_WITHOUT_DATA: u32 = 4;
/// The cold start of a cache makes the first requests slow: latency counts after this time.
pub(crate) const COLD: Duration = Duration::from_secs(4);
/// How long Docker may not respond, as while it restarts.
const DOCKER_SILENCE: Duration = Duration::from_mins(1);
/// The time after which the slots' shares are those of the requests: nginx keeps connections for up to 1 s.
const SETTLED: Duration = Duration::from_secs(10);
/// Rounds of synthetic requests for a step without enough requests of visitors.
pub(crate) const SYNTHETIC_ROUNDS: u64 = 10;

/// Both colors, with the counters at the start of the deployment.
pub struct Watch {
    new: Vec<Observed>,
    old: Vec<Observed>,
    color: Color,
    /// Base of the old color in comparisons once all requests go to the new one.
    old_at_start: Counters,
}

impl Watch {
    /// Notes the counters before `step`. The new color must run.
    pub fn start(color: Color, step: Step) -> Result<Self, HostError> {
        let new = probe::observe(color)?;
        let old = probe::observe(color.other());
        if step >= Step::Full {
            // This process has restarted. The old color may get no requests any more, so its whole life counts, and if it
            // has ended, that is no reason to return to it.
            let old = old.unwrap_or_default();
            return Ok(Self { new, old, color, old_at_start: Counters::default() });
        }
        let old = old?;
        let old_at_start = read(&old, "old")?;
        Ok(Self { new, old, color, old_at_start })
    }

    /// Watches until the verdict is to go, or returns the reason to go back as an error.
    pub fn step(&self, step: Step, config: &HostConfig) -> Result<String, HostError> {
        let started = Instant::now();
        // At the last step the base is that of the start.
        let old = if step == Step::Full { Counters::default() } else { read(&self.old, "old")? };
        let mut bases = Bases { new: read(&self.new, "new")?, old };
        let mut is_warm = false;
        let mut without_data = 0;
        let (mut synthetic, mut synthetic_failure) = (None, None);
        let mut docker_answered = Instant::now();
        let limits = Limits::default();
        loop {
            thread::sleep(LOOK);
            let passed = started.elapsed();
            if !is_warm && passed >= COLD {
                is_warm = bases.reset_latency(self);
            }
            let mut seen = self.observe(step, &bases, passed);
            seen.phase = phase(passed, config);
            seen.synthetic = synthetic;
            seen.synthetic_failure.clone_from(&synthetic_failure);
            if !seen.is_docker_silent {
                docker_answered = Instant::now();
            } else if docker_answered.elapsed() >= DOCKER_SILENCE {
                return Err(HostError::Step("Docker does not respond".to_owned()));
            }
            match decide(&seen, &limits) {
                Verdict::Go(reason) => match probe::reach_from_nginx(self.color, &config.domain) {
                    Ok(()) => return Ok(reason),
                    Err(error @ HostError::Unhealthy(_)) => return Err(error),
                    // Docker did not respond, which the next look notices.
                    Err(_) => without_data = 0,
                },
                Verdict::Back(reason) => return Err(HostError::Step(reason)),
                Verdict::Wait(_) => without_data = 0,
                Verdict::NoData(reason) => {
                    without_data += 1;
                    if without_data >= LOOKS_WITHOUT_DATA {
                        return Err(HostError::Step(reason));
                    }
                }
                Verdict::Inconclusive(reason) => {
                    say!("{reason}; sending synthetic requests");
                    let new = Sockets::of(self.color, &config.domain)?;
                    let old = Sockets::of(self.color.other(), &config.domain)?;
                    let (sample, failure) = new.synthetic(&old, SYNTHETIC_ROUNDS);
                    (synthetic, synthetic_failure) = (Some(sample), failure);
                }
            }
        }
    }

    fn observe(&self, step: Step, bases: &Bases, passed: Duration) -> Observation {
        let old = probe::counters(&self.old).map(|(counters, _)| counters);
        // Once all requests go to the new color, the old one is compared by what it did before.
        let old_base = if step == Step::Full { &self.old_at_start } else { &bases.old };
        let reference = old.and_then(|counters| counters.since(old_base));
        let expected = expected(step, reference.as_ref(), passed);
        let seen = observation(probe::counters(&self.new), probe::ends(&self.new), &bases.new);
        Observation { reference, expected, least_requests: least_requests(step), ..seen }
    }

    /// Watches the color that has all requests. Returns the reason to go back, if there is one.
    pub fn warm_look(&self, window: &mut Window, host: &str) -> Option<String> {
        let new = probe::counters(&self.new);
        let counters = new.as_ref().map(|(counters, _)| counters.clone());
        let seen = observation(new, probe::ends(&self.new), &window.base);
        if window.started.elapsed() >= WINDOW {
            // An error of Docker is none of the color.
            let reached = probe::reach_from_nginx(self.color, host);
            let is_unreachable = matches!(&reached, Err(HostError::Unhealthy(_)));
            let unreachable = if is_unreachable { window.unreachable + 1 } else { 0 };
            *window = Window { base: counters.unwrap_or_default(), unreachable, ..Window::start() };
            if let Err(error) = reached
                && unreachable >= WINDOWS_UNREACHABLE
                && probe::is_color_ready(self.color.other())
            {
                return Some(error.to_string());
            }
        }
        let verdict = decide(&seen, &Limits::default());
        window.without_data =
            if matches!(verdict, Verdict::NoData(_)) { window.without_data + 1 } else { 0 };
        let is_bad =
            matches!(verdict, Verdict::Back(_)) || window.without_data >= LOOKS_WITHOUT_DATA;
        // If the old color cannot serve either, a store is down, and going back would not help.
        (is_bad && probe::is_color_ready(self.color.other())).then(|| verdict.reason().to_owned())
    }
}

/// The counters of a color. A busy server may miss one look, but not several.
fn read(observed: &[Observed], name: &str) -> Result<Counters, HostError> {
    for _ in 0..LOOKS_WITHOUT_DATA {
        if let Some((counters, _)) = probe::counters(observed) {
            return Ok(counters);
        }
        thread::sleep(LOOK);
    }
    Err(HostError::Step(format!("the {name} color's counters could not be read")))
}

/// The observation of the new color since `base`.
fn observation(
    new: Option<(Counters, f64)>,
    ends: Result<(u64, bool), HostError>,
    base: &Counters,
) -> Observation {
    let is_docker_silent = ends.is_err();
    let (restarts, is_out_of_memory) = ends.unwrap_or_default();
    Observation {
        memory_share: new.as_ref().map_or(0.0, |(_, share)| *share),
        canary: new.and_then(|(counters, _)| counters.since(base)),
        restarts,
        is_out_of_memory,
        is_docker_silent,
        ..Observation::default()
    }
}

/// Redirects and API requests that the slots should have brought to the new color, from those of the old one. Unknown once
/// the old one gets none, and before connections that nginx keeps have moved.
fn expected(step: Step, reference: Option<&Counters>, passed: Duration) -> [u64; 2] {
    let slots = u64::from(step.slots());
    match reference {
        Some(old) if (1..10).contains(&slots) && passed >= SETTLED => {
            Kind::ALL.map(|kind| old.total(kind).all * slots / (10 - slots))
        }
        _ => [0, 0],
    }
}

const WINDOW: Duration = Duration::from_secs(30);
/// How many windows in a row nginx may not reach the color.
const WINDOWS_UNREACHABLE: u32 = 2;

/// A time over which errors of a color that serves are counted.
pub struct Window {
    started: Instant,
    base: Counters,
    without_data: u32,
    unreachable: u32,
}

impl Window {
    /// A window that begins now and counts from the start of the process.
    pub fn start() -> Self {
        Self { started: Instant::now(), base: Counters::default(), without_data: 0, unreachable: 0 }
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
    /// Latency is counted from now on; counts of responses continue from the start of the step. Returns whether both
    /// colors could be read: otherwise nothing has changed.
    fn reset_latency(&mut self, watch: &Watch) -> bool {
        let [new, old] = [&watch.new, &watch.old].map(|observed| probe::counters(observed));
        let (Some((new, _)), Some((old, _))) = (new, old) else { return false };
        self.new.skip_durations(&new);
        self.old.skip_durations(&old);
        true
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
    use crate::counters::{Process, REDIRECT};

    fn redirects(count: u64) -> Counters {
        let mut counters = Counters::default();
        let line = format!(
            "http_server_request_duration_seconds_count{{http_response_status_code=\"302\",http_route=\"{REDIRECT}\"}} {count}"
        );
        counters.add(&line, Process::Shortener);
        counters
    }

    #[test]
    fn expected_requests_are_the_slots_share_of_those_of_the_old_color() {
        let (old, later) = (redirects(900), Duration::from_secs(20));
        assert_eq!(expected(Step::Canary10, Some(&old), later), [100, 0]);
        assert_eq!(expected(Step::Canary50, Some(&old), later), [900, 0]);
        assert_eq!(expected(Step::Full, Some(&old), later), [0, 0]);
        assert_eq!(expected(Step::Canary50, Some(&old), Duration::from_secs(9)), [0, 0]);
        assert_eq!(expected(Step::Canary50, None, later), [0, 0]);
    }

    #[test]
    fn one_failed_question_to_docker_does_not_return_a_release() {
        let failed = || HostError::Timeout("docker ps".to_owned(), 15);
        let seen = observation(Some((redirects(5), 0.5)), Err(failed()), &redirects(2));
        assert_eq!(
            seen.canary.as_ref().map(|counters| counters.total(Kind::Redirects).all),
            Some(3)
        );
        assert!(seen.is_docker_silent && seen.restarts == 0);
        assert!(!matches!(decide(&seen, &Limits::default()), Verdict::Back(_)));
        let seen = observation(Some((redirects(5), 0.5)), Ok((1, false)), &redirects(2));
        assert!(matches!(decide(&seen, &Limits::default()), Verdict::Back(_)));
    }

    #[test]
    fn counters_that_began_again_are_no_data() {
        let seen = observation(Some((redirects(1), 0.5)), Ok((0, false)), &redirects(2));
        assert_eq!(seen.canary, None);
    }

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
