//! The text of each table of `docs/SCALE.md`: of costs, nodes and databases here, of the rest in other modules.

use super::{
    fleet::{self, Fleet},
    inputs::Inputs,
    money_tables, region_tables,
    tables::{gibibytes, number, percent, scenario, short, table, text_table},
    validation_table,
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
        ("groups", groups(inputs, &fleets)),
        ("prices", money_tables::prices(inputs)),
        ("money", money_tables::money(inputs, &fleets)),
        ("breaks", breaks(inputs, &fleets)),
        ("staleness", region_tables::staleness_table(inputs)),
        ("simulation", region_tables::simulations(inputs)),
        ("validation", validation_table::validation(inputs)),
    ]
}

fn costs(inputs: &Inputs) -> String {
    let rows: Vec<_> = inputs
        .costs
        .rows()
        .into_iter()
        .map(|(name, cost)| vec![format!("`{name}`"), number(cost.value), cost.source.clone()])
        .collect();
    text_table(&["cost", "value", "source"], &rows)
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

/// The groups in which clicks are written, and what that costs.
fn groups(inputs: &Inputs, fleets: &[Fleet]) -> String {
    let costs = &inputs.costs;
    let rows: Vec<_> = fleets
        .iter()
        .map(|fleet| {
            let group = &fleet.group;
            vec![
                scenario(fleet),
                number(group.clicks),
                number(group.links),
                number(group.first),
                format!("{} µs", number(group.postgres_us(costs))),
                number(fleet.postgres.click_cores),
            ]
        })
        .collect();
    let head = [
        "scenario",
        "clicks in a group",
        "links a click",
        "first clicks of a day",
        "PostgreSQL for a click",
        "writers needed",
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
                (
                    "the two writers of clicks",
                    fleet.postgres.click_cores / settings.click_writers / settings.utilization,
                ),
                ("one Redis thread", fleet.redis.cores / settings.utilization),
                (
                    "one PostgreSQL primary",
                    fleet.postgres.cores() / settings.primary_cores / settings.utilization,
                ),
                ("one disk of 16 TiB", fleet.postgres.disk_gib() / settings.disk_gib),
                ("one WAL stream of 200 MB/s", fleet.postgres.wal_mb / settings.wal_mb),
            ];
            let mut over: Vec<_> = used.iter().filter(|(_, share)| *share > 1.0).collect();
            over.sort_by(|one, other| other.1.total_cmp(&one.1));
            let list: Vec<_> =
                over.iter().map(|(what, share)| format!("{what} ({} ×)", number(*share))).collect();
            let list = if list.is_empty() { "nothing".to_owned() } else { list.join(", ") };
            vec![scenario(fleet), list]
        })
        .collect();
    text_table(&["scenario", "exceeded at the peak"], &rows)
}
