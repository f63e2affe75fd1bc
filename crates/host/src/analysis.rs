//! The verdict on one step of a canary in a cluster (`linnet-host verdict`), where another program moves the requests.
//!
//! It decides with [`crate::verdict`], as a deployment on a server does, and about nginx's new pods with
//! [`crate::nginx_check`]. It calls only Linnet's pods: the names and ports are those of `deploy/kubernetes`. The exit code is 0 to continue, and 1, with the reason, to return to the old color.

use std::{
    thread,
    time::{Duration, Instant},
};

use crate::{
    canary::{COLD, LOOK, SYNTHETIC_ROUNDS},
    color::Color,
    counters::{Counters, Kind},
    error::HostError,
    fisher::Sample,
    nginx_check::{Entrances, NginxCheck, UNKNOWN_CODE, is_not_found, try_one},
    output::say,
    pods::{Look, Names, Pods},
    probe::expected,
    verdict::{Limits, Observation, Phase, Verdict, decide},
};

/// How long pods may not respond. DNS caches the address of a deleted pod for up to 30 s.
const SILENCE: Duration = Duration::from_secs(40);
/// The time after which the weights are the shares of the requests.
const SETTLED: Duration = Duration::from_secs(10);
/// Between two rounds of requests through nginx. Their unknown codes count against the budget of this pod's address.
const ROUND: Duration = Duration::from_secs(5);
const USAGE: &str = "usage: linnet-host verdict --color=blue|green --weight=1…100 [--bake-seconds=20] [--longest-bake-seconds=60]";

/// A step of a canary.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Analysis {
    /// The new color.
    pub color: Color,
    /// Its share of the requests, in percent.
    pub weight: u64,
    /// The shortest duration of the step, in seconds.
    pub bake_seconds: u64,
    /// The longest duration, in seconds. Without enough requests by then, synthetic ones decide.
    pub longest_bake_seconds: u64,
}

impl Analysis {
    /// Reads the options.
    pub fn parse(options: &[&str]) -> Result<Self, HostError> {
        let usage = || HostError::Usage(USAGE.to_owned());
        let (mut color, mut weight, mut bake, mut longest) = (None, None, 20, 60);
        for option in options {
            let (name, value) = option.split_once('=').ok_or_else(usage)?;
            let number = value.parse::<u64>();
            match name {
                "--color" => {
                    color = Color::ALL.into_iter().find(|color| color.name() == value);
                }
                "--weight" => weight = number.ok().filter(|weight| (1..=100).contains(weight)),
                "--bake-seconds" => bake = number.map_err(|_| usage())?,
                "--longest-bake-seconds" => longest = number.map_err(|_| usage())?,
                _ => return Err(usage()),
            }
        }
        match (color, weight) {
            (Some(color), Some(weight)) => Ok(Self {
                color,
                weight,
                bake_seconds: bake,
                longest_bake_seconds: longest.max(bake),
            }),
            _ => Err(usage()),
        }
    }

    /// Watches until the verdict. Returns the reason to go back as an error.
    pub fn run(&self) -> Result<(), HostError> {
        let other = self.color.other();
        // At the last step the old color gets no requests, so its whole life counts.
        let mut old = Pods::new(names(other), self.weight == 100);
        let mut new = Pods::new(names(self.color), false);
        let mut nginx = NginxCheck::new(Entrances {
            canary: "nginx-canary:8080".to_owned(),
            stable: "nginx:8080".to_owned(),
        });
        let reason =
            self.watch(&mut new, &mut old, &mut nginx, &|| synthetic(self.color, other))?;
        say!("{reason}");
        Ok(())
    }

    /// The loop of [`Analysis::run`]; `try_requests` sends the synthetic requests.
    fn watch(
        &self,
        new: &mut Pods,
        old: &mut Pods,
        nginx: &mut NginxCheck,
        try_requests: &dyn Fn() -> (Sample, Option<String>),
    ) -> Result<String, HostError> {
        let (started, limits) = (Instant::now(), Limits::default());
        let (mut is_warm, mut tried, mut failure) = (false, None, None);
        let mut last_data = Instant::now();
        let mut last_round = None;
        loop {
            let passed = started.elapsed();
            if last_round.is_none_or(|last: Instant| last.elapsed() >= ROUND) {
                last_round = Some(Instant::now());
                nginx.round();
                if let Some(reason) = nginx.hard_fault(&limits) {
                    return Err(HostError::Step(reason));
                }
            }
            let (new_look, old_look) = (new.look(), old.look());
            if !is_warm && passed >= COLD {
                new.skip_durations();
                if self.weight < 100 {
                    old.skip_durations();
                }
                is_warm = true;
            }
            let mut seen = self.observation(new_look, old_look, passed, tried);
            seen.synthetic_failure.clone_from(&failure);
            match decide(&seen, &limits) {
                Verdict::Go(reason) => {
                    // Both colors are well, but no counter of theirs contains the requests that nginx fails by itself.
                    while !nginx.is_enough() {
                        nginx.round();
                    }
                    return nginx
                        .fault(&limits)
                        .map_or(Ok(reason), |fault| Err(HostError::Step(fault)));
                }
                Verdict::Back(reason) => return Err(HostError::Step(reason)),
                Verdict::Wait(_) => last_data = Instant::now(),
                Verdict::NoData(reason) => {
                    if last_data.elapsed() >= SILENCE {
                        return Err(HostError::Step(reason));
                    }
                }
                Verdict::Inconclusive(reason) => {
                    say!("{reason}; sending synthetic requests");
                    let (sample, why) = try_requests();
                    (tried, failure) = (Some(sample), why);
                }
            }
            thread::sleep(LOOK);
        }
    }

    fn observation(
        &self,
        new: Look,
        old: Look,
        passed: Duration,
        synthetic: Option<Sample>,
    ) -> Observation {
        Observation {
            expected: self.expected(old.counters.as_ref(), passed),
            canary: new.counters,
            reference: old.counters,
            restarts: new.restarts,
            memory_share: new.memory_share,
            least_requests: if self.weight <= 10 { 100 } else { 500 },
            phase: self.phase(passed),
            synthetic,
            synthetic_failure: None,
            // The kernel's kill shows as a restart.
            is_out_of_memory: false,
            is_docker_silent: false,
        }
    }

    fn phase(&self, passed: Duration) -> Phase {
        match passed.as_secs() {
            seconds if seconds < self.bake_seconds => Phase::Early,
            seconds if seconds < self.longest_bake_seconds => Phase::Ripe,
            _ => Phase::Overdue,
        }
    }

    /// Requests that the weight should have brought to the new color, from those of the old one; 0 while unknown.
    fn expected(&self, old: Option<&Counters>, passed: Duration) -> [u64; 2] {
        match old {
            Some(old) if self.weight < 100 && passed >= SETTLED => {
                Kind::ALL.map(|kind| old.total(kind).all * self.weight / (100 - self.weight))
            }
            _ => [0, 0],
        }
    }
}

fn names(color: Color) -> Names {
    Names {
        gateway: format!("gateway-admin-{color}:9081"),
        shortener: format!("shortener-admin-{color}:9082"),
    }
}

/// Requests to the new color as nginx sends them, and the unknown code to the old color as well: otherwise the new one would
/// have more 404s. Also returns what failed first.
fn synthetic(new: Color, old: Color) -> (Sample, Option<String>) {
    let round = || {
        let _: Result<(), String> =
            try_one(&format!("shortener-{old}:8082"), UNKNOWN_CODE, &is_not_found);
        for path in ["/health", "/api/v1/urls", "/docs/"] {
            try_one(&format!("gateway-{new}:8081"), path, &|status| expected(path, status))?;
        }
        try_one(&format!("shortener-{new}:8082"), UNKNOWN_CODE, &is_not_found)
    };
    let failures: Vec<String> = (0..SYNTHETIC_ROUNDS).filter_map(|_| round().err()).collect();
    let sample = Sample { bad: failures.len() as u64, all: SYNTHETIC_ROUNDS };
    (sample, failures.into_iter().next())
}

#[cfg(test)]
#[path = "analysis_tests.rs"]
mod tests;
