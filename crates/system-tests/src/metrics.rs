//! The text that `/metrics` serves, as numbers.

use std::collections::{BTreeMap, BTreeSet};

/// One scrape.
#[derive(Debug, Clone)]
pub struct Metrics(Vec<Sample>);

/// One line of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// The metric.
    pub name: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Its value.
    pub value: f64,
}

impl Metrics {
    /// Reads the Prometheus text format.
    pub fn parse(text: &str) -> Self {
        Self(text.lines().filter(|line| !line.starts_with('#')).filter_map(sample).collect())
    }

    /// The sum over all series of a metric that have these labels. A counter may be asked for with
    /// or without its `_total`.
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let total = format!("{name}_total");
        self.0
            .iter()
            .filter(|sample| sample.name == name || sample.name == total)
            .filter(|sample| {
                labels
                    .iter()
                    .all(|(key, value)| sample.labels.get(*key).is_some_and(|v| v == value))
            })
            // 0 is positive here: an empty float sum would be -0.
            .fold(0.0, |sum, sample| sum + sample.value)
    }

    /// How many series there are.
    pub fn series(&self) -> usize {
        self.0.len()
    }

    /// Names and labels, for comparing two scrapes.
    pub fn keys(&self) -> BTreeSet<String> {
        self.0.iter().map(|sample| format!("{}{:?}", sample.name, sample.labels)).collect()
    }

    /// All lines.
    pub fn samples(&self) -> &[Sample] {
        &self.0
    }
}

fn sample(line: &str) -> Option<Sample> {
    let (name_end, labels_end) = match (line.find('{'), line.rfind('}')) {
        (Some(open), Some(close)) => (open, close + 1),
        _ => (line.find(' ')?, line.find(' ')?),
    };
    let value = line[labels_end..].split_whitespace().next()?.parse().ok()?;
    let labels = line.get(name_end + 1..labels_end.saturating_sub(1)).unwrap_or_default();
    let labels = labels
        .split("\",")
        .filter_map(|pair| pair.split_once("=\""))
        .map(|(key, value)| (key.to_owned(), value.trim_end_matches('"').to_owned()))
        .collect();
    Some(Sample { name: line[..name_end].to_owned(), labels, value })
}
