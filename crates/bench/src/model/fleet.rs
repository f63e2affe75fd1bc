//! Processor time, memory, disk, machines and money of a scenario.

use super::{
    caches::{Cache, Policy},
    click_groups::{Clicks, Group, batch_clicks},
    inputs::{Inputs, Machine},
    popularity::Popularity,
    tiers::{Answered, Tiers},
};

/// Bytes of a GiB.
const GIB: f64 = 1_073_741_824.0;
const SECONDS_A_DAY: f64 = 86_400.0;
const SECONDS_A_MONTH: f64 = 30.44 * SECONDS_A_DAY;
/// Microseconds of a second: the processor time of one core.
const CORE: f64 = 1e6;
/// Share of Redis's memory that data may use; the rest is for copies while it rewrites its append-only file.
const REDIS_MEMORY_SHARE: f64 = 0.6;
/// Copies of Redis and of PostgreSQL: the primary and replicas in two other zones.
pub(super) const COPIES: f64 = 3.0;
/// Fewest application nodes: two must carry the load while one is replaced.
const FEWEST_NODES: f64 = 3.0;

/// Load of Redis.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RedisLoad {
    /// Cores for commands, of all primaries.
    pub cores: f64,
    /// Commands a second: lookups, fills, batches, invalidations and heartbeats.
    pub commands: f64,
    /// Primaries, each with one core for commands.
    pub primaries: f64,
}

/// Load of PostgreSQL.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PostgresLoad {
    /// Cores for lookups of links.
    pub lookup_cores: f64,
    /// Cores for clicks.
    pub click_cores: f64,
    /// Cores for creates and edits.
    pub write_cores: f64,
    /// WAL in MB a second.
    pub wal_mb: f64,
    /// Links and events on disk, in GiB.
    pub links_gib: f64,
    /// Raw clicks on disk, in GiB.
    pub clicks_gib: f64,
    /// A year of roll-ups of links, in GiB.
    pub rollups_gib: f64,
}

impl PostgresLoad {
    /// All cores.
    pub fn cores(&self) -> f64 {
        self.lookup_cores + self.click_cores + self.write_cores
    }

    /// All data, in GiB.
    pub fn disk_gib(&self) -> f64 {
        self.links_gib + self.clicks_gib + self.rollups_gib
    }
}

/// Dollars a month.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Money {
    /// Application nodes.
    pub application: f64,
    /// Redis with its replicas.
    pub redis: f64,
    /// PostgreSQL with its replicas.
    pub postgres: f64,
    /// Disks of PostgreSQL.
    pub disks: f64,
    /// Outbound traffic beyond what machines include.
    pub transfer: f64,
}

impl Money {
    /// The sum.
    pub fn total(&self) -> f64 {
        self.application + self.redis + self.postgres + self.disks + self.transfer
    }
}

/// Everything that a scenario needs.
#[derive(Debug, Clone, PartialEq)]
pub struct Fleet {
    /// Redirects a second at the peak.
    pub rate: f64,
    /// Number of links.
    pub links: f64,
    /// Requests by tier.
    pub answered: Answered,
    /// Clicks that are written together.
    pub group: Group,
    /// Application nodes, each with nginx, gateway, shortener and worker; one of them is spare.
    pub nodes: f64,
    /// Cores in use on all nodes for TLS, nginx, shortener and worker.
    pub node_cores: [f64; 4],
    /// Redis.
    pub redis: RedisLoad,
    /// PostgreSQL.
    pub postgres: PostgresLoad,
    /// Machines for PostgreSQL in each copy; more than one is more than a primary can do.
    pub postgres_machines: f64,
    /// Name of their plan.
    pub postgres_plan: String,
    /// Money.
    pub money: Money,
}

/// Sizes a fleet for `rate` redirects a second at the peak over `links` links. Nodes and Redis machines are added until
/// none is missing: more nodes have more and therefore colder L1 caches.
pub fn size(inputs: &Inputs, rate: f64, links: f64) -> Fleet {
    let popularity = Popularity::zipf(links, inputs.shape.zipf_exponent, inputs.shape.bot_share);
    let (mut nodes, mut primaries) = (FEWEST_NODES, 1.0);
    loop {
        let answered = tiers(inputs, rate, nodes, primaries).answered(&popularity);
        let group = group(inputs, &popularity, rate, nodes);
        let node_cores = node_cores(inputs, rate, &answered, group);
        let usable = inputs.prices.application.cores * inputs.settings.utilization;
        let wanted = ((node_cores.iter().sum::<f64>() / usable).ceil() + 1.0).max(FEWEST_NODES);
        let redis = redis(inputs, rate, &answered, group, nodes);
        if wanted <= nodes && redis.primaries <= primaries {
            let postgres = postgres(inputs, &popularity, rate, &answered, group);
            let (plan, postgres_machines) = postgres_machines(inputs, postgres.cores());
            let redis = RedisLoad { primaries, ..redis };
            let money = money(inputs, rate, nodes, &redis, &postgres, (plan, postgres_machines));
            let postgres_plan = plan.name.clone();
            return Fleet {
                rate,
                links,
                answered,
                group,
                nodes,
                node_cores,
                redis,
                postgres,
                postgres_machines,
                postgres_plan,
                money,
            };
        }
        // In small steps, because each step also changes what is missing.
        nodes = wanted.min((nodes * 1.1).ceil()).max(nodes);
        primaries = redis.primaries.min(primaries + 1.0).max(primaries);
    }
}

fn tiers(inputs: &Inputs, rate: f64, nodes: f64, primaries: f64) -> Tiers {
    let (costs, settings) = (&inputs.costs, &inputs.settings);
    let l1 = inputs.prices.application.memory_gib * GIB * settings.l1_memory_share
        / costs.l1_resident_bytes.value;
    let redis = inputs.prices.redis.memory_gib * GIB * REDIS_MEMORY_SHARE * primaries;
    let l2 = (redis - stream_bytes(inputs, rate)).max(0.1 * redis) / costs.l2_bytes.value;
    Tiers {
        rate,
        unknown_rate: rate * inputs.shape.unknown_share,
        changes: rate * inputs.shape.writes * inputs.shape.edit_share,
        processes: nodes,
        l1: Cache { capacity: l1, life_s: settings.l1_life_s, policy: Policy::TwoLru },
        l2: Cache { capacity: l2, life_s: settings.l2_life_s, policy: Policy::Lru },
    }
}

fn stream_bytes(inputs: &Inputs, rate: f64) -> f64 {
    rate * inputs.settings.stream_s * inputs.costs.stream_bytes.value
}

fn group(inputs: &Inputs, popularity: &Popularity, rate: f64, nodes: f64) -> Group {
    let (settings, costs) = (&inputs.settings, &inputs.costs);
    let a_day = rate * inputs.shape.average_to_peak * SECONDS_A_DAY;
    Clicks {
        settings,
        costs,
        popularity,
        rate,
        batch: batch_clicks(settings, rate / nodes, inputs.prices.application.cores),
        first: popularity.distinct(a_day) / a_day,
        writer_cores: 1.0,
    }
    .group()
}

fn node_cores(inputs: &Inputs, rate: f64, answered: &Answered, group: Group) -> [f64; 4] {
    let costs = &inputs.costs;
    let tls =
        rate * (costs.nginx_tls_us.value + inputs.shape.handshakes * costs.handshake_us.value);
    let nginx =
        answered.total() * costs.nginx_us.value + answered.l2_lookups() * costs.nginx_wait_us.value;
    let shortener = answered.total() * costs.shortener_us.value
        + answered.l2 * costs.shortener_l2_us.value
        + answered.database * costs.shortener_database_us.value
        + rate * inputs.shape.writes * costs.api_write_us.value;
    let worker = rate * group.worker_us(costs);
    [tls, nginx, shortener, worker].map(|microseconds| microseconds / CORE)
}

fn redis(inputs: &Inputs, rate: f64, answered: &Answered, group: Group, nodes: f64) -> RedisLoad {
    let (costs, shape) = (&inputs.costs, &inputs.shape);
    let edits = rate * shape.writes * shape.edit_share;
    let heartbeats = nodes * inputs.settings.heartbeats;
    let busy = answered.l2_lookups() * costs.redis_lookup_us.value
        + answered.database * costs.redis_fill_us.value
        + rate * group.redis_us(costs)
        + edits * (costs.redis_publish_us.value + nodes * costs.redis_subscriber_us.value)
        + heartbeats * (costs.redis_publish_us.value + costs.redis_subscriber_us.value);
    let cores = busy / CORE;
    let stream =
        stream_bytes(inputs, rate) / (inputs.prices.redis.memory_gib * GIB * REDIS_MEMORY_SHARE);
    // At most half of the memory is for the stream.
    let primaries =
        (cores / inputs.settings.utilization).ceil().max((2.0 * stream).ceil()).max(1.0);
    let batches =
        rate / batch_clicks(&inputs.settings, rate / nodes, inputs.prices.application.cores);
    RedisLoad {
        cores,
        commands: answered.l2_lookups() + answered.database + batches + edits + heartbeats,
        primaries,
    }
}

fn postgres(
    inputs: &Inputs,
    popularity: &Popularity,
    rate: f64,
    answered: &Answered,
    group: Group,
) -> PostgresLoad {
    let (costs, shape) = (&inputs.costs, &inputs.shape);
    let average = rate * shape.average_to_peak;
    let clicks = average * SECONDS_A_DAY * shape.retention_days;
    let link_days = 365.0 * popularity.distinct(average * SECONDS_A_DAY);
    PostgresLoad {
        lookup_cores: answered.database * costs.postgres_lookup_us.value / CORE,
        click_cores: rate * group.postgres_us(costs) / CORE,
        write_cores: rate * shape.writes * costs.postgres_write_us.value / CORE,
        wal_mb: rate * group.wal_bytes(costs) / 1e6,
        links_gib: popularity.links() * costs.link_disk_bytes.value / GIB,
        clicks_gib: clicks
            * (costs.click_disk_bytes.value + group.links * costs.click_row_disk_bytes.value)
            / GIB,
        rollups_gib: link_days * costs.link_day_disk_bytes.value / GIB,
    }
}

/// The smallest plan whose cores suffice, or several of the largest one.
fn postgres_machines(inputs: &Inputs, cores: f64) -> (&Machine, f64) {
    let wanted = cores / inputs.settings.utilization;
    let plans = &inputs.prices.postgres;
    match plans.iter().find(|plan| plan.cores >= wanted) {
        Some(plan) => (plan, 1.0),
        None => {
            let largest = plans.last().unwrap_or(&inputs.prices.application);
            (largest, (wanted / largest.cores).ceil())
        }
    }
}

fn money(
    inputs: &Inputs,
    rate: f64,
    nodes: f64,
    redis: &RedisLoad,
    postgres: &PostgresLoad,
    (plan, machines): (&Machine, f64),
) -> Money {
    let prices = &inputs.prices;
    let sent =
        rate * inputs.shape.average_to_peak * SECONDS_A_MONTH * inputs.costs.response_bytes.value
            / GIB;
    let included = nodes * prices.application.transfer_gib;
    Money {
        application: nodes * prices.application.dollars,
        redis: COPIES * redis.primaries * prices.redis.dollars,
        postgres: COPIES * machines * plan.dollars,
        disks: COPIES * postgres.disk_gib() * prices.disk_gib.dollars,
        transfer: (sent - included).max(0.0) * prices.transfer_gib.dollars,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::document::default_inputs;

    fn inputs() -> Inputs {
        default_inputs().unwrap()
    }

    #[test]
    fn a_fleet_has_a_spare_node_and_uses_the_others_as_allowed() {
        let inputs = inputs();
        for rate in [1e3, 1e4, 1e5, 1e6] {
            let fleet = size(&inputs, rate, 1e7);
            let usable = inputs.prices.application.cores * inputs.settings.utilization;
            let busy: f64 = fleet.node_cores.iter().sum();
            assert!(fleet.nodes >= FEWEST_NODES, "{fleet:?}");
            assert!(busy <= (fleet.nodes - 1.0) * usable, "{fleet:?}");
            assert!(
                fleet.redis.cores <= fleet.redis.primaries * inputs.settings.utilization,
                "{fleet:?}"
            );
        }
    }

    #[test]
    fn ten_times_the_rate_costs_about_ten_times_as_much_at_scale() {
        let inputs = inputs();
        let (hundred, million) = (size(&inputs, 1e5, 1e7), size(&inputs, 1e6, 1e7));
        let ratio = million.money.total() / hundred.money.total();
        assert!((6.0..11.0).contains(&ratio), "{ratio}");
    }

    #[test]
    fn every_part_of_the_money_follows_from_a_quantity() {
        let inputs = inputs();
        let fleet = size(&inputs, 1e6, 1e7);
        let prices = &inputs.prices;
        let disks = COPIES * fleet.postgres.disk_gib() * prices.disk_gib.dollars;
        let redis = COPIES * fleet.redis.primaries * prices.redis.dollars;
        assert!((fleet.money.application - fleet.nodes * prices.application.dollars).abs() < 1e-6);
        assert!((fleet.money.redis - redis).abs() < 1e-6);
        assert!((fleet.money.disks - disks).abs() < 1e-6);
    }

    #[test]
    fn handshakes_are_paid_for() {
        let mut inputs = inputs();
        let before = size(&inputs, 1e5, 1e7).node_cores[0];
        inputs.shape.handshakes *= 2.0;
        let after = size(&inputs, 1e5, 1e7).node_cores[0];
        assert!(after > 1.5 * before, "{before} {after}");
    }
}
