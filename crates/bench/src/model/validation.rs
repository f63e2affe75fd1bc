//! Predictions of measured runs: Zipf loads of several sizes on an empty L1, with one shortener and one worker.
//!
//! A prediction uses the number of links, the number of requests and their rate, and costs that were measured in other runs:
//! all clicks on one link, every link once, every link again, and lookups without clicks. Everything else about the run, the
//! size of groups included, is predicted.

use super::{
    caches::{Cache, Policy},
    click_groups::{Clicks, Group, batch_clicks},
    inputs::Inputs,
    measured::{PROCESSES, Run},
    popularity::Popularity,
    tiers::cold_shares,
};

/// Default of `cache.l1_bytes`.
const DEFAULT_L1_BYTES: f64 = 33_554_432.0;
/// Largest error of a prediction, as a share of what was measured.
pub const LARGEST_ERROR: f64 = 0.2;

/// A predicted and measured number.
#[derive(Debug, Clone, PartialEq)]
pub struct Comparison {
    /// The name of the figure.
    pub what: String,
    /// Its unit.
    pub unit: &'static str,
    /// The prediction.
    pub predicted: f64,
    /// The measurement.
    pub measured: f64,
}

impl Comparison {
    /// The error as a share of what was measured.
    pub fn error(&self) -> f64 {
        self.predicted / self.measured - 1.0
    }

    /// Whether the error is at most a fifth. Shares of tiers may also differ by a point.
    pub fn is_within_bound(&self) -> bool {
        self.error().abs() <= LARGEST_ERROR
            || (self.unit == "%" && (self.predicted - self.measured).abs() <= 1.0)
    }
}

/// Processor time of a redirect in all processes.
pub const ALL: &str = "**all processes**";

/// Compares the predictions of a run with what was measured.
pub fn compare(inputs: &Inputs, run: &Run) -> Vec<Comparison> {
    let popularity = Popularity::zipf(run.links, 1.0, 0.0);
    let l1 = Cache {
        capacity: DEFAULT_L1_BYTES / inputs.costs.l1_bytes.value,
        life_s: f64::INFINITY,
        policy: Policy::TwoLru,
    };
    let tiers = cold_shares(&popularity, l1, run.before, run.requests, 1.0);
    let group = group(inputs, run, &popularity, tiers[2]);
    let cpu_us = cpu_us(inputs, tiers, group);
    let mut rows = Vec::new();
    let mut add = |what: &str, unit: &'static str, predicted: f64, measured: f64| {
        rows.push(Comparison { what: what.to_owned(), unit, predicted, measured });
    };
    for (tier, (predicted, measured)) in
        ["L1", "L2", "PostgreSQL"].iter().zip(tiers.into_iter().zip(run.tiers))
    {
        // Without an L2 there is nothing to compare.
        if measured > 0.0 {
            add(tier, "%", 100.0 * predicted, measured);
        }
    }
    add("clicks in a group", "clicks", group.clicks, run.group_clicks);
    for (process, (predicted, measured)) in PROCESSES.iter().zip(cpu_us.into_iter().zip(run.cpu_us))
    {
        add(process, "µs", predicted, measured);
    }
    add(ALL, "µs", cpu_us.iter().sum(), run.total_us());
    add("WAL", "B", group.wal_bytes(&inputs.costs), run.wal_bytes);
    rows
}

/// The groups of a run. On a machine whose processors are all busy, the writer gets its fair share of them.
fn group(inputs: &Inputs, run: &Run, popularity: &Popularity, first: f64) -> Group {
    let settings = &inputs.settings;
    let rate = run.requests / run.seconds;
    Clicks {
        settings,
        costs: &inputs.costs,
        popularity,
        rate,
        batch: batch_clicks(settings, rate, settings.bench_cores),
        first,
        writer_cores: (settings.bench_cores / settings.bench_threads).min(1.0),
    }
    .group()
}

fn cpu_us(inputs: &Inputs, [_, l2, database]: [f64; 3], group: Group) -> [f64; 5] {
    let (costs, missed) = (&inputs.costs, l2 + database);
    [
        costs.nginx_us.value + missed * costs.nginx_wait_us.value,
        costs.shortener_us.value
            + l2 * costs.shortener_l2_us.value
            + database * costs.shortener_database_us.value,
        group.redis_us(costs)
            + missed * costs.redis_lookup_us.value
            + database * costs.redis_fill_us.value,
        group.worker_us(costs),
        group.postgres_us(costs) + database * costs.postgres_lookup_us.value,
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::document::default_inputs;

    #[test]
    fn shares_and_sums_are_predicted_within_a_fifth_for_three_sizes() {
        let inputs = default_inputs().unwrap();
        assert!(inputs.runs.len() >= 3);
        for run in &inputs.runs {
            for row in compare(&inputs, run) {
                // The document names other predictions that are not.
                if row.unit == "%" || row.what == ALL {
                    assert!(row.is_within_bound(), "{} links: {row:?}", run.links);
                }
            }
        }
    }

    #[test]
    fn predictions_use_no_measured_tier_group_time_or_wal_of_the_run() {
        let inputs = default_inputs().unwrap();
        let run = inputs.runs.first().unwrap();
        let other = Run {
            group_clicks: 1.0,
            tiers: [1.0; 3],
            cpu_us: [1.0; 5],
            wal_bytes: 1.0,
            ..run.clone()
        };
        let predictions = |run: &Run| -> Vec<(String, f64)> {
            let rows = compare(&inputs, run).into_iter().filter(|row| row.what != "L2");
            rows.map(|row| (row.what, row.predicted)).collect()
        };
        assert_eq!(predictions(run), predictions(&other));
    }
}
