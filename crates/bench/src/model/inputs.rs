//! Inputs of the model: measured costs with their sources, and the shape of the traffic.

use std::collections::BTreeMap;

use serde::Deserialize;

/// Why inputs cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum InputError {
    /// Not JSON, or a field is missing, unknown or of another type.
    #[error("the inputs are not valid JSON of the expected form")]
    Json(#[from] serde_json::Error),
    /// A number is outside its range.
    #[error("`{name}` must be {rule}, but is {value}")]
    Range {
        /// Field.
        name: String,
        /// Its rule.
        rule: &'static str,
        /// Its value.
        value: f64,
    },
}

/// A number and where it comes from.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cost {
    /// The number, in the unit of its field's name.
    pub value: f64,
    /// The row of docs/BENCHMARKS.md that it was measured for, or *assumed* with the reason.
    pub source: String,
}

/// Processor time in microseconds on the measured machine, and sizes in bytes.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Costs {
    /// nginx, for a redirect over HTTP on an open connection.
    pub nginx_us: Cost,
    /// nginx, in addition for a redirect that waits for L2 or PostgreSQL: such responses come one by one.
    pub nginx_wait_us: Cost,
    /// nginx, in addition for a redirect over HTTPS.
    pub nginx_tls_us: Cost,
    /// nginx, for a full TLS handshake.
    pub handshake_us: Cost,
    /// The shortener, for a redirect from L1 with a recorded click.
    pub shortener_us: Cost,
    /// The shortener, in addition for an answer of L2.
    pub shortener_l2_us: Cost,
    /// The shortener, in addition for an answer of PostgreSQL.
    pub shortener_database_us: Cost,
    /// Redis, for a lookup.
    pub redis_lookup_us: Cost,
    /// Redis, for the fill of an entry.
    pub redis_fill_us: Cost,
    /// Redis, for a click on a link that has many in its group.
    pub redis_click_us: Cost,
    /// Redis, in addition for each link with clicks in a group: its visitors.
    pub redis_link_us: Cost,
    /// Redis, for an invalidation, without its subscribers.
    pub redis_publish_us: Cost,
    /// Redis, for each subscriber of an invalidation.
    pub redis_subscriber_us: Cost,
    /// PostgreSQL, for a lookup.
    pub postgres_lookup_us: Cost,
    /// PostgreSQL, for a click on a link that has many in its group.
    pub postgres_click_us: Cost,
    /// PostgreSQL, in addition for each link with clicks in a group.
    pub postgres_link_us: Cost,
    /// The worker, for a click on a link that has many in its group.
    pub worker_click_us: Cost,
    /// The worker, in addition for each link with clicks in a group.
    pub worker_link_us: Cost,
    /// nginx, gateway and shortener, for a create or edit.
    pub api_write_us: Cost,
    /// PostgreSQL, for a create or edit.
    pub postgres_write_us: Cost,
    /// Size of a link by the weights of L1.
    pub l1_bytes: Cost,
    /// Resident memory of a link in L1.
    pub l1_resident_bytes: Cost,
    /// Memory of Redis for a link in L2.
    pub l2_bytes: Cost,
    /// Memory of Redis for a click in the stream.
    pub stream_bytes: Cost,
    /// Disk of PostgreSQL for a link with its events and indexes.
    pub link_disk_bytes: Cost,
    /// Disk of PostgreSQL for a raw click in a row with many.
    pub click_disk_bytes: Cost,
    /// Disk of PostgreSQL for a row of raw clicks with its index entries, in addition for each link with clicks in a group.
    pub click_row_disk_bytes: Cost,
    /// Disk of PostgreSQL for the roll-up row of a link and day, with its index.
    pub link_day_disk_bytes: Cost,
    /// WAL of PostgreSQL for a click on a link that has many in its group.
    pub click_wal_bytes: Cost,
    /// WAL of PostgreSQL, in addition for each link with clicks in a group.
    pub link_wal_bytes: Cost,
    /// Bytes sent to a visitor for a redirect, with TLS and headers.
    pub response_bytes: Cost,
}

impl Costs {
    /// All costs by name, in the order of the struct.
    pub fn rows(&self) -> Vec<(&'static str, &Cost)> {
        vec![
            ("nginx_us", &self.nginx_us),
            ("nginx_wait_us", &self.nginx_wait_us),
            ("nginx_tls_us", &self.nginx_tls_us),
            ("handshake_us", &self.handshake_us),
            ("shortener_us", &self.shortener_us),
            ("shortener_l2_us", &self.shortener_l2_us),
            ("shortener_database_us", &self.shortener_database_us),
            ("redis_lookup_us", &self.redis_lookup_us),
            ("redis_fill_us", &self.redis_fill_us),
            ("redis_click_us", &self.redis_click_us),
            ("redis_link_us", &self.redis_link_us),
            ("redis_publish_us", &self.redis_publish_us),
            ("redis_subscriber_us", &self.redis_subscriber_us),
            ("postgres_lookup_us", &self.postgres_lookup_us),
            ("postgres_click_us", &self.postgres_click_us),
            ("postgres_link_us", &self.postgres_link_us),
            ("worker_click_us", &self.worker_click_us),
            ("worker_link_us", &self.worker_link_us),
            ("api_write_us", &self.api_write_us),
            ("postgres_write_us", &self.postgres_write_us),
            ("l1_bytes", &self.l1_bytes),
            ("l1_resident_bytes", &self.l1_resident_bytes),
            ("l2_bytes", &self.l2_bytes),
            ("stream_bytes", &self.stream_bytes),
            ("link_disk_bytes", &self.link_disk_bytes),
            ("click_disk_bytes", &self.click_disk_bytes),
            ("click_row_disk_bytes", &self.click_row_disk_bytes),
            ("link_day_disk_bytes", &self.link_day_disk_bytes),
            ("click_wal_bytes", &self.click_wal_bytes),
            ("link_wal_bytes", &self.link_wal_bytes),
            ("response_bytes", &self.response_bytes),
        ]
    }
}

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
    /// Most clicks in a batch.
    pub batch_clicks: f64,
    /// Most batches in a group (`worker.group_batches`).
    pub group_batches: f64,
    /// Interval at which a process sends a batch, in seconds (`clicks.flush_ms`).
    pub flush_s: f64,
    /// Seconds of clicks that must fit in the stream while no worker runs.
    pub stream_s: f64,
    /// Heartbeats of a process on the invalidation bus, a second.
    pub heartbeats: f64,
    /// Most useful processors of one PostgreSQL primary.
    pub primary_cores: f64,
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
}

/// Prices.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Prices {
    /// Where and when they were read.
    pub source: String,
    /// Machines for nginx, gateway, shortener and worker.
    pub application: Machine,
    /// Machines for Redis, of which one core serves commands.
    pub redis: Machine,
    /// Machines for PostgreSQL, the smallest first.
    pub postgres: Vec<Machine>,
    /// A GiB of block storage, in dollars a month.
    pub disk_gib: f64,
    /// A GiB of outbound traffic beyond what machines include, in dollars.
    pub transfer_gib: f64,
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

/// A measured run that the model predicts.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Measured {
    /// Number of links in the Zipf distribution.
    pub links: f64,
    /// Requests of the run, from cold caches.
    pub requests: f64,
    /// Mean number of clicks in a group.
    pub group_clicks: f64,
    /// Shares of L1, L2 and PostgreSQL, in percent.
    pub tiers: [f64; 3],
    /// Processor time of a redirect by process, in microseconds.
    pub cpu_us: BTreeMap<String, f64>,
}

/// Everything that the model reads.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Inputs {
    /// Measured costs.
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
    /// Where and when the runs below were measured.
    pub measured_on: String,
    /// Runs to predict.
    pub measured: Vec<Measured>,
}

impl Inputs {
    /// Reads and checks inputs.
    pub fn from_json(text: &str) -> Result<Self, InputError> {
        let inputs: Self = serde_json::from_str(text)?;
        inputs.check()?;
        Ok(inputs)
    }

    fn check(&self) -> Result<(), InputError> {
        for (name, cost) in self.costs.rows() {
            require(name, cost.value, cost.value > 0.0 && cost.value.is_finite(), "above 0")?;
        }
        let shape = &self.shape;
        require(
            "zipf_exponent",
            shape.zipf_exponent,
            (0.0..=3.0).contains(&shape.zipf_exponent),
            "from 0 to 3",
        )?;
        for (name, value) in [
            ("bot_share", shape.bot_share),
            ("edit_share", shape.edit_share),
            ("average_to_peak", shape.average_to_peak),
            ("utilization", self.settings.utilization),
            ("l1_memory_share", self.settings.l1_memory_share),
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
    use crate::model::document::DEFAULT_INPUTS;

    #[test]
    fn default_inputs_are_valid_and_every_cost_has_a_source() {
        let inputs = Inputs::from_json(DEFAULT_INPUTS).unwrap();
        for (name, cost) in inputs.costs.rows() {
            assert!(!cost.source.is_empty(), "{name}");
        }
    }

    #[test]
    fn numbers_outside_their_range_are_named() {
        let text = DEFAULT_INPUTS.replace("\"bot_share\": 0.", "\"bot_share\": 7.");
        let error = Inputs::from_json(&text).unwrap_err().to_string();
        assert!(error.contains("`bot_share` must be from 0 to 1"), "{error}");
        let error = Inputs::from_json(&DEFAULT_INPUTS.replace("bot_share", "bots")).unwrap_err();
        assert!(matches!(error, InputError::Json(_)), "{error}");
    }
}
