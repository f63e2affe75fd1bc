//! How many clicks a worker writes together: the more, the fewer rows for each.
//!
//! A process sends a batch every `clicks.flush_ms`, or as soon as one of its server threads has collected a full one. A
//! worker that waits takes a batch as soon as it is in the stream, so a group is one batch, as long as the writers keep up.
//! When they do not, batches wait and groups grow, until the writers keep up again or a group has its largest size. One
//! transaction at a time writes roll-ups (`docs/adr/014`); when clicks have waited for 5 s, one for each shard
//! (`docs/adr/020`).

use super::{
    costs::{Cost, Costs},
    inputs::Settings,
    popularity::Popularity,
};

/// Clicks in a batch of a process that serves `rate` redirects a second with `threads` server threads.
pub fn batch_clicks(settings: &Settings, rate: f64, threads: f64) -> f64 {
    let until_full_s = settings.batch_clicks * threads / rate;
    let drained = rate * settings.flush_s.min(until_full_s);
    // A process drains all buffers at once and sends full batches and a rest.
    (drained / (drained / settings.batch_clicks - 1e-9).ceil().max(1.0)).max(1.0)
}

/// Clicks and links in a group.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Group {
    /// Mean number of clicks in a group.
    pub clicks: f64,
    /// Links with clicks in a group, for each click.
    pub links: f64,
    /// Links with their first click of the day, for each click.
    pub first: f64,
}

impl Group {
    /// The cost of a click: its own, its share of what each link in the group costs, and of what first clicks cost.
    pub fn cost(&self, [click, link, first]: [&Cost; 3]) -> f64 {
        click.value + self.links * link.value + self.first * first.value
    }

    /// Processor time of PostgreSQL for a click, in microseconds.
    pub fn postgres_us(&self, costs: &Costs) -> f64 {
        self.cost([&costs.postgres_click_us, &costs.postgres_link_us, &costs.postgres_first_us])
    }

    /// Processor time of the worker for a click, in microseconds.
    pub fn worker_us(&self, costs: &Costs) -> f64 {
        self.cost([&costs.worker_click_us, &costs.worker_link_us, &costs.worker_first_us])
    }

    /// Processor time of Redis for a click, in microseconds.
    pub fn redis_us(&self, costs: &Costs) -> f64 {
        self.cost([&costs.redis_click_us, &costs.redis_link_us, &costs.redis_first_us])
    }

    /// WAL for a click, in bytes.
    pub fn wal_bytes(&self, costs: &Costs) -> f64 {
        self.cost([&costs.click_wal_bytes, &costs.link_wal_bytes, &costs.first_wal_bytes])
    }
}

/// Clicks of an installation.
#[derive(Debug, Clone, Copy)]
pub struct Clicks<'a> {
    /// Settings.
    pub settings: &'a Settings,
    /// Costs.
    pub costs: &'a Costs,
    /// Which links they are on.
    pub popularity: &'a Popularity,
    /// Clicks a second.
    pub rate: f64,
    /// Clicks in a batch.
    pub batch: f64,
    /// Links with their first click of the day, for each click.
    pub first: f64,
    /// Processors that the writer gets, at most 1.
    pub writer_cores: f64,
}

impl Clicks<'_> {
    /// The smallest groups with which the writer keeps up.
    pub fn group(&self) -> Group {
        let largest = self.settings.group_batches * self.batch;
        let (mut low, mut high) = (self.batch, largest);
        if self.keeps_up(low) {
            return self.group_of(low);
        }
        for _ in 0..40 {
            let middle = (low * high).sqrt();
            if self.keeps_up(middle) { high = middle } else { low = middle }
        }
        self.group_of(high)
    }

    fn group_of(&self, clicks: f64) -> Group {
        let links = self.popularity.distinct(clicks) / clicks;
        Group { clicks, links, first: self.first.min(links) }
    }

    fn keeps_up(&self, clicks: f64) -> bool {
        self.rate * self.group_of(clicks).postgres_us(self.costs) <= 1e6 * self.writer_cores
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::document::default_inputs;

    #[test]
    fn batches_are_sent_at_the_interval_or_when_a_buffer_is_full() {
        let settings = default_inputs().unwrap().settings;
        for (rate, threads, clicks) in [
            (1.0, 2.0, 1.0),
            (1_000.0, 2.0, 200.0),
            // 1,200 clicks in 200 ms are two batches.
            (6_000.0, 2.0, 600.0),
            // Each thread has 1,000 clicks after 100 ms.
            (20_000.0, 2.0, 1_000.0),
        ] {
            let batch = batch_clicks(&settings, rate, threads);
            assert!((batch - clicks).abs() < 1e-6, "{rate}: {batch}");
        }
    }

    #[test]
    fn groups_are_batches_until_the_writer_is_busy_and_then_grow_to_their_largest() {
        let inputs = default_inputs().unwrap();
        let (settings, costs) = (&inputs.settings, &inputs.costs);
        let popularity = &Popularity::zipf(1e5, 1.0, 0.0);
        let clicks = |rate: f64| {
            Clicks { settings, costs, popularity, rate, batch: 1e3, first: 0.0, writer_cores: 1.0 }
                .group()
        };
        let (calm, busy, late) = (clicks(5e3), clicks(1.0 / 0.000_02), clicks(1e6));
        assert!((calm.clicks - 1e3).abs() < 1e-6, "{calm:?}");
        assert!(busy.clicks >= calm.clicks && busy.links <= calm.links, "{calm:?} {busy:?}");
        assert!((late.clicks - 24e3).abs() < 1.0, "{late:?}");
        assert!(late.postgres_us(costs) < calm.postgres_us(costs));
    }
}
