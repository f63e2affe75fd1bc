//! Effects of each event on visitors, processes, relays and the home region.

use super::{
    network::{Channel, Direction},
    plan::Rule,
    state::{Entry, Event, Lookup, Message, Poll},
    world::{LOCAL_S, World},
};
use crate::model::regions::{
    BOUND_MS, HEARTBEAT_MS, LIFE_FROM_L2_MS, LIFE_MS, OUTBOX_AGE_MS, OUTBOX_POLL_MS, STALE_MS,
};

/// Normal life of an L1 entry.
const LIFE_S: f64 = 600.0;

/// Visits and lookups.
impl World<'_> {
    pub(super) fn visit(&mut self, number: usize) {
        let gap = 2.0 * self.within(1.0 / self.plan.visits_a_second);
        self.queue.push(self.now + gap, Event::Visit(number));
        let (now, cut_short) = (self.now, !self.omits(Rule::LifeWithoutBus));
        let Some(process) = self.processes.get(number) else { return };
        let is_live = now < process.live_until;
        let fresh = process.entry.filter(|entry| {
            let life = if is_live || !cut_short { LIFE_S } else { entry.stale_life };
            now < entry.ticket + life * process.clock
        });
        let (region, epoch) = (process.region, process.epoch);
        if self.is_down(region) {
            self.report.failed += 1;
        } else if let Some(entry) = fresh {
            self.respond(region, entry.version);
        } else {
            let lookup = Lookup { process: number, ticket: now, epoch };
            if is_live || self.omits(Rule::L2WhileLive) {
                self.queue.push(now + LOCAL_S, Event::ReadL2(lookup));
            } else {
                self.ask_primary(lookup);
            }
        }
    }

    pub(super) fn read_l2(&mut self, lookup: Lookup) {
        let life = if self.omits(Rule::LifeFromL2) { LIFE_MS } else { LIFE_FROM_L2_MS };
        match self.regions.get(self.region_of(lookup.process)).and_then(|region| region.l2) {
            Some(version) => self.found(lookup, version, life),
            None => self.ask_primary(lookup),
        }
    }

    fn ask_primary(&mut self, lookup: Lookup) {
        let path = (self.region_of(lookup.process), Channel::Database, Direction::ToHome);
        if !self.send(path, Event::ReadPrimary(lookup)) {
            self.report.failed += 1;
        }
    }

    pub(super) fn read_primary(&mut self, lookup: Lookup) {
        let path = (self.region_of(lookup.process), Channel::Database, Direction::FromHome);
        if !self.send(path, Event::Found(lookup, self.newest())) {
            self.report.failed += 1;
        }
    }

    pub(super) fn found(&mut self, lookup: Lookup, version: usize, stale_life_ms: f64) {
        let (now, discards) = (self.now, !self.omits(Rule::DiscardOvertakenFills));
        let Some(process) = self.processes.get_mut(lookup.process) else { return };
        if now - lookup.ticket > LIFE_MS / 1e3 * process.clock {
            // The lookup has taken too long: its result may be older than the bound.
            self.report.failed += 1;
            return;
        }
        let (region, is_live) = (process.region, now < process.live_until);
        let is_current = process.epoch == lookup.epoch || !discards;
        if is_current {
            process.entry =
                Some(Entry { version, ticket: lookup.ticket, stale_life: stale_life_ms / 1e3 });
        }
        if let Some(region) = self.regions.get_mut(region)
            && is_live
            && is_current
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
}

/// Edits and invalidations.
impl World<'_> {
    fn newest(&self) -> usize {
        self.commits.len() - 1
    }

    pub(super) fn edit(&mut self) {
        let gap = 2.0 * self.within(1.0 / self.plan.edits_a_second);
        self.queue.push(self.now + gap, Event::Edit);
        let process = self.below(self.processes.len());
        let region = self.region_of(process);
        if !self.is_down(region) {
            self.send((region, Channel::Database, Direction::ToHome), Event::Commit(process));
        }
    }

    pub(super) fn commit(&mut self, process: usize) {
        self.commits.push(self.now);
        for served in &mut self.served {
            served.push(0.0);
        }
        self.report.edits += 1;
        if self.within(1.0) >= self.plan.deaths {
            let path = (self.region_of(process), Channel::Database, Direction::FromHome);
            self.send(path, Event::Committed(process, self.newest()));
        }
    }

    pub(super) fn committed(&mut self, process: usize, version: usize) {
        self.invalidate(process);
        let path = (self.region_of(process), Channel::Bus, Direction::ToHome);
        self.send(path, Event::Publish(version));
    }

    /// The central bus forwards an invalidation to every region.
    pub(super) fn publish(&mut self, version: usize) {
        for region in 0..self.regions.len() {
            self.forward(region, Message::Invalidation(version));
        }
    }

    /// Sends a message of the central bus to a region's relay.
    fn forward(&mut self, region: usize, message: Message) {
        let subscription = self.regions.get(region).map_or(0, |region| region.subscription);
        let path = (region, Channel::Bus, Direction::FromHome);
        self.send(path, Event::Arrive(region, subscription, message));
    }

    pub(super) fn arrive(&mut self, region: usize, subscription: u64, message: Message) {
        match message {
            Message::Invalidation(version) => self.apply(region, version),
            Message::Heartbeat { process, sent } => {
                let region = self.regions.get(region);
                let returns = region.is_some_and(|region| region.outbox_read_of == subscription);
                if returns || self.omits(Rule::CatchUpBeforeLive) {
                    self.queue.push(self.now + LOCAL_S, Event::Returned(process, sent));
                }
            }
        }
    }

    /// A region's Redis: the script writes L2 and notifies the processes.
    fn apply(&mut self, number: usize, version: usize) {
        let Some(region) = self.regions.get_mut(number) else { return };
        region.l2 = region.l2.max(Some(version));
        region.delivered = region.delivered.max(version);
        for process in 0..self.processes.len() {
            if self.region_of(process) == number {
                self.queue.push(self.now + LOCAL_S, Event::Deliver(process));
            }
        }
    }

    pub(super) fn invalidate(&mut self, process: usize) {
        if let Some(process) = self.processes.get_mut(process) {
            process.epoch += 1;
            process.entry = None;
        }
    }
}

/// Heartbeats.
impl World<'_> {
    pub(super) fn heartbeat(&mut self, process: usize) {
        self.queue.push(self.now + HEARTBEAT_MS / 1e3, Event::Heartbeat(process));
        let region = self.region_of(process);
        if self.is_down(region) {
            return;
        }
        if self.omits(Rule::HeartbeatsThroughHome) {
            self.queue.push(self.now + LOCAL_S, Event::Returned(process, self.now));
        } else {
            let path = (region, Channel::Bus, Direction::ToHome);
            self.send(path, Event::AtBus(process, self.now));
        }
    }

    pub(super) fn at_bus(&mut self, process: usize, sent: f64) {
        let region = self.region_of(process);
        self.forward(region, Message::Heartbeat { process, sent });
    }

    pub(super) fn returned(&mut self, number: usize, sent: f64) {
        let Some(process) = self.processes.get_mut(number) else { return };
        let until = sent + STALE_MS / 1e3 * process.clock;
        let was_stale = self.now >= process.live_until;
        process.live_until = process.live_until.max(until);
        if was_stale && self.now < until {
            self.invalidate(number);
        }
    }
}

/// The outbox.
impl World<'_> {
    pub(super) fn poll(&mut self, number: usize) {
        let gap = OUTBOX_POLL_MS / 2e3 + self.within(OUTBOX_POLL_MS / 2e3);
        self.queue.push(self.now + gap, Event::Poll(number));
        if self.is_down(number) {
            return;
        }
        let Some(region) = self.regions.get(number) else { return };
        let poll = Poll {
            region: number,
            delivered: region.delivered,
            is_first: region.is_behind(),
            subscription: 0,
        };
        self.send((number, Channel::Outbox, Direction::ToHome), Event::PollRead(poll));
    }

    /// The relay's subscription, if it has none, then its read of the outbox: rows that are old enough, or all after a
    /// subscription.
    pub(super) fn poll_read(&mut self, mut poll: Poll) {
        let before = if poll.is_first { self.now } else { self.now - OUTBOX_AGE_MS / 1e3 };
        let due = self.commits.partition_point(|&at| at <= before).saturating_sub(1);
        let early = self.omits(Rule::AcknowledgeAfterDelivery);
        let Some(region) = self.regions.get_mut(poll.region) else { return };
        if poll.is_first && !region.is_subscribed {
            region.is_subscribed = true;
            region.subscription += 1;
        }
        poll.subscription = region.subscription;
        region.acknowledged = region.acknowledged.max(poll.delivered);
        let due = Some(due).filter(|&due| due > region.acknowledged);
        if early {
            region.acknowledged = region.acknowledged.max(due.unwrap_or(0));
        }
        let path = (poll.region, Channel::Outbox, Direction::FromHome);
        self.send(path, Event::PollResult(poll, due));
    }

    pub(super) fn poll_result(&mut self, poll: Poll, due: Option<usize>) {
        if let Some(version) = due
            && !self.omits(Rule::Outbox)
        {
            self.apply(poll.region, version);
            if poll.region == self.home {
                self.publish(version);
            }
        }
        if let Some(region) = self.regions.get_mut(poll.region)
            && poll.is_first
        {
            region.outbox_read_of = region.outbox_read_of.max(poll.subscription);
        }
    }
}
