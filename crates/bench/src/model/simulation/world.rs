//! The state of all regions, and what each event changes. Times are in seconds.

use rand::{RngExt, SeedableRng, rngs::StdRng};

use super::{
    network::{ActiveFault, Channel, Direction, Network},
    plan::{FaultKind, Plan, Report, Rule, TAKEOVER_S},
    queue::Queue,
    state::{Event, Place, Process, Region},
};
use crate::model::regions::{HEARTBEAT_MS, LIFE_MS, OUTBOX_POLL_MS};

/// A message within a region.
pub(super) const LOCAL_S: f64 = 0.0005;
/// Interval at which Redis writes its data to disk.
const SAVE_S: f64 = 1.0;
/// Shortest and longest time between two faults.
const BETWEEN_FAULTS_S: (f64, f64) = (1.5, 4.0);

pub(super) struct World<'a> {
    pub(super) plan: &'a Plan,
    random: StdRng,
    pub(super) queue: Queue<Event>,
    network: Network,
    pub(super) now: f64,
    /// The region that has the primary and the central bus.
    pub(super) home: usize,
    fault: Option<ActiveFault>,
    /// Commit times by version.
    pub(super) commits: Vec<f64>,
    pub(super) regions: Vec<Region>,
    pub(super) processes: Vec<Process>,
    /// For each region and version, when the version was last served.
    pub(super) served: Vec<Vec<f64>>,
    pub(super) report: Report,
}

/// Runs a plan.
pub fn run(plan: &Plan) -> Report {
    let mut world = World::new(plan);
    world.schedule_all();
    while let Some((at, event)) = world.queue.pop() {
        if at > plan.seconds {
            break;
        }
        world.now = at;
        world.step(event);
    }
    world.finish()
}

impl<'a> World<'a> {
    fn new(plan: &'a Plan) -> Self {
        let mut random = StdRng::seed_from_u64(plan.seed);
        let count = plan.round_trips_ms.len();
        let processes = (0..count * plan.processes)
            .map(|number| {
                let share: f64 = random.random();
                Process {
                    region: number / plan.processes,
                    entry: None,
                    epoch: 0,
                    live_until: 0.0,
                    paused_until: 0.0,
                    clock: 1.0 + share * plan.slow_clocks,
                }
            })
            .collect();
        Self {
            plan,
            random,
            queue: Queue::new(),
            network: Network::new(count),
            now: 0.0,
            home: 0,
            fault: None,
            commits: vec![0.0],
            regions: (0..count).map(|_| Region::default()).collect(),
            processes,
            served: vec![vec![0.0]; count],
            report: Report::default(),
        }
    }

    fn schedule_all(&mut self) {
        for process in 0..self.processes.len() {
            let visit = self.within(1.0 / self.plan.visits_a_second);
            let beat = self.within(HEARTBEAT_MS / 1e3);
            self.queue.push(visit, Event::Visit(process));
            self.queue.push(beat, Event::Heartbeat(process));
        }
        for region in 0..self.regions.len() {
            let (poll, save) = (self.within(OUTBOX_POLL_MS / 1e3), self.within(SAVE_S));
            self.queue.push(poll, Event::Poll(region));
            self.queue.push(save, Event::Save(region));
        }
        // Edits and faults wait until every bus is live.
        self.queue.push(2.0, Event::Edit);
        if self.plan.fault.is_some() {
            let after = self.between(BETWEEN_FAULTS_S);
            self.queue.push(2.0 + after, Event::FaultBegins);
        }
    }

    pub(super) fn within(&mut self, seconds: f64) -> f64 {
        let share: f64 = self.random.random();
        share * seconds
    }

    fn between(&mut self, (shortest, longest): (f64, f64)) -> f64 {
        shortest + self.within(longest - shortest)
    }

    pub(super) fn below(&mut self, count: usize) -> usize {
        self.random.random_range(0..count)
    }

    pub(super) fn omits(&self, rule: Rule) -> bool {
        self.plan.broken == Some(rule)
    }

    pub(super) fn region_of(&self, process: usize) -> usize {
        self.processes.get(process).map_or(0, |process| process.region)
    }

    /// Whether the region's machines do not run.
    pub(super) fn is_down(&self, region: usize) -> bool {
        self.fault.is_some_and(|fault| {
            matches!(fault.kind, FaultKind::RegionLost | FaultKind::HomeLost)
                && fault.region == region
        })
    }

    fn one_way(&self, region: usize) -> f64 {
        let row = self.plan.round_trips_ms.get(self.home);
        row.and_then(|row| row.get(region)).map_or(LOCAL_S, |ms| ms / 2e3)
    }

    /// Sends an event between a region and the home region. Returns whether it will arrive.
    pub(super) fn send(&mut self, path: (usize, Channel, Direction), event: Event) -> bool {
        let (region, channel, direction) = path;
        let is_lost = self.is_down(self.home)
            || self.fault.is_some_and(|fault| fault.loses(region, channel, direction));
        let to_relay = channel == Channel::Bus && direction == Direction::FromHome;
        let Some(state) = self.regions.get_mut(region) else { return false };
        if to_relay && (is_lost || !state.is_subscribed) {
            // A connection that has lost a message is broken: nothing passes before the relay subscribes again.
            state.is_subscribed = false;
            return false;
        }
        if is_lost {
            return false;
        }
        let one_way = self.one_way(region);
        let at = self.network.arrival(&mut self.random, self.now, one_way, path);
        self.queue.push(at, event);
        true
    }

    fn step(&mut self, event: Event) {
        if let Some(process) = event.process().and_then(|number| self.processes.get(number))
            && self.now < process.paused_until
        {
            self.queue.push(process.paused_until, event);
            return;
        }
        let is_down = match event.place() {
            Place::Process(process) => self.is_down(self.region_of(process)),
            Place::Region(region) => self.is_down(region),
            Place::Home => self.is_down(self.home),
            Place::Outside => false,
        };
        if is_down {
            self.report.failed += u64::from(event.is_lookup());
            return;
        }
        match event {
            Event::Visit(process) => self.visit(process),
            Event::ReadL2(lookup) => self.read_l2(lookup),
            Event::ReadPrimary(lookup) => self.read_primary(lookup),
            Event::Found(lookup, version) => self.found(lookup, version, LIFE_MS),
            Event::Edit => self.edit(),
            Event::Commit(process) => self.commit(process),
            Event::Committed(process, version) => self.committed(process, version),
            Event::Publish(version) => self.publish(version),
            Event::Arrive(region, subscription, message) => {
                self.arrive(region, subscription, message);
            }
            Event::Deliver(process) => self.invalidate(process),
            Event::Heartbeat(process) => self.heartbeat(process),
            Event::AtBus(process, sent) => self.at_bus(process, sent),
            Event::Returned(process, sent) => self.returned(process, sent),
            Event::Poll(region) => self.poll(region),
            Event::PollRead(poll) => self.poll_read(poll),
            Event::PollResult(poll, due) => self.poll_result(poll, due),
            Event::Save(region) => self.save(region),
            Event::FaultBegins => self.fault_begins(),
            Event::TakenOver => self.taken_over(),
            Event::FaultEnds => self.fault_ends(),
        }
    }

    fn fault_begins(&mut self) {
        let Some(kind) = self.plan.fault else { return };
        let ends = self.now + self.between(kind.lengths_s());
        self.report.faults += 1;
        self.queue.push(ends, Event::FaultEnds);
        let other = (self.home + 1 + self.below(self.regions.len() - 1)) % self.regions.len();
        let region = if kind == FaultKind::HomeLost { self.home } else { other };
        self.fault = Some(ActiveFault { kind, region });
        match kind {
            FaultKind::HomeLost => self.queue.push(self.now + TAKEOVER_S, Event::TakenOver),
            FaultKind::Paused => {
                let process = self.below(self.processes.len());
                if let Some(process) = self.processes.get_mut(process) {
                    process.paused_until = ends;
                }
            }
            _ => {}
        }
    }

    /// The next region has the primary, with every commit, and a new central bus.
    fn taken_over(&mut self) {
        self.home = (self.home + 1) % self.regions.len();
        for region in &mut self.regions {
            region.is_subscribed = false;
        }
    }

    fn fault_ends(&mut self) {
        let next = self.now + self.between(BETWEEN_FAULTS_S);
        self.queue.push(next, Event::FaultBegins);
        let Some(fault) = self.fault else { return };
        if self.is_down(fault.region) {
            let empties = !self.omits(Rule::EmptyAfterLoss);
            if let Some(region) = self.regions.get_mut(fault.region) {
                region.l2 = if empties { None } else { region.saved };
                (region.is_subscribed, region.delivered) = (false, 0);
            }
            for process in &mut self.processes {
                if process.region == fault.region {
                    process.entry = None;
                    process.epoch += 1;
                    process.live_until = 0.0;
                }
            }
        }
        self.fault = None;
    }

    fn save(&mut self, region: usize) {
        self.queue.push(self.now + SAVE_S, Event::Save(region));
        if !self.is_down(region)
            && let Some(region) = self.regions.get_mut(region)
        {
            region.saved = region.l2;
        }
    }

    fn finish(mut self) -> Report {
        for served in &self.served {
            let mut last = 0.0_f64;
            for (served, &replaced) in served.iter().zip(self.commits.iter().skip(1)) {
                last = last.max(*served);
                self.report.staleness_ms.push(((last - replaced) * 1e3).max(0.0));
            }
        }
        self.report.staleness_ms.sort_by(f64::total_cmp);
        self.report
    }
}
