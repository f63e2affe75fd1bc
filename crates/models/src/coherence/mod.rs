//! How a change reaches every cache: one link, two processes, two writers, a lookup, and every order of their steps.
//!
//! Each process has an L1 entry, a subscription to the invalidation bus and an outbox relay; L2 and the outbox are
//! shared. Each writer makes one change. Reads are not steps: a property checks in every state what a reader of each
//! process would get. The model mirrors
//!
//! * `crates/resolve/src/l1.rs`: `fill`, `invalidate`, `is_fresh`, `answers` ([`Process::entry`], [`Process::lookup`]),
//! * `resolver.rs`: `look_up`, `look_up_in_database`,
//! * `invalidation.rs`: `publish_and_settle` ([`Writer`]),
//! * `outbox.rs`: `publish_batch` and the hook `before_use` ([`Relay`], [`Process::is_client_ready`]),
//! * `l2.rs`: the script `WRITE`,
//! * `platform/src/invalidation_bus.rs`: `listen` ([`Bus`]).
//!
//! Time is discrete. Ages saturate, so the number of states is finite, and the check covers runs of any length. Time
//! does not pass while a running process has a message to receive or a row to relay: a process that needs longer counts
//! as cut off or frozen. Heartbeats return in every tick. Writers and lookups may be arbitrarily slow, or never
//! continue. A frozen process does nothing while time passes. A relay publishes all rows in one tick, so the hook of a
//! new client only waits until the outbox is empty. The product's hook relays the rows itself, because an outbox can
//! have thousands of them.

mod actions;
mod state;
mod steps;

use stateright::{Model, Property};

pub use state::{Action, Bus, Entry, Lookup, LookupStep, Process, Relay, State, Version, Writer};
use steps::{bit, latest};

/// Processes, and writers: one in each process.
pub const PROCESSES: usize = 2;

/// A rule that a variant of the protocol lacks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mistake {
    /// A lookup fills L1 although an invalidation has overtaken it.
    FillIgnoresTheEpoch,
    /// The TTL of an entry counts from the end of its lookup.
    LifeCountsFromInsertion,
    /// L2 accepts any entry, also one with a lower version.
    BlindWriteToL2,
    /// A writer deletes its outbox row before it publishes.
    RowDeletedBeforePublication,
    /// A relay deletes the rows that it has read before it publishes.
    RelayDeletesBeforePublication,
    /// The outbox is not used: a change whose publication fails is lost.
    NoOutbox,
    /// A reader relies on the task of the bus to flush L1, and does not compare the deadline.
    ReaderIgnoresTheDeadline,
    /// A bus that becomes live does not flush L1.
    NoFlushWhenLive,
    /// While the bus is stale, an entry from L2 has the same TTL as one from PostgreSQL.
    EntryOfL2LivesAsLong,
    /// A request that joins a lookup takes any result.
    JoinersTakeAnyResult,
    /// Redis evicts the entry between a publication and the fill of a process that has not received it. This is a
    /// documented limit of the bound, not a mistake.
    L2Evicts,
}

/// Durations in ticks.
#[derive(Debug, Clone, Copy)]
pub struct Durations {
    /// Age of the last heartbeat at which the bus is stale (500 ms).
    pub stale_after: u8,
    /// TTL of an entry while the bus is stale (900 ms).
    pub stale_ttl: u8,
    /// Longest time until a running relay has read a row (150 + 200 ms and two statements).
    pub relay: u8,
    /// Time after a commit from which every reader must get the change (1 s).
    pub bound: u8,
}

/// Ticks of 250 ms. The TTL is rounded down to 750 ms, which no property depends on.
pub const COARSE: Durations = Durations { stale_after: 2, stale_ttl: 3, relay: 2, bound: 4 };
/// Ticks of 170 ms.
pub const FINE: Durations = Durations { stale_after: 3, stale_ttl: 5, relay: 3, bound: 6 };

/// The protocol, or a variant with a mistake.
#[derive(Debug, Clone)]
pub struct Coherence {
    /// The rule that is missing.
    pub mistake: Option<Mistake>,
    /// Durations in ticks.
    pub durations: Durations,
    /// Writers, at most one in each process.
    pub writers: usize,
    /// How often a connection to Redis may break.
    pub cuts: u8,
    /// How often a process may be paused.
    pub freezes: u8,
}

impl Coherence {
    pub(super) fn has(&self, mistake: Mistake) -> bool {
        self.mistake == Some(mistake)
    }

    fn is_live(&self, process: &Process) -> bool {
        let in_time = process.live_for > 0 || self.has(Mistake::ReaderIgnoresTheDeadline);
        process.bus == Bus::Live && in_time
    }

    /// Whether an entry of this age may be used (`L1Cache::is_fresh`). The TTL of 10 min never ends in the model.
    fn is_fresh(&self, process: &Process, age: u8) -> bool {
        age < self.durations.stale_ttl || self.is_live(process)
    }

    /// Whether a reader must not get this version any more.
    fn is_stale(&self, state: &State, version: Version) -> bool {
        let newer = state.changes.iter().skip(usize::from(version) - 1);
        newer.into_iter().any(|age| *age >= self.durations.bound)
    }

    /// Whether a request that arrives now gets this lookup's result, which is about to be returned.
    fn answers(&self, process: &Process, lookup: Lookup) -> bool {
        self.has(Mistake::JoinersTakeAnyResult)
            || (!lookup.is_overtaken && self.is_fresh(process, lookup.age))
    }

    fn readers_are_current(&self, state: &State) -> bool {
        state.processes.iter().filter(|process| !process.is_frozen).all(|process| {
            let stale_entry = process.entry.is_some_and(|entry| {
                self.is_fresh(process, entry.age) && self.is_stale(state, entry.version)
            });
            let stale_answer = process.lookup.is_some_and(|lookup| match lookup.step {
                LookupStep::Fill(version) | LookupStep::WriteL2(version) => {
                    self.answers(process, lookup) && self.is_stale(state, version)
                }
                _ => false,
            });
            !stale_entry && !stale_answer
        })
    }
}

impl Model for Coherence {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        let process = Process {
            entry: Some(Entry { version: 1, age: 0 }),
            lookup: None,
            bus: Bus::Live,
            live_for: self.durations.stale_after,
            messages: 0,
            is_connected: true,
            is_client_ready: true,
            relay: Relay::Idle,
            seen: 0,
            is_frozen: false,
        };
        vec![State {
            changes: Vec::new(),
            outbox: 0,
            published: 1,
            l2: 1,
            writers: vec![Writer::Idle; self.writers],
            processes: [process; PROCESSES],
            cuts: self.cuts,
            freezes: self.freezes,
        }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        let is_looking_up = state.processes.iter().any(|process| process.lookup.is_some());
        for (number, process) in state.processes.iter().enumerate() {
            if process.is_frozen {
                actions.push(Action::Thaw(number));
                continue;
            }
            Self::writer_actions(state, number, actions);
            Self::relay_actions(state, number, actions);
            Self::bus_actions(state, number, actions);
            if process.lookup.is_some() {
                actions.push(Action::ContinueLookup(number));
            } else if !is_looking_up
                && !process.entry.is_some_and(|entry| self.is_fresh(process, entry.age))
            {
                actions.push(Action::BeginLookup(number));
            }
            if state.freezes > 0 {
                actions.push(Action::Freeze(number));
            }
        }
        if self.has(Mistake::L2Evicts) && state.l2 > 0 {
            actions.push(Action::Evict);
        }
        if self.may_tick(state) {
            actions.push(Action::Tick);
        }
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut state = last.clone();
        match action {
            Action::Tick => self.tick(&mut state),
            Action::Evict => state.l2 = 0,
            Action::Freeze(number) => {
                state.freezes -= 1;
                state.processes[number].is_frozen = true;
            }
            Action::Thaw(number) => state.processes[number].is_frozen = false,
            Action::BeginLookup(number) => {
                let is_live = self.is_live(&state.processes[number]);
                let step = if is_live { LookupStep::ReadL2 } else { LookupStep::ReadDatabase };
                state.processes[number].lookup = Some(Lookup { step, age: 0, is_overtaken: false });
            }
            Action::ContinueLookup(number) => self.next_of_lookup(&mut state, number),
            _ => {
                self.next_of_writer(&mut state, action);
                self.next_of_relay(&mut state, action);
                self.next_of_bus(&mut state, action);
            }
        }
        (state != *last).then_some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always(
                "no reader gets a version that was replaced a second ago",
                |model: &Self, state: &State| model.readers_are_current(state),
            ),
            Property::always("L2 never goes back", |_, state: &State| {
                state.l2 == 0 || state.l2 >= state.published
            }),
            Property::always("each change is published or in the outbox", |_, state: &State| {
                let committed = 2..=latest(state);
                committed
                    .into_iter()
                    .all(|version| version <= state.published || state.outbox & bit(version) != 0)
            }),
            Property::sometimes("a lookup is overtaken by a change", |_, state: &State| {
                state.processes.iter().any(|process| {
                    process.lookup.is_some_and(|lookup| lookup.is_overtaken)
                        && process.bus == Bus::Live
                })
            }),
            Property::sometimes(
                "a process that was cut off is live again and has the last change",
                |model: &Self, state: &State| {
                    state.cuts < model.cuts
                        && state.outbox == 0
                        && state.processes.iter().all(|process| {
                            model.is_live(process)
                                && process.is_client_ready
                                && process.entry.is_some_and(|entry| {
                                    usize::from(entry.version) == model.writers + 1
                                })
                        })
                },
            ),
        ]
    }
}
