//! The states and steps of the model.

use super::PROCESSES;

/// A version of the link; 1 is the state before the changes.
pub type Version = u8;

/// An entry of L1. A lookup takes its ticket (the time and the epoch) before it reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Entry {
    /// The version.
    pub version: Version,
    /// Age since the ticket was taken; saturates.
    pub age: u8,
}

/// A lookup in flight.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Lookup {
    /// The tier to read next, or the version that was read.
    pub step: LookupStep,
    /// Age of the ticket; saturates.
    pub age: u8,
    /// Whether an invalidation has changed the epoch since the ticket.
    pub is_overtaken: bool,
}

/// Where a lookup is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LookupStep {
    /// The ticket is taken, and the bus was live: L2 is next.
    ReadL2,
    /// PostgreSQL is next.
    ReadDatabase,
    /// PostgreSQL has returned this version: L2 is written next.
    WriteL2(Version),
    /// L1 is filled next, and the callers get this version.
    Fill(Version),
}

/// The invalidation bus of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Bus {
    /// Not subscribed, or no fresh heartbeat, and L1 is flushed.
    Stale,
    /// The hook has relayed the outbox.
    Prepared,
    /// L1 was flushed once, and heartbeats extend the deadline.
    Live,
}

/// The outbox relay of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Relay {
    /// Waits for the next poll.
    Idle,
    /// Has read these rows (a bit for each version) and invalidated its own L1.
    HasRows(u8),
    /// Has published, and deletes these rows next.
    Published(u8),
}

/// A writer: commits one change and publishes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Writer {
    /// Has not begun.
    Idle,
    /// The change and its outbox row are committed.
    Committed(Version),
    /// L1 of its own process is invalidated.
    Invalidated(Version),
    /// The invalidation is published.
    Published(Version),
    /// The client has the response.
    Done,
}

/// One shortener.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Process {
    /// L1.
    pub entry: Option<Entry>,
    /// The lookup in flight.
    pub lookup: Option<Lookup>,
    /// The state of the bus's task.
    pub bus: Bus,
    /// Ticks until the last returned heartbeat is too old.
    pub live_for: u8,
    /// Invalidations on their way to this process.
    pub messages: u8,
    /// Whether it reaches Redis.
    pub is_connected: bool,
    /// Whether its Redis client may be used: the outbox was relayed after it connected.
    pub is_client_ready: bool,
    /// The relay.
    pub relay: Relay,
    /// Outbox rows that its relay has read.
    pub seen: u8,
    /// Whether the process is paused.
    pub is_frozen: bool,
}

/// The state of the whole installation.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct State {
    /// Ages of the changes; saturate. The change with index 0 has version 2.
    pub changes: Vec<u8>,
    /// The outbox: a bit for each version.
    pub outbox: u8,
    /// The highest version that was published.
    pub published: Version,
    /// The entry in L2; 0 if there is none.
    pub l2: Version,
    /// The writers. The writer with index 1 is in the process with index 1.
    pub writers: Vec<Writer>,
    /// The processes.
    pub processes: [Process; PROCESSES],
    /// How often a connection may still break.
    pub cuts: u8,
    /// How often a process may still be paused.
    pub freezes: u8,
}

/// A step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Action {
    /// A writer commits its change.
    Commit(usize),
    /// A writer removes the link from L1 of its own process.
    InvalidateOwn(usize),
    /// A writer runs the L2 script.
    Publish(usize),
    /// A writer cannot publish, and leaves the row to the relays.
    CannotPublish(usize),
    /// A writer deletes its outbox row and responds.
    DeleteRow(usize),
    /// A relay reads the outbox and invalidates its own L1.
    RelayRead(usize),
    /// A relay reads the link and runs the L2 script. A change in between is published by its own row, because L2 keeps
    /// the higher version.
    RelayPublish(usize),
    /// A relay cannot reach Redis. The rows stay.
    RelayFail(usize),
    /// A relay deletes the rows that it has published.
    RelayDelete(usize),
    /// A process receives an invalidation.
    Receive(usize),
    /// A heartbeat returns, behind every message that was published before.
    Heartbeat(usize),
    /// The hook of the bus finds the outbox empty.
    Prepare(usize),
    /// The bus becomes live.
    BecomeLive(usize),
    /// The bus's task notices that the bus is stale.
    BecomeStale(usize),
    /// The hook of the Redis client finds the outbox empty.
    UseClient(usize),
    /// The connection to Redis breaks, with the messages on it.
    Cut(usize),
    /// The process reaches Redis again, with new connections.
    Reconnect(usize),
    /// The process is paused.
    Freeze(usize),
    /// The process continues.
    Thaw(usize),
    /// A lookup takes its ticket.
    BeginLookup(usize),
    /// A lookup reads or writes the next tier.
    ContinueLookup(usize),
    /// L2 loses its entry.
    Evict,
    /// Time passes.
    Tick,
}
