//! The choice of the primary from observations of all hosts.
//!
//! * A host is eligible if it accepts writes and no newer timeline was ever seen. Each promotion starts a timeline, so a
//!   replaced primary that starts again is not eligible.
//! * The first term begins when each host has responded or failed to. Until then, the first to respond could be a replaced
//!   primary that still accepts writes.
//! * The eligible host with the newest timeline is the primary; of two with the same one, the current one stays.
//! * A current primary that does not respond stays, because requests to it fail as fast as requests to none. It ends
//!   when it refuses writes.
//! * A new term begins with another host, after a restart of the server, and when a server responds again that did not
//!   respond for [`LONGEST_SILENCE`]: connections from before may be broken without any notice.

use std::time::{Duration, Instant};

/// Silence of the primary after which its connections are replaced.
pub(crate) const LONGEST_SILENCE: Duration = Duration::from_secs(2);

/// The state that a server reports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Observation {
    /// Whether it accepts writes.
    pub(crate) accepts_writes: bool,
    /// The timeline that it writes or replays; 0 if unknown.
    pub(crate) timeline: i64,
    /// The last position in the WAL that it has written or replayed, in bytes.
    pub(crate) position: i64,
    /// When the server was started, in microseconds by its clock.
    pub(crate) started_us: i64,
}

/// The time during which one host is the primary.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Term {
    /// Counts the terms of this process.
    pub(crate) number: u64,
    /// The primary, as an index of the hosts.
    pub(crate) host: usize,
    pub(crate) timeline: i64,
    started_us: i64,
}

/// The state of all hosts.
#[derive(Debug)]
pub(crate) struct Election {
    observed: Vec<Option<Observation>>,
    /// Whether a host has responded or failed to.
    heard: Vec<bool>,
    terms: u64,
    current: Option<Term>,
    newest_timeline: i64,
    /// Since when the current primary does not respond.
    silent_since: Option<Instant>,
}

impl Election {
    pub(crate) fn new(hosts: usize) -> Self {
        Self {
            observed: vec![None; hosts],
            heard: vec![false; hosts],
            terms: 0,
            current: None,
            newest_timeline: 0,
            silent_since: None,
        }
    }

    /// The last observation of a host; `None` while it does not respond.
    pub(crate) fn observed(&self, host: usize) -> Option<Observation> {
        self.observed.get(host).copied().flatten()
    }

    /// Takes an observation of a host, `None` if it did not respond. Returns the current term.
    pub(crate) fn observe(
        &mut self,
        host: usize,
        observation: Option<Observation>,
        now: Instant,
    ) -> Option<Term> {
        if let Some(slot) = self.observed.get_mut(host) {
            *slot = observation;
        }
        if let Some(heard) = self.heard.get_mut(host) {
            *heard = true;
        }
        let writers = self.observed.iter().flatten().filter(|host| host.accepts_writes);
        let newest = writers.map(|host| host.timeline).max().unwrap_or(0);
        self.newest_timeline = self.newest_timeline.max(newest);

        let current = self.current;
        let is_current = |host: usize| current.is_some_and(|term| term.host == host);
        let eligible = self.observed.iter().enumerate().filter_map(|(host, observed)| {
            let observed = observed.as_ref()?;
            (observed.accepts_writes && observed.timeline >= self.newest_timeline)
                .then_some((host, *observed))
        });
        // Of equal ones, `max_by_key` returns the last; the first is the one that the operator prefers.
        let best = eligible.rev().max_by_key(|(host, _)| is_current(*host));
        match (best, current) {
            (Some((host, observed)), Some(term)) if host == term.host => {
                let was_silent = self
                    .silent_since
                    .is_some_and(|since| now.duration_since(since) >= LONGEST_SILENCE);
                if was_silent || term.is_of_another_server(observed) {
                    self.begin_term(host, observed);
                }
                self.silent_since = None;
            }
            (Some((host, observed)), _) => {
                if self.heard.iter().all(|heard| *heard) {
                    self.begin_term(host, observed);
                }
            }
            (None, Some(term)) => match self.observed(term.host) {
                None => {
                    self.silent_since.get_or_insert(now);
                }
                Some(_) => self.current = None,
            },
            (None, None) => {}
        }
        self.current
    }

    fn begin_term(&mut self, host: usize, observed: Observation) {
        self.terms += 1;
        self.silent_since = None;
        self.current = Some(Term {
            number: self.terms,
            host,
            timeline: observed.timeline,
            started_us: observed.started_us,
        });
    }
}

impl Term {
    fn is_of_another_server(&self, observed: Observation) -> bool {
        (self.timeline, self.started_us) != (observed.timeline, observed.started_us)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[expect(clippy::unnecessary_wraps, reason = "an observation as the election takes it")]
    fn primary(timeline: i64) -> Option<Observation> {
        Some(Observation { accepts_writes: true, timeline, position: 0, started_us: 1 })
    }

    const STANDBY: Option<Observation> =
        Some(Observation { accepts_writes: false, timeline: 0, position: 0, started_us: 1 });

    /// Feeds observations, and returns term and host after the last one.
    fn outcome(observations: &[(usize, Option<Observation>)]) -> Option<(u64, usize)> {
        let (mut election, now) = (Election::new(3), Instant::now());
        let mut term = None;
        for host in 0..3 {
            term = election.observe(host, None, now);
        }
        for (host, observation) in observations {
            term = election.observe(*host, *observation, now);
        }
        term.map(|term| (term.number, term.host))
    }

    #[test]
    fn the_host_that_accepts_writes_is_the_primary() {
        assert_eq!(outcome(&[(0, STANDBY), (1, None)]), None);
        assert_eq!(outcome(&[(0, STANDBY), (2, primary(1)), (1, STANDBY)]), Some((1, 2)));
    }

    #[test]
    fn the_first_term_waits_for_each_host() {
        let (mut election, now) = (Election::new(3), Instant::now());
        assert_eq!(election.observe(0, primary(1), now), None, "a replaced primary");
        assert_eq!(election.observe(1, None, now), None);
        let term = election.observe(2, primary(2), now).unwrap();
        assert_eq!((term.number, term.host), (1, 2));
    }

    #[test]
    fn the_newest_timeline_wins_and_an_older_one_never_returns() {
        assert_eq!(outcome(&[(0, primary(1)), (1, primary(2))]), Some((2, 1)));
        assert_eq!(outcome(&[(1, primary(2)), (0, primary(1))]), Some((1, 1)));
        assert_eq!(outcome(&[(1, primary(2)), (1, None), (0, primary(1))]), Some((1, 1)));
        assert_eq!(outcome(&[(1, primary(2)), (1, STANDBY), (0, primary(1))]), None);
    }

    #[test]
    fn a_silent_primary_stays_until_another_host_takes_over() {
        assert_eq!(outcome(&[(0, primary(1)), (0, None), (1, STANDBY)]), Some((1, 0)));
        assert_eq!(outcome(&[(0, primary(1)), (0, None), (1, primary(2))]), Some((2, 1)));
        // Two poolers in front of one server.
        assert_eq!(outcome(&[(0, primary(1)), (1, primary(1))]), Some((1, 0)));
        assert_eq!(outcome(&[(0, primary(1)), (1, primary(1)), (0, None)]), Some((2, 1)));
    }

    #[test]
    fn a_primary_that_refuses_writes_ends_its_term() {
        assert_eq!(outcome(&[(0, primary(1)), (0, STANDBY)]), None);
        assert_eq!(outcome(&[(0, primary(1)), (0, STANDBY), (0, primary(1))]), Some((2, 0)));
    }

    #[test]
    fn a_restart_and_a_long_silence_begin_a_term_and_a_short_silence_does_not() {
        let restarted =
            Some(Observation { accepts_writes: true, timeline: 1, position: 0, started_us: 2 });
        assert_eq!(outcome(&[(0, primary(1)), (0, restarted)]), Some((2, 0)));
        let (mut election, start) = (Election::new(1), Instant::now());
        let mut observe = |observation, after: Duration| {
            election.observe(0, observation, start + after).unwrap().number
        };
        let short = LONGEST_SILENCE / 2;
        assert_eq!(observe(primary(1), Duration::ZERO), 1);
        assert_eq!(observe(None, Duration::ZERO), 1);
        assert_eq!(observe(primary(1), short), 1);
        assert_eq!(observe(None, short), 1);
        assert_eq!(observe(None, LONGEST_SILENCE), 1);
        assert_eq!(observe(primary(1), short + LONGEST_SILENCE), 2);
    }
}
