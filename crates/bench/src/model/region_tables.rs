//! The tables of regions in `docs/SCALE.md`: staleness by arithmetic, then by simulation.

use super::{
    inputs::{Inputs, Region},
    regions::{self, BOUND_MS, staleness},
    simulation::{self, FaultKind, Plan, Report},
    tables::{number, table},
};

/// Seeds of the simulated runs.
const SEEDS: std::ops::RangeInclusive<u64> = 1..=6;
/// Regions of the simulation.
const REGIONS: usize = 3;
/// Upper ends of the columns of the distribution, in milliseconds.
const BINS_MS: [f64; 7] = [100.0, 200.0, 300.0, 400.0, 600.0, 800.0, BOUND_MS];

/// Longest staleness by round-trip time.
pub(super) fn staleness_table(inputs: &Inputs) -> String {
    let farthest = inputs.regions.iter().map(|region| region.round_trip_ms).fold(0.0, f64::max);
    let rows: Vec<_> = inputs
        .regions
        .iter()
        .map(|region| {
            let times = staleness(region.round_trip_ms, farthest);
            vec![
                region.name.clone(),
                format!("{} ms", number(region.round_trip_ms)),
                format!("{} ms", number(times.published_ms)),
                format!("{} ms", number(times.relayed_ms)),
                format!("{} ms", number(times.cut_off_ms)),
                format!("{} ms", number(times.lookup_ms)),
                if times.bus_is_live { "yes" } else { "no" }.to_owned(),
            ]
        })
        .collect();
    let head = [
        "region",
        "round trip",
        "published",
        "publisher dies",
        "region cut off",
        "miss of L1 and L2",
        "L1 keeps its life",
    ];
    let longest = regions::longest_round_trip_ms();
    format!(
        "{}\nLongest round trip for which the bound of 1 s holds and L1 keeps its life: {longest} ms.\n",
        table(&head, &rows)
    )
}

fn fault_name(fault: Option<FaultKind>) -> &'static str {
    match fault {
        None => "none",
        Some(FaultKind::RelayCut) => "relay of a region cut off",
        Some(FaultKind::CutOff) => "region cut off",
        Some(FaultKind::ToHomeLost) => "messages to the home region lost",
        Some(FaultKind::FromHomeLost) => "messages from the home region lost",
        Some(FaultKind::RegionLost) => "region lost",
        Some(FaultKind::HomeLost) => "home region lost",
        Some(FaultKind::Paused) => "process paused",
    }
}

/// Results of the simulation, then the distribution of staleness.
pub(super) fn simulations(inputs: &Inputs) -> String {
    let faults = std::iter::once(None).chain(FaultKind::ALL.map(Some));
    let (mut rows, mut distribution) = (Vec::new(), Vec::new());
    for fault in faults {
        let mut report = Report::default();
        for seed in SEEDS {
            report.add(simulation::run(&plan(&inputs.regions, fault, seed)));
        }
        rows.push(result_row(fault_name(fault), &report));
        distribution.push(distribution_row(fault_name(fault), &report));
    }
    let head = [
        "fault",
        "faults",
        "redirects",
        "503",
        "edits",
        "p50",
        "p99",
        "p99.9",
        "longest",
        "past 1 s",
    ];
    let bins = BINS_MS.map(|end| format!("≤ {end} ms"));
    let mut bin_head = vec!["fault"];
    bin_head.extend(bins.iter().map(String::as_str));
    bin_head.push("longer");
    format!("{}\n{}", table(&head, &rows), table(&bin_head, &distribution))
}

/// Round-trip times between the first regions. Only those to the home region are given; others are at most their sum.
fn round_trips_ms(regions: &[Region]) -> Vec<Vec<f64>> {
    let times: Vec<f64> = regions.iter().map(|region| region.round_trip_ms).take(REGIONS).collect();
    let between = |from: usize, to: usize| match (from, to) {
        _ if from == to => 1.0,
        (0, other) | (other, 0) => times.get(other).copied().unwrap_or(0.0),
        _ => [from, to].into_iter().filter_map(|region| times.get(region)).sum(),
    };
    (0..times.len()).map(|from| (0..times.len()).map(|to| between(from, to)).collect()).collect()
}

fn plan(regions: &[Region], fault: Option<FaultKind>, seed: u64) -> Plan {
    Plan {
        round_trips_ms: round_trips_ms(regions),
        processes: 3,
        seconds: 300.0,
        visits_a_second: 50.0,
        edits_a_second: 2.0,
        deaths: 0.05,
        slow_clocks: 0.02,
        fault,
        broken: None,
        seed,
    }
}

fn result_row(name: &str, report: &Report) -> Vec<String> {
    let mut row = vec![
        name.to_owned(),
        report.faults.to_string(),
        report.responses.to_string(),
        report.failed.to_string(),
        report.edits.to_string(),
    ];
    for share in [0.5, 0.99, 0.999] {
        row.push(format!("{:.0} ms", quantile(&report.staleness_ms, share).unwrap_or(0.0)));
    }
    row.push(format!("{:.0} ms", report.longest_ms));
    row.push(report.stale_past_bound.to_string());
    row
}

/// Shares of edits and regions by the time for which the old target was served.
fn distribution_row(name: &str, report: &Report) -> Vec<String> {
    let times = &report.staleness_ms;
    let mut row = vec![name.to_owned()];
    let mut before = 0;
    for end in BINS_MS {
        let until = times.partition_point(|&time| time <= end);
        row.push(share_of(until - before, times.len()));
        before = until;
    }
    row.push(share_of(times.len() - before, times.len()));
    row
}

fn share_of(part: usize, all: usize) -> String {
    if part == 0 { "0".to_owned() } else { format!("{:.2} %", 100.0 * ratio(part, all)) }
}

/// A quantile of sorted values.
fn quantile(sorted: &[f64], share: f64) -> Option<f64> {
    let skipped =
        (1..=sorted.len()).take_while(|&place| ratio(place, sorted.len()) < share).count();
    sorted.get(skipped).copied()
}

#[expect(clippy::cast_precision_loss, reason = "counts of edits are far below 2^52")]
fn ratio(part: usize, all: usize) -> f64 {
    part as f64 / all as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_values_of_the_list() {
        let values = [1.0, 2.0, 3.0, 4.0];
        assert_eq!(quantile(&values, 0.5), Some(2.0));
        assert_eq!(quantile(&values, 0.99), Some(4.0));
        assert_eq!(quantile(&[], 0.5), None);
    }

    #[test]
    fn the_distribution_counts_each_edit_once() {
        let report = Report { staleness_ms: vec![0.0, 100.0, 150.0, 2_000.0], ..Report::default() };
        let row = distribution_row("x", &report);
        assert_eq!(row.first().map(String::as_str), Some("x"));
        assert_eq!(row.get(1).map(String::as_str), Some("50.00 %"));
        assert_eq!(row.last().map(String::as_str), Some("25.00 %"));
    }

    #[test]
    fn regions_are_no_farther_from_each_other_than_by_way_of_the_home_region() {
        let regions: Vec<Region> = [1.0, 85.0, 170.0, 260.0]
            .into_iter()
            .map(|round_trip_ms| Region { name: String::new(), round_trip_ms })
            .collect();
        let times = round_trips_ms(&regions);
        assert_eq!(times, [[1.0, 85.0, 170.0], [85.0, 1.0, 255.0], [170.0, 255.0, 1.0]]);
    }
}
