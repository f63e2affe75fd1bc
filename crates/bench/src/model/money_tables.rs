//! The tables of prices and of money in `docs/SCALE.md`, with their arithmetic.

use super::{
    fleet::{COPIES, Fleet},
    inputs::{Inputs, Machine},
    tables::{number, scenario, table, text_table},
};

/// Prices with their sources, then the sources with their dates.
pub(super) fn prices(inputs: &Inputs) -> String {
    let prices = &inputs.prices;
    let machine = |machine: &Machine, use_: &str| {
        vec![
            format!("`{}`, {use_}", machine.name),
            number(machine.cores),
            format!("{} GiB", number(machine.memory_gib)),
            format!("{} GiB", number(machine.transfer_gib)),
            number(machine.dollars),
            machine.sources.clone(),
        ]
    };
    let mut rows = vec![machine(&prices.application, "node"), machine(&prices.redis, "Redis")];
    rows.extend(prices.postgres.iter().map(|plan| machine(plan, "PostgreSQL")));
    for (what, price) in [
        ("block storage, a GiB", &prices.disk_gib),
        ("transfer beyond what machines include, a GiB", &prices.transfer_gib),
    ] {
        let blank = || "–".to_owned();
        let dollars = number(price.dollars);
        rows.push(vec![what.to_owned(), blank(), blank(), blank(), dollars, price.sources.clone()]);
    }
    let head = ["what", "cores", "memory", "transfer a month", "dollars", "sources"];
    let sources: Vec<_> = prices
        .sources
        .iter()
        .map(|source| vec![source.mark.clone(), source.content.clone(), source.date.clone()])
        .collect();
    let sources = table(&["source", "content", "date"], &sources).replace("---:", "---");
    format!("{}\n{sources}\nRead on {}.\n", text_table(&head, &rows), prices.read_on)
}

/// Dollars a month.
pub(super) fn money(inputs: &Inputs, fleets: &[Fleet]) -> String {
    let rows: Vec<_> = fleets.iter().map(|fleet| money_row(inputs, fleet)).collect();
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

fn money_row(inputs: &Inputs, fleet: &Fleet) -> Vec<String> {
    let (prices, money) = (&inputs.prices, &fleet.money);
    let redirects = fleet.rate * 30.44 * 86.4e3 / 1e6;
    let product = |factors: &[f64], dollars: f64| {
        let factors: Vec<_> = factors.iter().copied().map(number).collect();
        format!("{} = {}", factors.join(" × "), number(dollars))
    };
    let plan = prices.postgres.iter().find(|plan| plan.name == fleet.postgres_plan);
    let plan_dollars = plan.map_or(0.0, |plan| plan.dollars);
    let transfer = if money.transfer > 0.0 {
        product(
            &[money.transfer / prices.transfer_gib.dollars, prices.transfer_gib.dollars],
            money.transfer,
        )
    } else {
        "included".to_owned()
    };
    vec![
        scenario(fleet),
        product(&[fleet.nodes, prices.application.dollars], money.application),
        product(&[COPIES, fleet.redis.primaries, prices.redis.dollars], money.redis),
        product(&[COPIES, fleet.postgres_machines, plan_dollars], money.postgres),
        product(&[COPIES, fleet.postgres.disk_gib(), prices.disk_gib.dollars], money.disks),
        transfer,
        number(money.total()),
        number(money.total() / redirects),
    ]
}
