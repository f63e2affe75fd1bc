//! Compares the metrics of *Delivery of clicks* in `docs/ARCHITECTURE.md` with the registered ones.

use std::{collections::BTreeSet, fs, path::Path};

use linnet_platform::{clock::Clock, redis_client::RedisClient, settings::RedisSettings};
use linnet_telemetry::testing;

use crate::{
    ingest::{IngestMetrics, StreamMonitor},
    recording::RecordingMetrics,
};

/// The series that the table of losses names, with their labels.
fn documented_series() -> BTreeSet<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/ARCHITECTURE.md");
    let document = fs::read_to_string(path).unwrap();
    let table = document
        .lines()
        .skip_while(|line| *line != "### Delivery of clicks")
        .skip_while(|line| !line.starts_with("| what happens | what is lost |"))
        .skip(2)
        .take_while(|line| line.starts_with('|'));
    let counted = table.map(|row| row.split('|').nth(3).unwrap());
    let code_spans = counted.flat_map(|cell| cell.split('`').skip(1).step_by(2));
    code_spans.filter(|span| span.starts_with("linnet_")).map(str::to_owned).collect()
}

#[test]
fn document_names_registered_metrics_for_each_loss() {
    let (telemetry, reader) = testing::telemetry();
    let meter = telemetry.meter();
    let _recording = RecordingMetrics::new(&meter);
    let _ingest = IngestMetrics::new(&meter);
    let (redis, _connection) = RedisClient::new(&RedisSettings::default(), None).unwrap();
    let _monitor = StreamMonitor::new(redis, &meter, Clock::System);

    let documented = documented_series();
    assert!(documented.len() >= 9, "{documented:?}");
    for series in documented {
        let (name, labels) = series.split_once('{').unwrap_or((&series, ""));
        let label = labels.trim_end_matches('}').split_once('=');
        let label = label.map(|(key, value)| (key, value.trim_matches('"')));
        let found = reader.value(name, label.as_slice());
        assert!(found.is_some(), "{series} is not registered");
    }
}
