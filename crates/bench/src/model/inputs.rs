//! Inputs of the model: costs with their sources, the shape of the traffic, settings, prices and regions.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::{
    costs::{CostSource, Costs},
    input_error::InputError,
    measured::{Measured, Run},
};

/// The traffic of all scenarios.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Shape {
    /// Exponent of Zipf's law; 0 is uniform.
    pub zipf_exponent: f64,
    /// Share of the redirects that bots request, evenly over all links.
    pub bot_share: f64,
    /// Requests for codes that do not exist, for each redirect.
    pub unknown_share: f64,
    /// Full TLS handshakes for each redirect.
    pub handshakes: f64,
    /// Creates and edits for each redirect.
    pub writes: f64,
    /// Share of them that changes a link that exists.
    pub edit_share: f64,
    /// Average rate divided by the peak rate, which the scenarios name.
    pub average_to_peak: f64,
    /// Days for which raw clicks are kept.
    pub retention_days: f64,
}

/// Settings of Linnet that matter, and how machines are used.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Share of a machine's processors in use at the peak.
    pub utilization: f64,
    /// Life of an L1 entry, in seconds (`cache.l1_ttl_ms`).
    pub l1_life_s: f64,
    /// Life of an L2 entry, in seconds (`cache.l2_ttl_s`).
    pub l2_life_s: f64,
    /// Share of an application node's memory for L1.
    pub l1_memory_share: f64,
    /// Most clicks in a batch, and clicks in a server thread's buffer at which the process sends one.
    pub batch_clicks: f64,
    /// Most batches in a group (`worker.group_batches`).
    pub group_batches: f64,
    /// Transactions that write roll-ups at the same time, one for each shard, when clicks have waited for 5 s.
    pub click_writers: f64,
    /// Interval at which a process sends a batch, in seconds (`clicks.flush_ms`).
    pub flush_s: f64,
    /// Seconds of clicks that must fit in the stream while no worker runs.
    pub stream_s: f64,
    /// Heartbeats of a process on the invalidation bus, a second.
    pub heartbeats: f64,
    /// Most useful processors of one PostgreSQL primary.
    pub primary_cores: f64,
    /// Largest disk of one machine, in GiB.
    pub disk_gib: f64,
    /// WAL that replicas and the archive can follow, in MB a second.
    pub wal_mb: f64,
    /// Processors of the machine of the benchmark, which are also the server threads of its shortener.
    pub bench_cores: f64,
    /// Threads that want to run while `wrk` sends requests at its peak: two each of `wrk`, nginx and the shortener, and one
    /// that writes clicks.
    pub bench_threads: f64,
}

/// A rented machine.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Machine {
    /// Name of the plan.
    pub name: String,
    /// Virtual processors.
    pub cores: f64,
    /// Memory, in GiB.
    pub memory_gib: f64,
    /// Price a month, in US dollars.
    pub dollars: f64,
    /// Outbound traffic that the price includes, in GiB a month.
    pub transfer_gib: f64,
    /// Marks of the sources of these numbers.
    pub sources: String,
}

/// A price for a GiB.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GibPrice {
    /// In US dollars.
    pub dollars: f64,
    /// Marks of its sources.
    pub sources: String,
}

/// Where prices come from.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PriceSource {
    /// Letter.
    pub mark: String,
    /// Name, and the relevant content.
    pub content: String,
    /// Date of its content.
    pub date: String,
}

/// Prices.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Prices {
    /// Sources.
    pub sources: Vec<PriceSource>,
    /// When the sources were read.
    pub read_on: String,
    /// Machines for nginx, gateway, shortener and worker.
    pub application: Machine,
    /// Machines for Redis, of which one core serves commands.
    pub redis: Machine,
    /// Machines for PostgreSQL, the smallest first.
    pub postgres: Vec<Machine>,
    /// A GiB of block storage, for a month.
    pub disk_gib: GibPrice,
    /// A GiB of outbound traffic beyond what machines include.
    pub transfer_gib: GibPrice,
}

/// A region, by its distance from the one with the primary.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Region {
    /// Name.
    pub name: String,
    /// Round-trip time to the home region, in milliseconds.
    pub round_trip_ms: f64,
}

/// An input file.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct InputFile {
    costs: BTreeMap<String, CostSource>,
    shape: Shape,
    settings: Settings,
    rates: Vec<f64>,
    links: Vec<f64>,
    prices: Prices,
    regions: Vec<Region>,
}

/// Everything that the model reads.
#[derive(Debug, Clone)]
pub struct Inputs {
    /// Costs.
    pub costs: Costs,
    /// Traffic.
    pub shape: Shape,
    /// Settings.
    pub settings: Settings,
    /// Peak rates of the scenarios, in redirects a second.
    pub rates: Vec<f64>,
    /// Numbers of links of the scenarios.
    pub links: Vec<f64>,
    /// Prices.
    pub prices: Prices,
    /// Regions; the first one is the home region.
    pub regions: Vec<Region>,
    /// The figures behind the costs.
    pub measured: Measured,
    /// The runs to predict.
    pub runs: Vec<Run>,
}

impl Inputs {
    /// Reads and checks inputs: the text of `scale.json`, and figures.
    pub fn from_json(text: &str, measured: Measured) -> Result<Self, InputError> {
        let InputFile { costs, shape, settings, rates, links, prices, regions } =
            serde_json::from_str(text)?;
        let costs = Costs::new(&costs, &measured)?;
        let runs = measured.runs()?;
        let inputs = Self { costs, shape, settings, rates, links, prices, regions, measured, runs };
        inputs.check()?;
        Ok(inputs)
    }

    fn check(&self) -> Result<(), InputError> {
        for (name, cost) in self.costs.rows() {
            // The addition for the first click of a day may be below the noise of two large figures.
            let least =
                if name.contains("_first_") || name.starts_with("first_") { -1.0 } else { 0.0 };
            require(name, cost.value, cost.value > least && cost.value.is_finite(), "above 0")?;
        }
        let (shape, settings) = (&self.shape, &self.settings);
        let exponent = shape.zipf_exponent;
        require("zipf_exponent", exponent, (0.0..=3.0).contains(&exponent), "from 0 to 3")?;
        for (name, value) in [
            ("bot_share", shape.bot_share),
            ("edit_share", shape.edit_share),
            ("average_to_peak", shape.average_to_peak),
            ("utilization", settings.utilization),
            ("l1_memory_share", settings.l1_memory_share),
        ] {
            require(name, value, (0.0..=1.0).contains(&value), "from 0 to 1")?;
        }
        for (name, values) in [("rates", &self.rates), ("links", &self.links)] {
            for &value in values {
                require(name, value, (1.0..=1e12).contains(&value), "from 1 to 10¹²")?;
            }
        }
        for region in &self.regions {
            let (name, value) = ("round_trip_ms", region.round_trip_ms);
            require(name, value, (0.0..10_000.0).contains(&value), "from 0 to 10,000")?;
        }
        Ok(())
    }
}

fn require(name: &str, value: f64, holds: bool, rule: &'static str) -> Result<(), InputError> {
    if holds { Ok(()) } else { Err(InputError::Range { name: name.to_owned(), rule, value }) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::document::{DEFAULT_INPUTS, default_inputs, default_measured};

    #[test]
    fn default_inputs_are_valid_and_every_cost_has_a_source() {
        for (name, cost) in default_inputs().unwrap().costs.rows() {
            assert!(!cost.source.is_empty(), "{name}");
        }
    }

    #[test]
    fn every_price_has_a_source_that_is_listed() {
        let prices = default_inputs().unwrap().prices;
        let machines = prices.postgres.iter().chain([&prices.application, &prices.redis]);
        let marks = machines.map(|machine| &machine.sources);
        for marks in marks.chain([&prices.disk_gib.sources, &prices.transfer_gib.sources]) {
            for mark in marks.split(", ") {
                assert!(prices.sources.iter().any(|source| source.mark == mark), "{mark}");
            }
        }
        assert!(prices.sources.iter().all(|source| !source.date.is_empty()));
    }

    #[test]
    fn settings_are_the_defaults_of_configuration() {
        let text = include_str!("../../../../docs/CONFIGURATION.md");
        let settings = default_inputs().unwrap().settings;
        for (name, value) in [
            ("clicks.flush_ms", settings.flush_s * 1e3),
            ("worker.group_batches", settings.group_batches),
            ("cache.l1_ttl_ms", settings.l1_life_s * 1e3),
            ("cache.l2_ttl_s", settings.l2_life_s),
        ] {
            let line = text.lines().find(|line| line.starts_with(&format!("| `{name}` |")));
            assert!(line.unwrap().contains(&format!("| `{value}` |")), "{name}: {value}");
        }
    }

    #[test]
    fn numbers_outside_their_range_are_named() {
        let read = |text: &str| Inputs::from_json(text, default_measured().unwrap()).unwrap_err();
        let error = read(&DEFAULT_INPUTS.replace("\"bot_share\": 0.", "\"bot_share\": 7."));
        assert!(error.to_string().contains("`bot_share` must be from 0 to 1"), "{error}");
        let error = read(&DEFAULT_INPUTS.replace("bot_share", "bots"));
        assert!(matches!(error, InputError::Json(_)), "{error}");
        let error = read(&DEFAULT_INPUTS.replace("one_link_nginx", "no_link_nginx"));
        assert!(matches!(error, InputError::NoFigure(_)), "{error}");
    }
}
