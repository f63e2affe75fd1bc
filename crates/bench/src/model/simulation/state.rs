//! The parts of the simulated world, and its events. Times are in seconds.

#[derive(Debug, Clone, Copy)]
pub(super) struct Entry {
    pub(super) version: usize,
    pub(super) ticket: f64,
    pub(super) stale_life: f64,
}

pub(super) struct Process {
    pub(super) region: usize,
    pub(super) entry: Option<Entry>,
    pub(super) epoch: u64,
    pub(super) live_until: f64,
    pub(super) paused_until: f64,
    /// True seconds in which its clock advances by one.
    pub(super) clock: f64,
}

#[derive(Default)]
pub(super) struct Region {
    pub(super) l2: Option<usize>,
    /// The version that Redis has on its disk.
    pub(super) saved: Option<usize>,
    /// The newest version that the relay has delivered to every process.
    pub(super) delivered: usize,
    /// The newest version that the outbox need not return to this relay. The primary stores it.
    pub(super) acknowledged: usize,
    /// Whether the relay's subscription of the central bus is intact.
    pub(super) is_subscribed: bool,
    /// The number of its last subscription.
    pub(super) subscription: u64,
    /// The subscription after which the relay has read the outbox.
    pub(super) outbox_read_of: u64,
}

impl Region {
    /// Whether the relay must subscribe, or has not read the outbox since.
    pub(super) fn is_behind(&self) -> bool {
        !self.is_subscribed || self.outbox_read_of != self.subscription
    }
}

/// A lookup that reads the primary.
#[derive(Debug, Clone, Copy)]
pub(super) struct Lookup {
    pub(super) process: usize,
    pub(super) ticket: f64,
    pub(super) epoch: u64,
}

#[derive(Debug, Clone, Copy)]
pub(super) enum Message {
    Invalidation(usize),
    Heartbeat { process: usize, sent: f64 },
}

/// A relay's read of the outbox.
#[derive(Debug, Clone, Copy)]
pub(super) struct Poll {
    pub(super) region: usize,
    pub(super) delivered: usize,
    /// Whether the relay subscribes before it reads.
    pub(super) is_first: bool,
    /// The subscription before the read.
    pub(super) subscription: u64,
}

#[derive(Debug, Clone, Copy)]
pub(super) enum Event {
    Visit(usize),
    ReadL2(Lookup),
    ReadPrimary(Lookup),
    Found(Lookup, usize),
    Edit,
    Commit(usize),
    Committed(usize, usize),
    Publish(usize),
    /// A message of the central bus, on the subscription of a region's relay with this number.
    Arrive(usize, u64, Message),
    Deliver(usize),
    Heartbeat(usize),
    AtBus(usize, f64),
    Returned(usize, f64),
    Poll(usize),
    PollRead(Poll),
    PollResult(Poll, Option<usize>),
    Save(usize),
    FaultBegins,
    TakenOver,
    FaultEnds,
}

/// Where an event happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// A process.
    Process(usize),
    /// The Redis or the relay of a region.
    Region(usize),
    /// The primary or the central bus.
    Home,
    /// Outside: visitors, writers and timers, which continue.
    Outside,
}

impl Event {
    pub(super) fn place(&self) -> Place {
        match *self {
            Self::ReadL2(lookup) | Self::Found(lookup, _) => Place::Process(lookup.process),
            Self::Committed(process, _) | Self::Deliver(process) | Self::Returned(process, _) => {
                Place::Process(process)
            }
            Self::Arrive(region, ..) => Place::Region(region),
            Self::PollResult(poll, _) => Place::Region(poll.region),
            Self::ReadPrimary(_)
            | Self::Commit(_)
            | Self::Publish(_)
            | Self::AtBus(..)
            | Self::PollRead(_) => Place::Home,
            Self::Visit(_)
            | Self::Edit
            | Self::Heartbeat(_)
            | Self::Poll(_)
            | Self::Save(_)
            | Self::FaultBegins
            | Self::TakenOver
            | Self::FaultEnds => Place::Outside,
        }
    }

    /// The process that must run for this event, if any.
    pub(super) fn process(&self) -> Option<usize> {
        match (*self, self.place()) {
            (Self::Visit(process) | Self::Heartbeat(process), _) | (_, Place::Process(process)) => {
                Some(process)
            }
            _ => None,
        }
    }

    /// Whether a visitor waits for it.
    pub(super) fn is_lookup(&self) -> bool {
        matches!(self, Self::ReadL2(_) | Self::ReadPrimary(_) | Self::Found(..))
    }
}
