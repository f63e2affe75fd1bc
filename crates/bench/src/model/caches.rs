//! Hit ratios of one cache, by Che's approximation: a link is evicted when it was not requested for a **characteristic
//! time**, which is the same for all links and follows from the cache's capacity.
//!
//! Both tiers also end an entry's **life** at a fixed time after it was filled, and a hit does not extend it. An expired
//! entry of L1 keeps its place until it is evicted or filled again; Redis frees it.
//!
//! L1 is quick_cache, whose policy resembles Clock-PRO and S3-FIFO: a link stays only if it was requested a second time
//! while its key was remembered. The model is 2-LRU: a cache of keys admits links to the cache of entries. A test
//! compares it with quick_cache itself. Redis samples keys and evicts the least recently used one, which is LRU.

use super::popularity::{Group, Popularity};

/// How a cache selects what it evicts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Policy {
    /// The least recently used entry.
    Lru,
    /// An entry must be requested twice; keys are remembered for as many entries as the cache has.
    TwoLru,
}

/// A cache in front of requests at a total rate.
#[derive(Debug, Clone, Copy)]
pub struct Cache {
    /// Number of entries that fit.
    pub capacity: f64,
    /// Life of an entry after its fill, in seconds.
    pub life_s: f64,
    /// Its eviction policy.
    pub policy: Policy,
}

/// Times that determine which links a cache holds, in seconds. Infinite if all fit.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Times {
    /// Characteristic time of the remembered keys; only for [`Policy::TwoLru`].
    keys_s: f64,
    /// Characteristic time of the entries.
    entries_s: f64,
}

impl Cache {
    /// The characteristic times for requests at `rate` a second.
    pub fn times(&self, popularity: &Popularity, rate: f64) -> Times {
        if popularity.links() <= self.capacity {
            return Times { keys_s: f64::INFINITY, entries_s: f64::INFINITY };
        }
        let solve = |held: &dyn Fn(&Group, f64) -> f64| {
            root(|seconds| popularity.sum(|group| held(group, seconds)) - self.capacity)
        };
        let keys_s = match self.policy {
            Policy::Lru => 0.0,
            Policy::TwoLru => solve(&|group, seconds| within(rate * group.share, seconds)),
        };
        let entries_s =
            solve(&|group, entries_s| self.held(Times { keys_s, entries_s }, rate * group.share));
        Times { keys_s, entries_s }
    }

    /// Probability that the cache holds a link that is requested `rate` times a second, fresh or not.
    pub fn held(&self, times: Times, rate: f64) -> f64 {
        let entry = within(rate, times.entries_s);
        match self.policy {
            Policy::Lru => entry,
            Policy::TwoLru => {
                let key = within(rate, times.keys_s);
                if entry >= 1.0 { 1.0 } else { entry * key / (1.0 - entry * (1.0 - key)) }
            }
        }
    }

    /// Probability that a request finds a fresh entry. Changes end an entry's life early, at `changes` a second and link.
    pub fn hit_ratio(&self, times: Times, rate: f64, changes: f64) -> f64 {
        let life_s =
            if changes > 0.0 { -(-changes * self.life_s).exp_m1() / changes } else { self.life_s };
        let hits = hits_of_a_fill(rate, self.held(times, rate), life_s);
        1.0 - 1.0 / (1.0 + hits)
    }
}

/// Probability of a request within `seconds`.
fn within(rate: f64, seconds: f64) -> f64 {
    if seconds.is_infinite() { 1.0 } else { -(-rate * seconds).exp_m1() }
}

/// Expected hits of one fill, for Poisson requests at `rate`, a cache that holds the link with probability `held`, and a
/// life of `life_s`.
///
/// The entry certainly stays for a time *t*, in which a request would renew it; then it is evicted at a constant hazard,
/// chosen so that an entry without end of life gets `held / (1 - held)` hits. This is exact for a life shorter than *t*
/// and for one without end.
pub fn hits_of_a_fill(rate: f64, held: f64, life_s: f64) -> f64 {
    if held >= 1.0 {
        return rate * life_s;
    }
    let unlimited = held / (1.0 - held);
    let certain_s = -(-held).ln_1p() / rate;
    if life_s <= certain_s {
        return rate * life_s;
    }
    let later = unlimited - rate * certain_s;
    if later <= 0.0 {
        return unlimited;
    }
    let hazard = rate / later;
    rate * certain_s - later * (-hazard * (life_s - certain_s)).exp_m1()
}

/// The point where an increasing function of a positive number crosses 0, by bisection of its logarithm.
fn root(function: impl Fn(f64) -> f64) -> f64 {
    let (mut low, mut high) = (-30.0_f64, 60.0_f64);
    for _ in 0..100 {
        let middle = f64::midpoint(low, high);
        if function(middle.exp()) < 0.0 { low = middle } else { high = middle }
    }
    low.exp()
}

#[cfg(test)]
mod tests {
    use quick_cache::sync::Cache as QuickCache;
    use rand::{RngExt, SeedableRng, rngs::StdRng};

    use super::*;
    use crate::zipf::RankSampler;

    const LINKS: u32 = 100_000;

    fn cache(capacity: f64, policy: Policy) -> Cache {
        Cache { capacity, life_s: f64::INFINITY, policy }
    }

    fn predicted(cache: Cache, popularity: &Popularity, rate: f64) -> f64 {
        let times = cache.times(popularity, rate);
        popularity.sum(|group| group.share * cache.hit_ratio(times, rate * group.share, 0.0))
    }

    #[test]
    fn a_cache_for_all_links_misses_once_a_life() {
        let popularity = Popularity::zipf(100.0, 0.0, 0.0);
        let cache = Cache { capacity: 100.0, life_s: 600.0, policy: Policy::Lru };
        // Each link: a request every 10 s, so a life of 600 s has one miss and 60 hits.
        assert!((predicted(cache, &popularity, 10.0) - 60.0 / 61.0).abs() < 1e-9);
    }

    #[test]
    fn capacity_is_used_up() {
        let popularity = Popularity::zipf(f64::from(LINKS), 1.0, 0.0);
        for policy in [Policy::Lru, Policy::TwoLru] {
            let cache = cache(10_000.0, policy);
            let times = cache.times(&popularity, 1.0);
            let held = popularity.sum(|group| cache.held(times, group.share));
            assert!((held - 10_000.0).abs() < 1.0, "{policy:?}: {held}");
        }
    }

    #[test]
    fn two_lru_is_within_two_points_of_the_cache_that_l1_uses() {
        let popularity = Popularity::zipf(f64::from(LINKS), 1.0, 0.0);
        for capacity in [1_000_u32, 10_000, 40_000] {
            let real = QuickCache::new(usize::try_from(capacity).unwrap());
            let mut sampler = RankSampler::new(LINKS, 7).unwrap();
            let (mut hits, draws) = (0_u32, 1_000_000_u32);
            for draw in 0..2 * draws {
                let rank = sampler.draw();
                let hit = real.get(&rank).is_some();
                if !hit {
                    real.insert(rank, ());
                }
                hits += u32::from(hit && draw >= draws);
            }
            let measured = f64::from(hits) / f64::from(draws);
            let predicted =
                |policy| predicted(cache(f64::from(capacity), policy), &popularity, 1.0);
            let (two, lru) = (predicted(Policy::TwoLru), predicted(Policy::Lru));
            assert!(
                (two - measured).abs() < 0.02,
                "{capacity}: 2-LRU {two}, LRU {lru}, measured {measured}"
            );
            assert!(
                (two - measured).abs() < (lru - measured).abs(),
                "LRU would be nearer: {lru}, {measured}"
            );
        }
    }

    /// An LRU cache with lives, by its definition: one link's requests in virtual time.
    fn simulated(rate: f64, certain_s: f64, life_s: f64) -> f64 {
        let mut random = StdRng::seed_from_u64(3);
        let (mut now, mut filled, mut used) = (0.0, f64::NEG_INFINITY, f64::NEG_INFINITY);
        let (mut hits, requests) = (0_u32, 400_000_u32);
        for _ in 0..requests {
            let uniform: f64 = random.random();
            now -= (1.0 - uniform).ln() / rate;
            if now - used <= certain_s && now - filled <= life_s {
                hits += 1;
            } else {
                filled = now;
            }
            used = now;
        }
        f64::from(hits) / f64::from(requests)
    }

    #[test]
    fn lives_and_evictions_together_are_within_a_point_of_a_simulation() {
        for (rate, certain_s, life_s) in
            [(1.0, 2.0, 1.0), (1.0, 2.0, 5.0), (1.0, 1.0, 30.0), (0.2, 3.0, 20.0)]
        {
            let hits = hits_of_a_fill(rate, within(rate, certain_s), life_s);
            let (model, real) = (hits / (1.0 + hits), simulated(rate, certain_s, life_s));
            assert!(
                (model - real).abs() < 0.01,
                "{rate} {certain_s} {life_s}: model {model}, simulated {real}"
            );
        }
    }

    #[test]
    fn changes_shorten_lives() {
        let cache = Cache { capacity: 10.0, life_s: 600.0, policy: Policy::Lru };
        let times = Times { keys_s: 0.0, entries_s: f64::INFINITY };
        let (calm, busy) = (cache.hit_ratio(times, 1.0, 0.0), cache.hit_ratio(times, 1.0, 0.1));
        assert!((calm - 600.0 / 601.0).abs() < 1e-9);
        assert!((busy - 10.0 / 11.0).abs() < 1e-6, "a change every 10 s");
    }
}
