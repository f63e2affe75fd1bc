//! The state of all regions, and what each event changes. Times are in seconds.

use rand::{RngExt, SeedableRng, rngs::StdRng};

use super::{
    plan::{Plan, Report, Rule},
    queue::Queue,
    state::{Entry, Event, Lookup, Message, Process, Region},
};
use crate::model::regions::{
    BOUND_MS, HEARTBEAT_MS, LIFE_FROM_L2_MS, LIFE_MS, OUTBOX_AGE_MS, OUTBOX_POLL_MS, STALE_MS,
};

/// Normal life of an L1 entry.
const LIFE_S: f64 = 600.0;
/// A message within a region.
const LOCAL_S: f64 = 0.0005;
/// Share of the messages between regions that are lost once and sent again.
const LOSS: f64 = 0.002;
/// A lost message is sent again after this time and a round trip; those behind it wait.
const RESEND_S: f64 = 0.2;

struct World<'a> {
    plan: &'a Plan,
    random: StdRng,
    queue: Queue<Event>,
    now: f64,
    /// Commit times by version.
    commits: Vec<f64>,
    regions: Vec<Region>,
    processes: Vec<Process>,
    /// For each region and version, when the version was last served.
    served: Vec<Vec<f64>>,
    report: Report,
}

/// Runs a plan.
pub fn run(plan: &Plan) -> Report {
    let mut world = World::new(plan);
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
        let regions: Vec<Region> = plan
            .round_trips_ms
            .iter()
            .map(|ms| Region {
                one_way: ms / 2_000.0,
                l2: None,
                down: 0.0,
                up: 0.0,
                outbox_relayed: true,
            })
            .collect();
        let processes: Vec<Process> = (0..regions.len() * plan.processes)
            .map(|number| Process {
                region: number / plan.processes,
                entry: None,
                epoch: 0,
                live_until: 0.0,
            })
            .collect();
        let served = vec![vec![0.0]; regions.len()];
        let random = StdRng::seed_from_u64(plan.seed);
        let (queue, report) = (Queue::new(), Report::default());
        let mut world = Self {
            plan,
            random,
            queue,
            now: 0.0,
            commits: vec![0.0],
            regions,
            processes,
            served,
            report,
        };
        for process in 0..world.processes.len() {
            let (visit, beat) =
                (world.within(1.0 / plan.visits_a_second), world.within(HEARTBEAT_MS / 1e3));
            world.queue.push(visit, Event::Visit(process));
            world.queue.push(beat, Event::Heartbeat(process));
        }
        for region in 0..world.regions.len() {
            world.queue.push(0.0, Event::Poll(region));
        }
        // The first edit waits until every bus is live.
        world.queue.push(2.0, Event::Edit);
        world
    }

    fn within(&mut self, seconds: f64) -> f64 {
        let share: f64 = self.random.random();
        share * seconds
    }

    fn omits(&self, rule: Rule) -> bool {
        self.plan.broken == Some(rule)
    }

    fn is_down(&self, region: usize) -> bool {
        self.plan.fault.is_some_and(|fault| {
            (fault.from_s..fault.to_s).contains(&self.now)
                && fault.regions.get(region) == Some(&true)
        })
    }

    /// Whether messages between the region and the home region are lost.
    fn is_cut(&self, region: usize) -> bool {
        self.is_down(0) || (region != 0 && self.is_down(region))
    }

    /// Sends an event between a region and the home region, in order. Returns whether it will arrive.
    fn send(&mut self, region: usize, to_home: bool, event: Event) -> bool {
        if self.is_cut(region) {
            return false;
        }
        let jitter = self.within(1.0).powi(8);
        let resend = if self.within(1.0) < LOSS && region != 0 { 1.0 } else { 0.0 };
        let now = self.now;
        let Some(path) = self.regions.get_mut(region) else { return false };
        let delay = path.one_way * (1.0 + jitter / 2.0) + resend * (RESEND_S + 2.0 * path.one_way);
        let last = if to_home { &mut path.up } else { &mut path.down };
        *last = (now + delay).max(*last);
        self.queue.push(*last, event);
        true
    }

    fn step(&mut self, event: Event) {
        match event {
            Event::Visit(process) => self.visit(process),
            Event::ReadL2(lookup) => self.read_l2(lookup),
            Event::ReadPrimary(lookup) => {
                let (region, newest) = (self.region_of(lookup.process), self.newest());
                if !self.send(region, false, Event::Found(lookup, newest)) {
                    self.report.failed += 1;
                }
            }
            Event::Found(lookup, version) => self.found(lookup, version, LIFE_MS),
            Event::Edit => self.edit(),
            Event::Commit(process) => self.commit(process),
            Event::Committed(process, version) => {
                self.invalidate(process);
                self.send(self.region_of(process), true, Event::Publish(version));
            }
            Event::Publish(version) => self.publish(version),
            Event::Arrive(region, message) => self.arrive(region, message),
            Event::Deliver(process) => self.invalidate(process),
            Event::Heartbeat(process) => self.heartbeat(process),
            Event::AtBus(process, sent) => {
                let region = self.region_of(process);
                self.send(
                    region,
                    false,
                    Event::Arrive(region, Message::Heartbeat { process, sent }),
                );
            }
            Event::Returned(process, sent) => self.returned(process, sent),
            Event::Poll(region) => self.poll(region),
            Event::PollRead(region, begun) => {
                let due = self.due(region);
                self.send(region, false, Event::PollResult(region, begun, due));
            }
            Event::PollResult(region, begun, version) => self.relay(region, begun, version),
        }
    }

    fn newest(&self) -> usize {
        self.commits.len() - 1
    }

    fn region_of(&self, process: usize) -> usize {
        self.processes.get(process).map_or(0, |process| process.region)
    }

    fn visit(&mut self, number: usize) {
        let gap = 2.0 * self.within(1.0 / self.plan.visits_a_second);
        self.queue.push(self.now + gap, Event::Visit(number));
        let (now, cut_short) = (self.now, !self.omits(Rule::LifeWithoutBus));
        let Some(process) = self.processes.get(number) else { return };
        let is_live = now < process.live_until;
        let fresh = process.entry.filter(|entry| {
            let life = if is_live || !cut_short { LIFE_S } else { entry.stale_life };
            now < entry.ticket + life
        });
        let (region, epoch) = (process.region, process.epoch);
        if region == 0 && self.is_down(0) {
            self.report.failed += 1;
        } else if let Some(entry) = fresh {
            self.respond(region, entry.version);
        } else {
            let lookup = Lookup { process: number, ticket: now, epoch };
            if is_live {
                self.queue.push(now + LOCAL_S, Event::ReadL2(lookup));
            } else {
                self.ask_primary(lookup);
            }
        }
    }

    fn read_l2(&mut self, lookup: Lookup) {
        match self.regions.get(self.region_of(lookup.process)).and_then(|region| region.l2) {
            Some(version) => self.found(lookup, version, LIFE_FROM_L2_MS),
            None => self.ask_primary(lookup),
        }
    }

    fn ask_primary(&mut self, lookup: Lookup) {
        let region = self.region_of(lookup.process);
        if !self.send(region, true, Event::ReadPrimary(lookup)) {
            self.report.failed += 1;
        }
    }

    fn found(&mut self, lookup: Lookup, version: usize, stale_life_ms: f64) {
        let Some(process) = self.processes.get_mut(lookup.process) else { return };
        let (region, is_live) = (process.region, self.now < process.live_until);
        if process.epoch == lookup.epoch {
            process.entry =
                Some(Entry { version, ticket: lookup.ticket, stale_life: stale_life_ms / 1e3 });
        }
        if let Some(region) = self.regions.get_mut(region)
            && is_live
        {
            region.l2 = region.l2.max(Some(version));
        }
        self.respond(region, version);
    }

    fn respond(&mut self, region: usize, version: usize) {
        self.report.responses += 1;
        if let Some(&replaced) = self.commits.get(version + 1) {
            let stale_ms = (self.now - replaced) * 1e3;
            self.report.longest_ms = self.report.longest_ms.max(stale_ms);
            self.report.stale_past_bound += u64::from(stale_ms > BOUND_MS);
        }
        if let Some(served) = self.served.get_mut(region).and_then(|served| served.get_mut(version))
        {
            *served = self.now;
        }
    }

    fn edit(&mut self) {
        let gap = 2.0 * self.within(1.0 / self.plan.edits_a_second);
        self.queue.push(self.now + gap, Event::Edit);
        let process = self.random.random_range(0..self.processes.len());
        self.send(self.region_of(process), true, Event::Commit(process));
    }

    fn commit(&mut self, process: usize) {
        self.commits.push(self.now);
        for served in &mut self.served {
            served.push(0.0);
        }
        self.report.edits += 1;
        if self.within(1.0) >= self.plan.deaths {
            self.send(self.region_of(process), false, Event::Committed(process, self.newest()));
        }
    }

    /// The central bus forwards an invalidation to every region.
    fn publish(&mut self, version: usize) {
        for region in 0..self.regions.len() {
            self.send(region, false, Event::Arrive(region, Message::Invalidation(version)));
        }
    }

    fn arrive(&mut self, region: usize, message: Message) {
        match message {
            Message::Invalidation(version) => self.apply(region, version),
            Message::Heartbeat { process, sent } => {
                let returns = self.regions.get(region).is_some_and(|region| region.outbox_relayed);
                if returns || self.omits(Rule::CatchUpBeforeLive) {
                    self.queue.push(self.now + LOCAL_S, Event::Returned(process, sent));
                }
            }
        }
    }

    /// A region's Redis: the script writes L2 and notifies the processes.
    fn apply(&mut self, region: usize, version: usize) {
        if let Some(region) = self.regions.get_mut(region) {
            region.l2 = region.l2.max(Some(version));
        }
        for number in 0..self.processes.len() {
            if self.region_of(number) == region {
                self.queue.push(self.now + LOCAL_S, Event::Deliver(number));
            }
        }
    }

    fn invalidate(&mut self, process: usize) {
        if let Some(process) = self.processes.get_mut(process) {
            process.epoch += 1;
            process.entry = None;
        }
    }

    fn heartbeat(&mut self, process: usize) {
        self.queue.push(self.now + HEARTBEAT_MS / 1e3, Event::Heartbeat(process));
        if self.omits(Rule::HeartbeatsThroughHome) {
            self.queue.push(self.now + LOCAL_S, Event::Returned(process, self.now));
        } else {
            self.send(self.region_of(process), true, Event::AtBus(process, self.now));
        }
    }

    fn returned(&mut self, number: usize, sent: f64) {
        let until = sent + STALE_MS / 1e3;
        let Some(process) = self.processes.get_mut(number) else { return };
        let was_stale = self.now >= process.live_until;
        process.live_until = process.live_until.max(until);
        if was_stale && self.now < until {
            self.invalidate(number);
        }
    }

    fn poll(&mut self, region: usize) {
        let gap = OUTBOX_POLL_MS / 2e3 + self.within(OUTBOX_POLL_MS / 2e3);
        self.queue.push(self.now + gap, Event::Poll(region));
        if !self.send(region, true, Event::PollRead(region, self.now))
            && let Some(region) = self.regions.get_mut(region)
        {
            region.outbox_relayed = false;
        }
    }

    /// The newest change that a poll of the region returns: of those old enough, or of all for a relay that reconnects.
    fn due(&self, region: usize) -> usize {
        let all = self.regions.get(region).is_some_and(|region| !region.outbox_relayed);
        let before = if all { self.now } else { self.now - OUTBOX_AGE_MS / 1e3 };
        self.commits.partition_point(|&at| at <= before).saturating_sub(1)
    }

    fn relay(&mut self, number: usize, begun: f64, version: usize) {
        if self.omits(Rule::Outbox) {
            return;
        }
        let after_cut =
            self.plan.fault.is_none_or(|fault| begun >= fault.to_s || begun < fault.from_s);
        let Some(region) = self.regions.get_mut(number) else { return };
        let is_news = region.l2.is_none_or(|held| held < version);
        region.outbox_relayed |= after_cut;
        if number == 0 && is_news {
            self.publish(version);
        } else if is_news {
            self.apply(number, version);
        }
    }

    fn finish(mut self) -> Report {
        for served in &self.served {
            let mut tails: Vec<f64> = Vec::new();
            for (version, &committed) in self.commits.iter().enumerate().skip(1) {
                let older = served.iter().take(version).copied().fold(0.0_f64, f64::max);
                tails.push(((older - committed) * 1e3).max(0.0));
            }
            tails.sort_by(f64::total_cmp);
            self.report.tails_ms.push(tails);
        }
        self.report
    }
}
