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
}

pub(super) struct Region {
    pub(super) one_way: f64,
    pub(super) l2: Option<usize>,
    /// When the last message to this region arrives: the path keeps the order.
    pub(super) down: f64,
    pub(super) up: f64,
    pub(super) outbox_relayed: bool,
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
    Arrive(usize, Message),
    Deliver(usize),
    Heartbeat(usize),
    AtBus(usize, f64),
    Returned(usize, f64),
    Poll(usize),
    PollRead(usize, f64),
    PollResult(usize, f64, usize),
}
