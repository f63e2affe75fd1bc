//! The steps that are possible in a state.

use super::{
    Action, Coherence,
    state::{Bus, Relay, State, Writer},
};

impl Coherence {
    /// Whether every running process has received all published messages, and its relay has read the rows that are due.
    pub(super) fn may_tick(&self, state: &State) -> bool {
        let due = state.changes.iter().enumerate().filter(|(_, age)| **age >= self.durations.relay);
        let due = due.fold(0, |mask, (index, _)| mask | 1 << (index + 2)) & state.outbox;
        state.processes.iter().all(|process| {
            let is_delivered = !process.is_connected || process.messages == 0;
            let has_relayed = due & !process.seen == 0 && process.relay == Relay::Idle;
            process.is_frozen || (is_delivered && has_relayed)
        })
    }

    pub(super) fn writer_actions(state: &State, number: usize, actions: &mut Vec<Action>) {
        let process = &state.processes[number];
        let can_publish = process.is_connected && process.is_client_ready;
        let Some(writer) = state.writers.get(number) else { return };
        match writer {
            Writer::Idle => actions.push(Action::Commit(number)),
            Writer::Committed(_) => actions.push(Action::InvalidateOwn(number)),
            Writer::Invalidated(_) if can_publish => actions.push(Action::Publish(number)),
            Writer::Invalidated(_) => actions.push(Action::CannotPublish(number)),
            Writer::Published(_) => actions.push(Action::DeleteRow(number)),
            Writer::Done => {}
        }
    }

    pub(super) fn relay_actions(state: &State, number: usize, actions: &mut Vec<Action>) {
        let process = &state.processes[number];
        match process.relay {
            Relay::Idle if state.outbox != 0 => actions.push(Action::RelayRead(number)),
            Relay::Idle => {}
            Relay::HasRows(_) if process.is_connected => {
                actions.push(Action::RelayPublish(number));
            }
            Relay::HasRows(_) => actions.push(Action::RelayFail(number)),
            Relay::Published(_) => actions.push(Action::RelayDelete(number)),
        }
    }

    pub(super) fn bus_actions(state: &State, number: usize, actions: &mut Vec<Action>) {
        let process = &state.processes[number];
        let is_relayed = state.outbox == 0;
        if process.messages > 0 {
            actions.push(Action::Receive(number));
        }
        if process.is_connected && process.messages == 0 && process.live_for == 0 {
            actions.push(Action::Heartbeat(number));
        }
        match process.bus {
            Bus::Stale if process.is_connected && is_relayed => {
                actions.push(Action::Prepare(number));
            }
            Bus::Prepared if process.live_for > 0 => actions.push(Action::BecomeLive(number)),
            Bus::Live if process.live_for == 0 || !process.is_connected => {
                actions.push(Action::BecomeStale(number));
            }
            Bus::Prepared if !process.is_connected => actions.push(Action::BecomeStale(number)),
            _ => {}
        }
        if process.is_connected && !process.is_client_ready && is_relayed {
            actions.push(Action::UseClient(number));
        }
        if process.is_connected && state.cuts > 0 {
            actions.push(Action::Cut(number));
        }
        if !process.is_connected && process.bus == Bus::Stale {
            actions.push(Action::Reconnect(number));
        }
    }
}
