//! Decides from the voters' answers which master this process may use, and until when.
//!
//! The voters are sentinels, or nodes of a Redis Cluster. A process uses a master only while a majority of them has named
//! it for [`LEASE`], and while their answers are younger than [`LEASE`]. Let a failover take effect at time 0, when the
//! first majority names the new master. Each voter changes its answer only to a later master, and two majorities share a
//! voter. Therefore no process uses the old master after `LEASE`, and none uses the new one before `LEASE`: no two
//! processes ever use different masters. No clocks are compared between machines.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use crate::{deadline::Deadline, redis_target::Address};

/// Age at which a voter's answer expires, and time for which a majority must have named a master before its use.
pub(crate) const LEASE: Duration = Duration::from_millis(500);

/// The time for which this process uses one master without interruption.
///
/// It ends when a majority names another master or none, and by itself when the answers expire. A connection belongs to
/// the term in which it was opened, and is not used after it.
#[derive(Debug)]
pub(crate) struct Term {
    pub(crate) master: Address,
    until: Deadline,
}

impl Term {
    fn new(master: Address, until: Instant) -> Self {
        let term = Self { master, until: Deadline::default() };
        term.until.set(until);
        term
    }

    /// A term of a day, unless a test ends it.
    #[cfg(test)]
    pub(crate) fn until_ended() -> Arc<Self> {
        let master = ("127.0.0.1".to_owned(), 1);
        Arc::new(Self::new(master, Instant::now() + Duration::from_hours(24)))
    }

    /// Ends it.
    pub(crate) fn end(&self) {
        self.until.end();
    }

    /// Whether the master may be used at `now`.
    #[inline]
    pub(crate) fn is_valid_at(&self, now: Instant) -> bool {
        self.until.is_ahead_of(now)
    }

    /// Whether the master may be used now.
    #[inline]
    pub(crate) fn is_valid(&self) -> bool {
        self.is_valid_at(Instant::now())
    }

    /// The time at which the term ends unless the voters confirm it again.
    pub(crate) fn until(&self) -> Instant {
        self.until.until()
    }
}

/// A voter's answer.
#[derive(Debug, Clone)]
struct Vote {
    master: Address,
    /// When the question was sent. The voter named this master at this time or later.
    asked: Instant,
}

/// A master that a majority names, before its use.
#[derive(Debug)]
struct Candidate {
    master: Address,
    since: Instant,
    until: Instant,
}

/// The last answer of each voter.
#[derive(Debug)]
pub(super) struct Votes {
    latest: Vec<Option<Vote>>,
    candidate: Option<Candidate>,
    term: Option<Arc<Term>>,
}

impl Votes {
    /// No answers yet of this number of voters.
    pub(super) fn new(voters: usize) -> Self {
        Self { latest: vec![None; voters], candidate: None, term: None }
    }

    /// Records what a voter answered to a question of the time `asked`: a master, or none.
    pub(super) fn record(&mut self, voter: usize, asked: Instant, master: Option<Address>) {
        if let Some(vote) = self.latest.get_mut(voter) {
            *vote = master.map(|master| Vote { master, asked });
        }
    }

    /// The voters whose last answer is younger than [`LEASE`], and the number that makes a majority.
    pub(super) fn quorum(&self, now: Instant) -> (usize, usize) {
        let fresh = self.latest.iter().flatten().filter(|vote| vote.asked + LEASE > now).count();
        (fresh, self.majority_size())
    }

    /// The current term after all answers so far.
    pub(super) fn evaluate(&mut self, now: Instant) -> Option<Arc<Term>> {
        let Some((master, until)) = self.majority(now) else {
            self.end_term();
            self.candidate = None;
            return None;
        };
        if let Some(term) = &self.term
            && term.master == master
            && term.is_valid_at(now)
        {
            term.until.set(until);
            return self.term.clone();
        }
        self.end_term();
        let since = match &self.candidate {
            Some(candidate) if candidate.master == master && candidate.until > now => {
                candidate.since
            }
            _ => now,
        };
        if now >= since + LEASE {
            self.candidate = None;
            self.term = Some(Arc::new(Term::new(master, until)));
        } else {
            self.candidate = Some(Candidate { master, since, until });
        }
        self.term.clone()
    }

    fn end_term(&mut self) {
        if let Some(term) = self.term.take() {
            term.end();
        }
    }

    fn majority_size(&self) -> usize {
        self.latest.len() / 2 + 1
    }

    /// The master that a majority names, and when its youngest possible majority expires.
    fn majority(&self, now: Instant) -> Option<(Address, Instant)> {
        let fresh = || self.latest.iter().flatten().filter(|vote| vote.asked + LEASE > now);
        fresh().find_map(|candidate| {
            let mut asked: Vec<Instant> = fresh()
                .filter(|vote| vote.master == candidate.master)
                .map(|vote| vote.asked)
                .collect();
            asked.sort_unstable_by(|one, other| other.cmp(one));
            let oldest_needed = asked.get(self.majority_size() - 1)?;
            Some((candidate.master.clone(), *oldest_needed + LEASE))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STEP: Duration = Duration::from_millis(100);

    fn address(name: &str) -> Address {
        (name.to_owned(), 6_379)
    }

    /// Voters that answer at once, and the clock of a process that asks them.
    struct Process {
        votes: Votes,
        now: Instant,
    }

    impl Process {
        fn new(voters: usize) -> Self {
            Self { votes: Votes::new(voters), now: Instant::now() }
        }

        /// A step later, each of these voters names a master (`-` for none, blank for no answer).
        fn step(&mut self, answers: &str) -> Option<Arc<Term>> {
            self.now += STEP;
            for (voter, answer) in answers.chars().enumerate() {
                match answer {
                    ' ' => {}
                    '-' => self.votes.record(voter, self.now, None),
                    name => {
                        self.votes.record(voter, self.now, Some(address(&name.to_string())));
                    }
                }
            }
            self.votes.evaluate(self.now)
        }

        /// The master after as many steps as a new one needs.
        fn settle(&mut self, answers: &str) -> Option<Arc<Term>> {
            (0..6).map(|_| self.step(answers)).last().flatten()
        }
    }

    fn name(term: Option<&Arc<Term>>) -> Option<&str> {
        term.map(|term| term.master.0.as_str())
    }

    #[test]
    fn a_master_is_used_once_a_majority_has_named_it_for_a_lease() {
        let mut process = Process::new(3);
        for _ in 0..5 {
            assert!(process.step("AA ").is_none(), "other processes may use another master");
        }
        let term = process.step("AA ").unwrap();
        assert_eq!(term.master, address("A"));
        assert_eq!(term.until(), process.now + LEASE);
    }

    #[test]
    fn a_minority_names_no_master() {
        for answers in ["A  ", "AB ", "A--", "ABC", "   "] {
            assert!(Process::new(3).settle(answers).is_none(), "{answers}");
        }
        assert!(Process::new(2).settle("A ").is_none(), "one of two is no majority");
        assert!(Process::new(4).settle("AA  ").is_none(), "two of four are no majority");
        assert_eq!(name(Process::new(1).settle("A").as_ref()), Some("A"));
        assert_eq!(name(Process::new(5).settle("AAA  ").as_ref()), Some("A"));
    }

    #[test]
    fn a_term_ends_at_once_when_a_majority_names_another_master() {
        let mut process = Process::new(3);
        let old = process.settle("AAA").unwrap();
        assert!(process.step("BAA").is_some(), "the majority stays");
        assert!(process.step("BBA").is_none());
        assert!(!old.is_valid_at(process.now));
        assert_eq!(name(process.settle("BBA").as_ref()), Some("B"));
    }

    #[test]
    fn a_term_ends_by_itself_when_the_answers_expire() {
        let mut process = Process::new(3);
        let term = process.settle("AAA").unwrap();
        assert!(term.is_valid_at(process.now + LEASE.saturating_sub(Duration::from_millis(1))));
        assert!(!term.is_valid_at(process.now + LEASE), "no task had to run");
        // The same master needs a new term: meanwhile others may have used another one.
        process.now += LEASE;
        assert!(process.step("AAA").is_none());
        let next = process.settle("AAA").unwrap();
        assert!(!Arc::ptr_eq(&term, &next) && !term.is_valid_at(process.now));
    }

    #[test]
    fn a_term_counts_from_the_question_of_the_voter_that_makes_the_majority() {
        let mut process = Process::new(3);
        process.settle("AAA").unwrap();
        let asked = process.now;
        // One voter answers on; a second answer is needed, and both others are as old.
        for _ in 0..3 {
            assert_eq!(process.step("A  ").unwrap().until(), asked + LEASE);
        }
        // A late answer counts from its question, not from its arrival.
        process.votes.record(1, asked + STEP, Some(address("A")));
        assert_eq!(process.votes.evaluate(process.now).unwrap().until(), asked + STEP + LEASE);
    }

    #[test]
    fn a_candidate_that_a_majority_stops_naming_begins_again() {
        let mut process = Process::new(3);
        for answers in ["AA ", "AA ", "AA ", "BB ", "AA ", "AA ", "AA ", "AA ", "AA "] {
            assert!(process.step(answers).is_none(), "{answers}");
        }
        assert!(process.step("AA ").is_some());
    }

    /// Two processes reach different voters, which learn of a failover at different times.
    #[test]
    fn no_two_processes_use_different_masters_at_a_time() {
        // How often both processes use a master: in most of 64 × 4 × 20 steps, or nothing is compared.
        let mut compared = 0;
        // Bits: which voters a process reaches in a step.
        for reach in 0_u32..64 {
            for order in [[0, 1, 2], [1, 2, 0], [2, 0, 1], [0, 2, 1]] {
                let (mut one, mut other) = (Process::new(3), Process::new(3));
                other.now = one.now;
                let (mut term, mut other_term) = (one.settle("AAA"), other.settle("AAA"));
                let mut masters = ['A'; 3];
                for step in 0..20 {
                    // A voter changes its answer in each of the steps 2, 5 and 8.
                    if let 2 | 5 | 8 = step {
                        masters[order[(step - 2) / 3]] = 'B';
                    }
                    let seen = |shift: u32| -> String {
                        let sees = |(at, name): (usize, &char)| {
                            let is_reached = reach >> (shift + u32::try_from(at).unwrap()) & 1 == 1;
                            if is_reached { *name } else { ' ' }
                        };
                        masters.iter().enumerate().map(sees).collect()
                    };
                    term = one.step(&seen(0)).or(term);
                    other_term = other.step(&seen(3)).or(other_term);
                    let used = |term: &Option<Arc<Term>>| {
                        term.clone().filter(|term| term.is_valid_at(one.now))
                    };
                    if let (Some(term), Some(other)) = (used(&term), used(&other_term)) {
                        assert_eq!(term.master, other.master, "{reach:06b} {order:?} {step}");
                        compared += 1;
                    }
                }
            }
        }
        assert!(compared > 500, "{compared} comparisons");
    }
}
