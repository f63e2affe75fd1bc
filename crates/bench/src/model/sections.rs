//! The text of each table of `docs/SCALE.md`.

use super::{
    fleet::{self, Fleet},
    inputs::Inputs,
    regions::{self, staleness},
    simulation::{self, Fault, Plan, Report},
    tables::{gibibytes, number, percent, short, table},
    validation::{PROCESSES, measured_us, predict},
};

/// Name and text of each table.
pub fn sections(inputs: &Inputs) -> Vec<(&'static str, String)> {
    let fleets: Vec<Fleet> = inputs
        .rates
        .iter()
        .flat_map(|&rate| inputs.links.iter().map(move |&links| (rate, links)))
        .map(|(rate, links)| fleet::size(inputs, rate, links))
        .collect();
    vec![
        ("costs", costs(inputs)),
        ("hit ratios", hit_ratios(&fleets)),
        ("nodes", nodes(&fleets)),
        ("databases", databases(inputs, &fleets)),
        ("money", money(&fleets)),
        ("breaks", breaks(inputs, &fleets)),
        ("staleness", region_table(inputs)),
        ("simulation", simulations(inputs)),
        ("validation", validation(inputs)),
    ]
}

fn scenario(fleet: &Fleet) -> String {
    format!("{}/s, {} links", short(fleet.rate), short(fleet.links))
}

fn costs(inputs: &Inputs) -> String {
    let rows: Vec<_> = inputs
        .costs
        .rows()
        .into_iter()
        .map(|(name, cost)| vec![format!("`{name}`"), number(cost.value), cost.source.clone()])
        .collect();
    // The last column is text.
    table(&["cost", "value", "source"], &rows).replacen(
        "| --- | ---: | ---: |",
        "| --- | ---: | --- |",
        1,
    )
}

fn hit_ratios(fleets: &[Fleet]) -> String {
    let rows: Vec<_> = fleets
        .iter()
        .map(|fleet| {
            let total = fleet.answered.total();
            vec![
                scenario(fleet),
                percent(fleet.answered.l1 / total),
                percent(fleet.answered.l2 / total),
                percent(fleet.answered.database / total),
                number(fleet.answered.l2_lookups()),
                number(fleet.answered.database),
                short(fleet.answered.l2_links),
            ]
        })
        .collect();
    table(
        &[
            "scenario",
            "L1",
            "L2",
            "PostgreSQL",
            "L2 lookups/s",
            "PostgreSQL lookups/s",
            "links in L2",
        ],
        &rows,
    )
}

fn nodes(fleets: &[Fleet]) -> String {
    let rows: Vec<_> = fleets
        .iter()
        .map(|fleet| {
            let mut row = vec![scenario(fleet)];
            row.extend(fleet.node_cores.map(number));
            row.push(number(fleet.nodes));
            row
        })
        .collect();
    table(
        &["scenario", "TLS, cores", "nginx, cores", "shortener, cores", "worker, cores", "nodes"],
        &rows,
    )
}

fn databases(inputs: &Inputs, fleets: &[Fleet]) -> String {
    let rows: Vec<_> = fleets
        .iter()
        .map(|fleet| {
            let (redis, postgres) = (&fleet.redis, &fleet.postgres);
            vec![
                scenario(fleet),
                number(redis.cores),
                number(redis.commands),
                number(redis.primaries),
                number(postgres.lookup_cores),
                number(postgres.click_cores),
                number(postgres.write_cores),
                format!("{} MB/s", number(postgres.wal_mb)),
                gibibytes(postgres.links_gib),
                gibibytes(postgres.clicks_gib),
                gibibytes(postgres.rollups_gib),
            ]
        })
        .collect();
    let clicks = format!("raw clicks, {} days", number(inputs.shape.retention_days));
    let head = [
        "scenario",
        "Redis, cores",
        "commands/s",
        "primaries",
        "lookups, cores",
        "clicks, cores",
        "writes, cores",
        "WAL",
        "links",
        &clicks,
        "roll-ups, a year",
    ];
    table(&head, &rows)
}

fn money(fleets: &[Fleet]) -> String {
    let rows: Vec<_> = fleets
        .iter()
        .map(|fleet| {
            let money = &fleet.money;
            let redirects = fleet.rate * 30.44 * 86.4e3 / 1e6;
            vec![
                scenario(fleet),
                number(money.application),
                number(money.redis),
                format!(
                    "{} ({} × {})",
                    number(money.postgres),
                    number(3.0 * fleet.postgres_machines),
                    fleet.postgres_plan
                ),
                number(money.disks),
                number(money.transfer),
                number(money.total()),
                number(money.total() / redirects),
            ]
        })
        .collect();
    let head = [
        "scenario",
        "nodes",
        "Redis",
        "PostgreSQL",
        "disks",
        "transfer",
        "total",
        "for 1 M/month of peak capacity",
    ];
    table(&head, &rows)
}

/// How much of each single thing a scenario uses: above 100 %, it must be divided.
fn breaks(inputs: &Inputs, fleets: &[Fleet]) -> String {
    let settings = &inputs.settings;
    let rows: Vec<_> = fleets
        .iter()
        .map(|fleet| {
            let used = [
                (
                    "one node",
                    fleet.node_cores.iter().sum::<f64>()
                        / inputs.prices.application.cores
                        / settings.utilization,
                ),
                ("one Redis thread", fleet.redis.cores / settings.utilization),
                (
                    "one PostgreSQL primary",
                    fleet.postgres.cores() / settings.primary_cores / settings.utilization,
                ),
                ("one disk of 16 TiB", fleet.postgres.disk_gib() / 16_384.0),
                ("one WAL stream of 200 MB/s", fleet.postgres.wal_mb / 200.0),
            ];
            let mut over: Vec<_> = used.iter().filter(|(_, share)| *share > 1.0).collect();
            over.sort_by(|one, other| other.1.total_cmp(&one.1));
            let list: Vec<_> =
                over.iter().map(|(what, share)| format!("{what} ({} ×)", number(*share))).collect();
            let list = if list.is_empty() { "nothing".to_owned() } else { list.join(", ") };
            vec![scenario(fleet), list]
        })
        .collect();
    table(&["scenario", "exceeded at the peak"], &rows).replacen(
        "| --- | ---: |",
        "| --- | --- |",
        1,
    )
}

fn region_table(inputs: &Inputs) -> String {
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

fn simulations(inputs: &Inputs) -> String {
    let faults = [
        ("none", None),
        ("third region cut off for 60 s", Some([false, false, true])),
        ("second region lost for 60 s", Some([false, true, false])),
        ("home region lost for 60 s", Some([true, false, false])),
    ];
    let rows: Vec<_> = faults
        .into_iter()
        .map(|(name, regions)| {
            let fault = regions.map(|regions| Fault { regions, from_s: 60.0, to_s: 120.0 });
            simulation_row(name, &simulation::run(&plan(inputs, fault)))
        })
        .collect();
    let head = [
        "fault",
        "redirects",
        "failed",
        "edits",
        "p50 in home region",
        "p99 in home region",
        "p50 in third region",
        "p99 in third region",
        "longest",
        "past 1 s",
    ];
    table(&head, &rows)
}

fn plan(inputs: &Inputs, fault: Option<Fault>) -> Plan {
    Plan {
        // Within the home region, messages take half a millisecond.
        round_trips_ms: inputs
            .regions
            .iter()
            .map(|region| region.round_trip_ms.max(1.0))
            .take(3)
            .collect(),
        processes: 3,
        seconds: 300.0,
        visits_a_second: 100.0,
        edits_a_second: 1.0,
        deaths: 0.02,
        fault,
        broken: None,
        seed: 1,
    }
}

fn simulation_row(name: &str, report: &Report) -> Vec<String> {
    let mut row = vec![
        name.to_owned(),
        report.responses.to_string(),
        report.failed.to_string(),
        report.edits.to_string(),
    ];
    for region in [0, 2] {
        for share in [0.5, 0.99] {
            let tail =
                report.tails_ms.get(region).and_then(|tails| quantile(tails, share)).unwrap_or(0.0);
            row.push(format!("{tail:.0} ms"));
        }
    }
    row.push(format!("{:.0} ms", report.longest_ms));
    row.push(report.stale_past_bound.to_string());
    row
}

/// A quantile of sorted values.
fn quantile(sorted: &[f64], share: f64) -> Option<f64> {
    let skipped = sorted
        .iter()
        .enumerate()
        .filter(|(place, _)| ratio(*place + 1, sorted.len()) < share)
        .count();
    sorted.get(skipped).copied()
}

#[expect(clippy::cast_precision_loss, reason = "counts of edits are far below 2^52")]
fn ratio(part: usize, all: usize) -> f64 {
    part as f64 / all as f64
}

fn validation(inputs: &Inputs) -> String {
    let mut rows = Vec::new();
    for run in &inputs.measured {
        let prediction = predict(inputs, run);
        let name = format!("{} links, {} redirects", short(run.links), short(run.requests));
        let mut add = |what: &str, predicted: f64, measured: f64, unit: &str| {
            let error = if measured > 0.0 {
                format!("{:+.0} %", 100.0 * (predicted / measured - 1.0))
            } else {
                "–".to_owned()
            };
            rows.push(vec![
                format!("{name}: {what}"),
                format!("{} {unit}", number(predicted)),
                format!("{} {unit}", number(measured)),
                error,
            ]);
        };
        add("L1", prediction.tiers[0], run.tiers[0], "%");
        add("PostgreSQL", prediction.tiers[2], run.tiers[2], "%");
        for (process, predicted) in PROCESSES.iter().zip(prediction.cpu_us) {
            add(process, predicted, run.cpu_us.get(*process).copied().unwrap_or(0.0), "µs");
        }
        add("**all processes**", prediction.total_us(), measured_us(run), "µs");
    }
    format!(
        "{}\n{}\n",
        table(&["run", "predicted", "measured", "error"], &rows),
        inputs.measured_on
    )
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
}
