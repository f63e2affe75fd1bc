//! The effects of steps.

use super::{
    Action, Coherence, Durations, Mistake,
    state::{Bus, Entry, LookupStep, Process, Relay, State, Version, Writer},
};

pub(super) fn bit(version: Version) -> u8 {
    1 << version
}

impl Coherence {
    /// The L2 script.
    pub(super) fn publish(&self, state: &mut State, version: Version) {
        state.l2 = if self.has(Mistake::BlindWriteToL2) { version } else { state.l2.max(version) };
        state.published = state.published.max(version);
        for process in state.processes.iter_mut().filter(|process| process.is_connected) {
            process.messages = (process.messages + 1).min(2);
        }
    }

    pub(super) fn next_of_lookup(&self, state: &mut State, number: usize) {
        let latest = latest(state);
        let (l2, process) = (state.l2, &mut state.processes[number]);
        let can_use_l2 = process.is_connected && process.is_client_ready;
        let Some(mut lookup) = process.lookup else { return };
        match lookup.step {
            LookupStep::ReadL2 if can_use_l2 && l2 > 0 => {
                lookup.step = LookupStep::Fill(l2);
                // L2 may lack a change that a relay has yet to publish (`STALE_TTL_FROM_L2`).
                let Durations { relay, stale_ttl, .. } = self.durations;
                let older = if self.has(Mistake::EntryOfL2LivesAsLong) { 0 } else { relay };
                lookup.age = (lookup.age + older).min(stale_ttl);
            }
            LookupStep::ReadL2 => lookup.step = LookupStep::ReadDatabase,
            LookupStep::ReadDatabase => lookup.step = LookupStep::WriteL2(latest),
            LookupStep::WriteL2(version) => {
                lookup.step = LookupStep::Fill(version);
                if can_use_l2 && !lookup.is_overtaken {
                    let blind = self.has(Mistake::BlindWriteToL2);
                    state.l2 = if blind { version } else { l2.max(version) };
                }
            }
            LookupStep::Fill(version) => {
                process.lookup = None;
                if !lookup.is_overtaken || self.has(Mistake::FillIgnoresTheEpoch) {
                    let counted = !self.has(Mistake::LifeCountsFromInsertion);
                    let age = if counted { lookup.age } else { 0 };
                    process.entry = Some(Entry { version, age });
                }
                return;
            }
        }
        process.lookup = Some(lookup);
    }

    pub(super) fn tick(&self, state: &mut State) {
        let Durations { stale_ttl, bound, .. } = self.durations;
        for age in &mut state.changes {
            *age = (*age + 1).min(bound);
        }
        for process in &mut state.processes {
            process.live_for = if process.is_connected && !process.is_frozen {
                self.durations.stale_after
            } else {
                process.live_for.saturating_sub(1)
            };
            if let Some(entry) = &mut process.entry {
                entry.age = (entry.age + 1).min(stale_ttl);
            }
            if let Some(lookup) = &mut process.lookup {
                lookup.age = (lookup.age + 1).min(stale_ttl);
            }
        }
    }

    pub(super) fn next_of_writer(&self, state: &mut State, action: Action) {
        match action {
            Action::Commit(number) => {
                state.changes.push(0);
                let version = latest(state);
                state.outbox |= if self.has(Mistake::NoOutbox) { 0 } else { bit(version) };
                state.writers[number] = Writer::Committed(version);
            }
            Action::InvalidateOwn(number) => {
                if let Writer::Committed(version) = state.writers[number] {
                    invalidate(&mut state.processes[number]);
                    state.writers[number] = Writer::Invalidated(version);
                    if self.has(Mistake::RowDeletedBeforePublication) {
                        state.outbox &= !bit(version);
                    }
                }
            }
            Action::Publish(number) => {
                if let Writer::Invalidated(version) = state.writers[number] {
                    self.publish(state, version);
                    state.writers[number] = Writer::Published(version);
                }
            }
            Action::DeleteRow(number) => {
                if let Writer::Published(version) = state.writers[number] {
                    state.outbox &= !bit(version);
                    state.writers[number] = Writer::Done;
                }
            }
            Action::CannotPublish(number) => state.writers[number] = Writer::Done,
            _ => {}
        }
    }

    pub(super) fn next_of_relay(&self, state: &mut State, action: Action) {
        let (latest, outbox) = (latest(state), state.outbox);
        match action {
            Action::RelayRead(number) => {
                let process = &mut state.processes[number];
                process.relay = Relay::HasRows(outbox);
                process.seen |= outbox;
                invalidate(process);
                if self.has(Mistake::RelayDeletesBeforePublication) {
                    state.outbox = 0;
                }
            }
            Action::RelayPublish(number) => {
                if let Relay::HasRows(rows) = state.processes[number].relay {
                    self.publish(state, latest);
                    state.processes[number].relay = Relay::Published(rows);
                }
            }
            Action::RelayFail(number) => state.processes[number].relay = Relay::Idle,
            Action::RelayDelete(number) => {
                if let Relay::Published(rows) = state.processes[number].relay {
                    state.outbox &= !rows;
                    state.processes[number].relay = Relay::Idle;
                }
            }
            _ => {}
        }
    }

    pub(super) fn next_of_bus(&self, state: &mut State, action: Action) {
        let stale_after = self.durations.stale_after;
        match action {
            Action::Receive(number) => {
                state.processes[number].messages -= 1;
                invalidate(&mut state.processes[number]);
            }
            Action::Heartbeat(number) => state.processes[number].live_for = stale_after,
            Action::Prepare(number) => state.processes[number].bus = Bus::Prepared,
            Action::BecomeLive(number) => {
                if !self.has(Mistake::NoFlushWhenLive) {
                    invalidate(&mut state.processes[number]);
                }
                state.processes[number].bus = Bus::Live;
            }
            Action::BecomeStale(number) => {
                let process = &mut state.processes[number];
                if process.bus == Bus::Live {
                    invalidate(process);
                }
                // `listen` returns, and its connections are dropped.
                (process.bus, process.live_for, process.messages) = (Bus::Stale, 0, 0);
            }
            Action::UseClient(number) => state.processes[number].is_client_ready = true,
            Action::Cut(number) => {
                state.cuts -= 1;
                let process = &mut state.processes[number];
                (process.is_connected, process.is_client_ready) = (false, false);
                process.messages = 0;
            }
            Action::Reconnect(number) => state.processes[number].is_connected = true,
            _ => {}
        }
    }
}

/// The version of the row.
pub(super) fn latest(state: &State) -> Version {
    // At most two changes.
    Version::try_from(state.changes.len() + 1).unwrap_or(Version::MAX)
}

/// `L1Cache::invalidate`.
fn invalidate(process: &mut Process) {
    process.entry = None;
    if let Some(lookup) = &mut process.lookup {
        lookup.is_overtaken = true;
    }
}
