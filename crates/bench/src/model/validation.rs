//! Predictions of measured runs: Zipf loads of three sizes on cold caches, with one shortener and one worker.
//!
//! The costs come from other runs (one link, every link once, and lookups without clicks), so a prediction repeats nothing
//! that was measured in the run that it is compared with.

use super::{
    caches::{Cache, Policy},
    inputs::{Inputs, Measured},
    popularity::Popularity,
    tiers::cold_shares,
};

/// Default of `cache.l1_bytes`.
const DEFAULT_L1_BYTES: f64 = 33_554_432.0;

/// Predicted shares and processor times of a run.
#[derive(Debug, Clone, PartialEq)]
pub struct Prediction {
    /// Shares of L1, L2 and PostgreSQL, in percent.
    pub tiers: [f64; 3],
    /// Processor time of a redirect by process, in microseconds, in the order of [`PROCESSES`].
    pub cpu_us: [f64; 5],
}

/// Names of the processes.
pub const PROCESSES: [&str; 5] = ["nginx", "shortener", "redis", "worker", "postgres"];

impl Prediction {
    /// Processor time of a redirect in all processes.
    pub fn total_us(&self) -> f64 {
        self.cpu_us.iter().sum()
    }
}

/// Predicts a run.
pub fn predict(inputs: &Inputs, run: &Measured) -> Prediction {
    let costs = &inputs.costs;
    let popularity = Popularity::zipf(run.links, 1.0, 0.0);
    let l1 = Cache {
        capacity: DEFAULT_L1_BYTES / costs.l1_bytes.value,
        life_s: f64::INFINITY,
        policy: Policy::TwoLru,
    };
    let [l1, l2, database] = cold_shares(&popularity, l1, run.requests, 1.0);
    let link_rows = popularity.distinct(run.group_clicks) / run.group_clicks;
    let missed = l2 + database;
    let cpu_us = [
        costs.nginx_us.value,
        costs.shortener_us.value
            + l2 * costs.shortener_l2_us.value
            + database * costs.shortener_database_us.value,
        costs.redis_click_us.value
            + link_rows * costs.redis_link_us.value
            + missed * costs.redis_lookup_us.value
            + database * costs.redis_fill_us.value,
        costs.worker_click_us.value + link_rows * costs.worker_link_us.value,
        costs.postgres_click_us.value
            + link_rows * costs.postgres_link_us.value
            + database * costs.postgres_lookup_us.value,
    ];
    Prediction { tiers: [l1, l2, database].map(|share| 100.0 * share), cpu_us }
}

/// Measured processor time of a redirect in all processes, in microseconds.
pub fn measured_us(run: &Measured) -> f64 {
    PROCESSES.iter().filter_map(|name| run.cpu_us.get(*name)).sum()
}
