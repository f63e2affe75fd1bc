//! Event ids of live clicks.

use std::{fmt, str::FromStr};

use chrono::{DateTime, Utc};

/// A click's position in the stream: time and number of its entry, and its index in the batch. Clients return it as
/// `Last-Event-ID`, to any process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct LiveClickId {
    at_ms: u64,
    number: u64,
    index: u32,
}

/// The text is not an event id of a live click.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("not an event id of this stream")]
pub struct ParseLiveClickIdError;

impl LiveClickId {
    /// The first click of a stream entry.
    pub(super) fn of_entry(entry_id: &str) -> Option<Self> {
        let (at_ms, number) = entry_id.split_once('-')?;
        Some(Self { at_ms: at_ms.parse().ok()?, number: number.parse().ok()?, index: 0 })
    }

    /// The click with this index in the same entry.
    pub(super) fn at(self, index: u32) -> Self {
        Self { index, ..self }
    }

    pub(super) fn entry_id(self) -> String {
        format!("{}-{}", self.at_ms, self.number)
    }

    /// The id of its entry, or of the first one since `earliest`.
    pub(super) fn entry_id_or_after(self, earliest: DateTime<Utc>) -> String {
        let earliest_ms = u64::try_from(earliest.timestamp_millis()).unwrap_or(0);
        if self.at_ms < earliest_ms { format!("{earliest_ms}-0") } else { self.entry_id() }
    }

    pub(super) fn is_same_entry(self, other: Self) -> bool {
        (self.at_ms, self.number) == (other.at_ms, other.number)
    }
}

impl FromStr for LiveClickId {
    type Err = ParseLiveClickIdError;

    fn from_str(text: &str) -> Result<Self, ParseLiveClickIdError> {
        let parse = || {
            let (entry_id, index) = text.split_once('.')?;
            Some(Self::of_entry(entry_id)?.at(index.parse().ok()?))
        };
        parse().ok_or(ParseLiveClickIdError)
    }
}

impl fmt::Display for LiveClickId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}.{}", self.at_ms, self.number, self.index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn must_26_a_replay_begins_no_earlier_than_its_limit() {
        let id: LiveClickId = "1000-7.3".parse().unwrap();
        let at = |ms| DateTime::from_timestamp_millis(ms).unwrap();
        assert_eq!(id.entry_id_or_after(at(1_000)), "1000-7");
        assert_eq!(id.entry_id_or_after(at(1_001)), "1001-0");
        assert_eq!(id.entry_id_or_after(at(-1)), "1000-7");
    }

    #[test]
    fn ids_round_trip_and_are_ordered_by_position() {
        let id: LiveClickId = "1763700000000-3.17".parse().unwrap();
        assert_eq!(id.to_string(), "1763700000000-3.17");
        assert!(id < "1763700000000-10.0".parse().unwrap());
        for invalid in ["", "1", "1-1", "1-1.", "a-1.1", "1-1.1.1", "-1-1.1", "1-1.-1"] {
            assert_eq!(invalid.parse::<LiveClickId>(), Err(ParseLiveClickIdError), "{invalid}");
        }
    }
}
