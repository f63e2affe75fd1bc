//! Which tier answers a request: L1 of one of several processes, L2, or the database.
//!
//! nginx spreads requests evenly over the processes, so each L1 gets the same popularity at a fraction of the rate. L2 gets
//! only what misses there: requests of one process for one link are at least a life apart, so L2 sees them more evenly
//! spread than L1 does, and that matters when its capacity is short.

use super::{
    caches::{Cache, hits_of_a_fill},
    popularity::Popularity,
};

/// The caches of an installation and their requests.
#[derive(Debug, Clone, Copy)]
pub struct Tiers {
    /// Requests for links that exist, a second.
    pub rate: f64,
    /// Requests for codes that do not exist, a second, each for another code.
    pub unknown_rate: f64,
    /// Changes of links a second, spread evenly over all links.
    pub changes: f64,
    /// Number of shortener processes, at least 1.
    pub processes: f64,
    /// L1 of each process.
    pub l1: Cache,
    /// L2 of all.
    pub l2: Cache,
}

/// Requests a second by the tier that answers them.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Answered {
    /// Answered by L1.
    pub l1: f64,
    /// Answered by L2.
    pub l2: f64,
    /// Answered by PostgreSQL, those for unknown codes included.
    pub database: f64,
    /// Links in L2.
    pub l2_links: f64,
}

impl Answered {
    /// Lookups of L2 a second.
    pub fn l2_lookups(&self) -> f64 {
        self.l2 + self.database
    }

    /// All requests a second.
    pub fn total(&self) -> f64 {
        self.l1 + self.l2 + self.database
    }
}

/// Requests of one link to L2: each process sends one, at the earliest `pause_s` after its last one.
#[derive(Clone, Copy)]
struct Misses {
    /// Requests of one process for the link, a second.
    rate: f64,
    /// Time from a fill of L1 to the end of the entry there, on average.
    pause_s: f64,
    processes: f64,
}

impl Misses {
    /// All processes' requests to L2 for the link, a second.
    fn total(self) -> f64 {
        self.processes / self.interval_s()
    }

    fn interval_s(self) -> f64 {
        self.pause_s + 1.0 / self.rate
    }

    /// Probability that after a request, no process sends another one within `seconds`: neither the same process nor one
    /// of the others, whose times are independent of it.
    fn none_within(self, seconds: f64) -> f64 {
        let late = (-self.rate * (seconds - self.pause_s).max(0.0)).exp();
        let rest_s = (self.pause_s - seconds).max(0.0) + late / self.rate;
        late * (rest_s / self.interval_s()).powf(self.processes - 1.0)
    }
}

impl Tiers {
    /// The steady state, a day after the start.
    pub fn answered(&self, popularity: &Popularity) -> Answered {
        let at_one = self.rate / self.processes;
        let times = self.l1.times(popularity, at_one);
        let changes = self.changes / popularity.links();
        let misses: Vec<Misses> = popularity
            .groups()
            .iter()
            .map(|group| {
                let rate = at_one * group.share;
                let hit = self.l1.hit_ratio(times, rate, changes);
                Misses { rate, pause_s: hit / (1.0 - hit) / rate, processes: self.processes }
            })
            .collect();
        let links = || popularity.groups().iter().map(|group| group.links);
        let l2_rate: f64 = links().zip(&misses).map(|(links, miss)| links * miss.total()).sum();
        let held = |seconds: f64| -> f64 {
            links().zip(&misses).map(|(links, miss)| links * self.l2_hit(*miss, seconds)).sum()
        };
        let seconds = self.characteristic_s(&held);
        let l2: f64 = links()
            .zip(&misses)
            .map(|(links, miss)| links * miss.total() * self.l2_hit(*miss, seconds))
            .sum();
        Answered {
            l1: self.rate - l2_rate,
            l2,
            database: l2_rate - l2 + self.unknown_rate,
            l2_links: held(seconds),
        }
    }

    /// The characteristic time of L2: infinite if all entries that are alive fit.
    fn characteristic_s(&self, held: &impl Fn(f64) -> f64) -> f64 {
        let (mut low, mut high) = (1e-6_f64, 1e12_f64);
        if held(high) <= self.l2.capacity {
            return f64::INFINITY;
        }
        for _ in 0..80 {
            let middle = (low * high).sqrt();
            if held(middle) < self.l2.capacity { low = middle } else { high = middle }
        }
        low
    }

    fn l2_hit(&self, miss: Misses, seconds: f64) -> f64 {
        let none = if seconds.is_infinite() { 0.0 } else { miss.none_within(seconds) };
        let hits = hits_of_a_fill(miss.total(), 1.0 - none, self.l2.life_s);
        1.0 - 1.0 / (1.0 + hits)
    }
}

/// Steps in which [`cold_misses`] adds up what happens after a cache is full.
const STEPS: u32 = 60;

/// Misses in the first `requests` of a process with an empty L1 whose entries do not expire.
///
/// Until the cache is full, each link misses once. Then a request misses if its link was not requested before, or if it
/// was evicted, with the probability of the steady state.
fn cold_misses(popularity: &Popularity, l1: Cache, requests: f64) -> f64 {
    if popularity.distinct(requests) <= l1.capacity {
        return popularity.distinct(requests);
    }
    let (mut full, mut high) = (0.0, requests);
    for _ in 0..60 {
        let middle = f64::midpoint(full, high);
        if popularity.distinct(middle) < l1.capacity { full = middle } else { high = middle }
    }
    let times = l1.times(popularity, 1.0);
    let step = (requests - full) / f64::from(STEPS);
    let later: f64 = (0..STEPS)
        .map(|number| {
            let before = full + (f64::from(number) + 0.5) * step;
            step * popularity.sum(|group| {
                let (new, evicted) =
                    ((-before * group.share).exp(), 1.0 - l1.held(times, group.share));
                group.share * new.max(evicted)
            })
        })
        .sum();
    popularity.distinct(full) + later
}

/// Shares of the tiers in the first `requests` of processes with an empty L1 whose entries do not expire, and an L2 for all
/// links, which got `before` requests: a link's first request goes to the database, and what else misses L1 to L2.
pub fn cold_shares(
    popularity: &Popularity,
    l1: Cache,
    before: f64,
    requests: f64,
    processes: f64,
) -> [f64; 3] {
    let database =
        (popularity.distinct(before + requests) - popularity.distinct(before)) / requests;
    let missed = processes * cold_misses(popularity, l1, requests / processes) / requests;
    [1.0 - missed, missed - database, database]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::caches::Policy;

    fn tiers(processes: f64, l1: f64, l2: f64) -> Tiers {
        Tiers {
            rate: 10_000.0,
            unknown_rate: 0.0,
            changes: 0.0,
            processes,
            l1: Cache { capacity: l1, life_s: 600.0, policy: Policy::TwoLru },
            l2: Cache { capacity: l2, life_s: 86_400.0, policy: Policy::Lru },
        }
    }

    #[test]
    fn all_requests_are_answered_once() {
        let popularity = Popularity::zipf(1e6, 1.0, 0.1);
        for (l1, l2) in [(1e3, 1e4), (1e5, 1e5), (1e7, 1e7)] {
            let answered = tiers(3.0, l1, l2).answered(&popularity);
            assert!((answered.total() - 10_000.0).abs() < 1e-6);
            assert!(
                answered.l1 > 0.0 && answered.l2 >= 0.0 && answered.database > 0.0,
                "{answered:?}"
            );
            assert!(answered.l2_links <= l2 * 1.001, "{answered:?}");
        }
    }

    #[test]
    fn more_processes_move_hits_from_l1_to_l2() {
        let popularity = Popularity::zipf(1e6, 1.0, 0.0);
        let (one, ten) = (
            tiers(1.0, 1e5, 1e7).answered(&popularity),
            tiers(10.0, 1e5, 1e7).answered(&popularity),
        );
        assert!(ten.l1 < one.l1 && ten.l2 > one.l2, "{one:?} {ten:?}");
        assert!(
            (ten.database - one.database).abs() < 0.01 * one.database,
            "L2 holds a day of links in both"
        );
    }

    #[test]
    fn unknown_codes_all_reach_the_database() {
        let popularity = Popularity::zipf(1e4, 1.0, 0.0);
        let calm = tiers(1.0, 1e5, 1e6);
        let scanned = Tiers { unknown_rate: 500.0, ..calm };
        let more = scanned.answered(&popularity).database - calm.answered(&popularity).database;
        assert!((more - 500.0).abs() < 1e-9);
    }

    #[test]
    fn a_filled_l2_answers_what_was_requested_before() {
        let popularity = Popularity::zipf(1e5, 1.0, 0.0);
        let l1 = Cache { capacity: 1e6, life_s: f64::INFINITY, policy: Policy::TwoLru };
        let cold = cold_shares(&popularity, l1, 0.0, 1e5, 1.0);
        let warm = cold_shares(&popularity, l1, 1e7, 1e5, 1.0);
        assert!((cold[0] - warm[0]).abs() < 1e-9, "L1 is empty in both");
        assert!(cold[1].abs() < 1e-9 && warm[1] > 0.99 * cold[2], "{cold:?} {warm:?}");
    }

    #[test]
    fn cold_shares_are_those_of_the_cold_zipf_row() {
        // docs/BENCHMARKS.md: 77.0 % L1, 5.8 % L2, 17.1 % PostgreSQL for 2 M draws over 1 M links and two processes.
        // 32 MiB hold 124,000 of these links: 200 bytes for the entry, a code of 7 and a target of 63.
        let cache =
            Cache { capacity: 33_554_432.0 / 270.0, life_s: f64::INFINITY, policy: Policy::TwoLru };
        let [l1, l2, database] =
            cold_shares(&Popularity::zipf(1e6, 1.0, 0.0), cache, 0.0, 2e6, 2.0);
        assert!((l1 - 0.770).abs() < 0.01, "{l1}");
        assert!((l2 - 0.058).abs() < 0.01, "{l2}");
        assert!((database - 0.171).abs() < 0.002, "{database}");
    }
}
