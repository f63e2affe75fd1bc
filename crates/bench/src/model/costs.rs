//! Costs of single steps: each is a given number with its source, or a sum of measured [`figures`](super::measured).

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::{input_error::InputError, measured::Measured};

/// How an input file states a cost.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged, deny_unknown_fields)]
pub enum CostSource {
    /// A number from elsewhere.
    Given {
        /// The number, in the unit of the cost's name.
        value: f64,
        /// Where it was measured, or *assumed* with the reason.
        source: String,
    },
    /// Figures of `make bench ONLY=cost`, without `cost_`.
    Figures {
        /// Figures that are added.
        plus: Vec<String>,
        /// Figures that are subtracted.
        #[serde(default)]
        minus: Vec<String>,
    },
}

impl CostSource {
    /// The value and its source. Times are scaled to the idle machine.
    fn evaluate(&self, name: &str, measured: &Measured) -> Result<(f64, String), InputError> {
        let (plus, minus) = match self {
            Self::Given { value, source } => return Ok((*value, source.clone())),
            Self::Figures { plus, minus } => (plus, minus),
        };
        let mut value = 0.0;
        for (figures, sign) in [(plus, 1.0), (minus, -1.0)] {
            for figure in figures {
                value += sign * measured.figure(figure)?;
            }
        }
        let scale = if name.ends_with("_us") { measured.scale()? } else { 1.0 };
        let list = |figures: &[String], between: &str| -> String {
            let names: Vec<_> = figures.iter().map(|figure| format!("`{figure}`")).collect();
            names.join(between)
        };
        let minus_list = if minus.is_empty() { "" } else { " − " };
        let source = format!("{}{minus_list}{}", list(plus, " + "), list(minus, " − "));
        // A difference of two nearly equal figures may be below 0 by noise.
        Ok((value.max(0.0) * scale, source))
    }
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
    /// Redis, in addition for the first click of a day on a link.
    pub redis_first_us: Cost,
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
    /// PostgreSQL, in addition for the first click of a day on a link: new rows instead of changed ones.
    pub postgres_first_us: Cost,
    /// The worker, for a click on a link that has many in its group.
    pub worker_click_us: Cost,
    /// The worker, in addition for each link with clicks in a group.
    pub worker_link_us: Cost,
    /// The worker, in addition for the first click of a day on a link.
    pub worker_first_us: Cost,
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
    /// WAL of PostgreSQL, in addition for the first click of a day on a link.
    pub first_wal_bytes: Cost,
    /// Bytes sent to a visitor for a redirect, with TLS and headers.
    pub response_bytes: Cost,
}

impl Costs {
    /// Evaluates the costs of an input file.
    pub fn new(
        sources: &BTreeMap<String, CostSource>,
        measured: &Measured,
    ) -> Result<Self, InputError> {
        let mut costs = Map::new();
        for (name, source) in sources {
            let (value, source) = source.evaluate(name, measured)?;
            costs.insert(name.clone(), json!({ "value": value, "source": source }));
        }
        Ok(serde_json::from_value(Value::Object(costs))?)
    }

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
            ("redis_first_us", &self.redis_first_us),
            ("redis_publish_us", &self.redis_publish_us),
            ("redis_subscriber_us", &self.redis_subscriber_us),
            ("postgres_lookup_us", &self.postgres_lookup_us),
            ("postgres_click_us", &self.postgres_click_us),
            ("postgres_link_us", &self.postgres_link_us),
            ("postgres_first_us", &self.postgres_first_us),
            ("worker_click_us", &self.worker_click_us),
            ("worker_link_us", &self.worker_link_us),
            ("worker_first_us", &self.worker_first_us),
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
            ("first_wal_bytes", &self.first_wal_bytes),
            ("response_bytes", &self.response_bytes),
        ]
    }
}
