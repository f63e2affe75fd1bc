//! Parses the Prometheus text of `/metrics`.

use std::collections::{BTreeMap, BTreeSet};

/// The samples of one scrape.
#[derive(Debug, Clone)]
pub struct Metrics(Vec<Sample>);

/// One sample.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// The metric's name.
    pub name: String,
    /// The labels.
    pub labels: BTreeMap<String, String>,
    /// The value.
    pub value: f64,
}

impl Metrics {
    /// Parses the Prometheus text format and ignores comments.
    pub fn parse(text: &str) -> Self {
        Self(text.lines().filter(|line| !line.starts_with('#')).filter_map(sample).collect())
    }

    /// The sum over all series of a metric that have these labels. The name of a counter may omit its
    /// suffix `_total`.
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
            // Starts at +0, because `Iterator::sum` of no floats is -0.
            .fold(0.0, |sum, sample| sum + sample.value)
    }

    /// The number of series.
    pub fn series_count(&self) -> usize {
        self.0.len()
    }

    /// Names and labels of all series, for comparing two scrapes.
    pub fn series_keys(&self) -> BTreeSet<String> {
        self.0.iter().map(|sample| format!("{}{:?}", sample.name, sample.labels)).collect()
    }

    /// All samples.
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
