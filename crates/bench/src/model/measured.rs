//! Figures of `make bench ONLY=cost`, and the runs among them that the model predicts.
//!
//! `crates/bench/measured.json` has them as they were measured. Nothing is copied by hand:
//! `linnet-bench model --figures target/bench/latest.json --measured-on … --write` writes the file.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::input_error::InputError;

/// Names of the processes of a redirect.
pub const PROCESSES: [&str; 5] = ["nginx", "shortener", "redis", "worker", "postgres"];

/// Processor time of a redirect in nginx and the bare handler on the idle reference machine, in microseconds.
const IDLE_BARE_US: f64 = 17.5;

/// Figures of one run of the benchmark.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Measured {
    /// When, on which machine, under which load.
    pub measured_on: String,
    /// Value of each figure, without `cost_` in its name.
    pub figures: BTreeMap<String, f64>,
    /// Figures that were not measured, with assumed values.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub assumed: BTreeMap<String, f64>,
}

/// A line of `target/bench/latest.json`.
#[derive(Deserialize)]
struct Line {
    name: String,
    value: f64,
}

/// A measured load that the model predicts.
#[derive(Debug, Clone, PartialEq)]
pub struct Run {
    /// Number of links in the Zipf distribution.
    pub links: f64,
    /// Requests before, by another process with the same L2; 0 if L2 was empty.
    pub before: f64,
    /// Requests of the run, with an empty L1.
    pub requests: f64,
    /// Length in seconds.
    pub seconds: f64,
    /// Mean number of clicks in a group.
    pub group_clicks: f64,
    /// Shares of L1, L2 and PostgreSQL, in percent.
    pub tiers: [f64; 3],
    /// Processor time of a redirect by process, in microseconds of the idle machine, in the order of [`PROCESSES`].
    pub cpu_us: [f64; 5],
    /// WAL of a redirect, in bytes.
    pub wal_bytes: f64,
}

impl Measured {
    /// Takes the figures of the part `cost` from the text of `target/bench/latest.json`.
    pub fn from_bench(text: &str, measured_on: String) -> Result<Self, InputError> {
        let lines: Vec<Line> = serde_json::from_str(text)?;
        let figures: BTreeMap<String, f64> = lines
            .into_iter()
            .filter_map(|line| Some((line.name.strip_prefix("cost_")?.to_owned(), line.value)))
            .collect();
        let measured = Self { measured_on, figures, assumed: BTreeMap::new() };
        measured.scale()?;
        Ok(measured)
    }

    /// The value of a figure.
    pub fn figure(&self, name: &str) -> Result<f64, InputError> {
        let value = self.figures.get(name).or_else(|| self.assumed.get(name));
        value.copied().ok_or_else(|| InputError::NoFigure(name.to_owned()))
    }

    /// Factor from the processor time of the measured machine at that time to that of the idle reference machine.
    pub fn scale(&self) -> Result<f64, InputError> {
        Ok(IDLE_BARE_US / self.figure("bare")?)
    }

    /// The runs to predict, the smallest first: Zipf loads with empty caches, then those with a filled L2.
    pub fn runs(&self) -> Result<Vec<Run>, InputError> {
        let mut runs = Vec::new();
        for kind in ["zipf", "warm"] {
            let mut sizes: Vec<u64> = self
                .figures
                .keys()
                .filter_map(|name| name.strip_prefix(kind)?.strip_prefix('_'))
                .filter_map(|name| name.strip_suffix("_requests")?.parse().ok())
                .collect();
            sizes.sort_unstable();
            for links in sizes {
                let before = if kind == "warm" {
                    self.figure(&format!("zipf_{links}_requests"))?
                } else {
                    0.0
                };
                runs.push(self.run(&format!("{kind}_{links}"), links, before)?);
            }
        }
        Ok(runs)
    }

    fn run(&self, name: &str, links: u64, before: f64) -> Result<Run, InputError> {
        let figure = |part: &str| self.figure(&format!("{name}_{part}"));
        let scale = self.scale()?;
        let mut cpu_us = [0.0; 5];
        for (time, process) in cpu_us.iter_mut().zip(PROCESSES) {
            *time = scale * figure(process)?;
        }
        Ok(Run {
            links: size(links),
            before,
            requests: figure("requests")?,
            seconds: self.figure("round_s")?,
            group_clicks: figure("group")?,
            tiers: [figure("local")?, figure("shared")?, figure("database")?],
            cpu_us,
            wal_bytes: figure("wal")?,
        })
    }
}

#[expect(clippy::cast_precision_loss, reason = "numbers of links are far below 2^52")]
fn size(links: u64) -> f64 {
    links as f64
}

impl Run {
    /// Processor time of a redirect in all processes, in microseconds.
    pub fn total_us(&self) -> f64 {
        self.cpu_us.iter().sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_of_other_parts_are_left_out_and_times_are_scaled() {
        let text = r#"[{"name": "cost_bare", "value": 35.0, "unit": "us/req", "bar": null, "met": true},
                       {"name": "nginx_to_bare", "value": 1.0, "unit": "req/s", "bar": null, "met": true}]"#;
        let measured = Measured::from_bench(text, "today".to_owned()).unwrap();
        assert_eq!(measured.figures.len(), 1);
        assert!((measured.scale().unwrap() - 0.5).abs() < 1e-9);
        let error = measured.figure("one_link_nginx").unwrap_err().to_string();
        assert!(error.contains("`cost_one_link_nginx`"), "{error}");
    }

    #[test]
    fn results_without_the_part_cost_are_rejected() {
        let error = Measured::from_bench("[]", "today".to_owned()).unwrap_err().to_string();
        assert!(error.contains("`cost_bare`"), "{error}");
    }
}
