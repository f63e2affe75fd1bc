//! The records of a round's clients: every acknowledged write, and every request without a response.
//!
//! A request without a successful response may have been executed. The ledger keeps both outcomes as allowed.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

/// Time after an acknowledged change within which a process may serve the old target.
pub(super) const BOUND: Duration = Duration::from_secs(1);

/// The state of a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LinkState {
    /// The target with this number.
    Revision(u32),
    /// Nothing: the link is deleted.
    Deleted,
}

/// A link of the writers, with its acknowledged changes.
#[derive(Debug, Clone)]
pub(super) struct LinkRecord {
    pub(super) id: i64,
    pub(super) code: String,
    /// Unique part of the link's targets.
    pub(super) name: String,
    /// Acknowledged states with the time of the acknowledgment, oldest first; never empty.
    pub(super) history: Vec<(Instant, LinkState)>,
    /// A change that was sent and not acknowledged. A link with an unknown outcome is not changed again.
    pub(super) unacknowledged: Option<LinkState>,
}

impl LinkRecord {
    /// The last acknowledged state.
    pub(super) fn current(&self) -> LinkState {
        self.history.last().map_or(LinkState::Deleted, |(_, state)| *state)
    }

    /// Whether a request that began at `began` may see `state`.
    pub(super) fn allows(&self, state: LinkState, began: Instant) -> bool {
        let settled = |at: &Instant| began.saturating_duration_since(*at) >= BOUND;
        let first = self.history.iter().rposition(|(at, _)| settled(at)).unwrap_or(0);
        self.unacknowledged == Some(state)
            || self.history[first..].iter().any(|(_, allowed)| *allowed == state)
    }
}

/// The visits of one set of links, which one path reaches: one shortener, or nginx.
#[derive(Debug, Clone, Default)]
pub(super) struct VisitRecord {
    /// The ids of the links.
    pub(super) links: Vec<i64>,
    /// When each redirect arrived.
    pub(super) redirects: Vec<Instant>,
    /// Visits without a redirect. A click may be recorded for each.
    pub(super) failed: u64,
}

/// A link with `max_clicks`.
#[derive(Debug, Clone, Default)]
pub(super) struct LimitedRecord {
    pub(super) id: i64,
    pub(super) max_clicks: u64,
    pub(super) redirects: u64,
    /// Visits that may have used up a click without a redirect.
    pub(super) failed: u64,
    /// Whether a visitor got 404 after all visits before had ended.
    pub(super) is_used_up: bool,
}

/// An accepted import.
#[derive(Debug, Clone)]
pub(super) struct ImportRecord {
    pub(super) job_id: i64,
    pub(super) prefix: String,
    pub(super) rows: i64,
}

/// The records of all clients of a round.
#[derive(Debug, Default)]
pub(super) struct Records {
    pub(super) links: Vec<LinkRecord>,
    /// Names of links whose creation was never acknowledged.
    pub(super) unknown_creations: Vec<String>,
    /// By the path's name.
    pub(super) visits: BTreeMap<String, VisitRecord>,
    pub(super) limited: Vec<LimitedRecord>,
    pub(super) imports: Vec<ImportRecord>,
    /// Acknowledged creations, edits, deletions and uploads.
    pub(super) acknowledged_writes: u64,
    /// Responses that no state of the last second allows.
    pub(super) stale: Vec<String>,
    /// Checked responses of the resolve listeners.
    pub(super) checked_reads: u64,
}

/// The records, shared by all clients.
#[derive(Debug, Default)]
pub(super) struct Ledger(Mutex<Records>);

impl Ledger {
    /// Locks the records. A client that panicked leaves them readable.
    pub(super) fn lock(&self) -> MutexGuard<'_, Records> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn link_allows_the_states_of_the_last_second_and_an_unacknowledged_one() {
        let created = Instant::now();
        let at = |ms| created + Duration::from_millis(ms);
        let history = vec![
            (created, LinkState::Revision(0)),
            (at(100), LinkState::Revision(1)),
            (at(1_500), LinkState::Deleted),
        ];
        let (code, name) = ("abc".to_owned(), "a".to_owned());
        let mut link = LinkRecord { id: 1, code, name, history, unacknowledged: None };
        assert!(link.allows(LinkState::Revision(0), at(1_099)));
        assert!(!link.allows(LinkState::Revision(0), at(1_100)), "the edit is a second old");
        assert!(link.allows(LinkState::Revision(1), at(2_499)));
        assert!(!link.allows(LinkState::Revision(1), at(2_500)));
        assert!(!link.allows(LinkState::Revision(2), at(2_500)));
        link.unacknowledged = Some(LinkState::Revision(2));
        assert!(link.allows(LinkState::Revision(2), at(9_000)));
        assert_eq!(link.current(), LinkState::Deleted);
    }
}
