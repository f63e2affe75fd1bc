//! Where a list begins and how much of it is wanted.
//!
//! Lists are ordered by id, ascending, or by time and id. A cursor names the last [`SortKey`] that was
//! seen, so a page costs the same however deep it is, and rows that come or go do not shift it. Page
//! numbers are for clients that want them, and end at [`MAX_PAGE_NUMBER`] because the database must
//! count off what they skip.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use chrono::{DateTime, Datelike, Utc};

/// Most items of one page.
pub const MAX_PAGE_SIZE: i64 = 200;
/// Highest page number: the database counts off what a page skips, at most 100,000 items.
pub const MAX_PAGE_NUMBER: i64 = 500;
const DEFAULT_PAGE_SIZE: i64 = 50;

/// What a list is ordered by, and so what its cursors name.
pub trait SortKey: Copy {
    /// Before everything.
    const START: Self;

    /// As text, before it is made opaque.
    fn write(self) -> String;

    /// The inverse of [`SortKey::write`].
    fn read(text: &str) -> Option<Self>;
}

/// An id.
impl SortKey for i64 {
    const START: Self = 0;

    fn write(self) -> String {
        format!("after:{self}")
    }

    fn read(text: &str) -> Option<Self> {
        text.strip_prefix("after:")?.parse().ok().filter(|id| *id >= 0)
    }
}

/// A point of a list in the order of time; ids order what happened at the same time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct TimeSortKey {
    /// `None` is before all times. Microseconds count, which is what the database keeps.
    pub time: Option<DateTime<Utc>>,
    /// The id.
    pub id: i64,
}

impl SortKey for TimeSortKey {
    const START: Self = Self { time: None, id: 0 };

    fn write(self) -> String {
        let micros = self.time.map_or_else(String::new, |time| time.timestamp_micros().to_string());
        format!("at:{micros}:{}", self.id)
    }

    fn read(text: &str) -> Option<Self> {
        let (time, id) = text.strip_prefix("at:")?.split_once(':')?;
        let time = match time {
            "" => None,
            // The database knows fewer years than `chrono`.
            micros => Some(
                DateTime::from_timestamp_micros(micros.parse().ok()?)
                    .filter(|time| (0..=9999).contains(&time.year()))?,
            ),
        };
        Some(Self { time, id: id.parse().ok().filter(|id| *id >= 0)? })
    }
}

/// A point in a list, opaque to clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cursor<P = i64> {
    /// The page begins after it.
    pub after: P,
}

/// The text is not a cursor of this service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("is not a cursor that this list gave")]
pub struct ParseCursorError;

impl<P: SortKey> Cursor<P> {
    /// The text that clients hand back.
    pub fn encode(self) -> String {
        URL_SAFE_NO_PAD.encode(self.after.write())
    }

    /// The inverse of [`Cursor::encode`].
    pub fn parse(text: &str) -> Result<Self, ParseCursorError> {
        let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| ParseCursorError)?;
        let text = std::str::from_utf8(&bytes).map_err(|_| ParseCursorError)?;
        P::read(text).map(|after| Self { after }).ok_or(ParseCursorError)
    }
}

/// Where a page begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PageStart<P = i64> {
    /// After a cursor, or at the start.
    After(P),
    /// At a page number, from 1.
    Number(i64),
}

/// One page of a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Page<P = i64> {
    /// Where it begins.
    pub position: PageStart<P>,
    /// Most items wanted, 1 to [`MAX_PAGE_SIZE`].
    pub size: i64,
}

impl<P: SortKey> Default for Page<P> {
    fn default() -> Self {
        Self { position: PageStart::After(P::START), size: DEFAULT_PAGE_SIZE }
    }
}

impl<P: SortKey> Page<P> {
    /// Items up to this one are left out.
    pub fn after(&self) -> P {
        match self.position {
            PageStart::After(point) => point,
            PageStart::Number(_) => P::START,
        }
    }

    /// Items to skip.
    pub fn offset(&self) -> i64 {
        match self.position {
            PageStart::After(_) => 0,
            PageStart::Number(number) => (number - 1).saturating_mul(self.size),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cursors_round_trip_and_strangers_are_refused() {
        for id in [0, 1, i64::MAX] {
            let cursor = Cursor { after: id };
            assert_eq!(Cursor::parse(&cursor.encode()), Ok(cursor));
        }
        for bad in ["", "1", "====", "YWZ0ZXI6", "YWZ0ZXI6LTE", "ü"] {
            assert_eq!(Cursor::<i64>::parse(bad), Err(ParseCursorError), "{bad}");
            assert_eq!(Cursor::<TimeSortKey>::parse(bad), Err(ParseCursorError), "{bad}");
        }
    }

    #[test]
    fn cursors_of_time_round_trip_to_the_microsecond() {
        let time = "2026-11-21T10:00:00.123456Z".parse().ok();
        for after in [TimeSortKey::START, TimeSortKey { time, id: 7 }] {
            let text = Cursor { after }.encode();
            assert_eq!(Cursor::parse(&text), Ok(Cursor { after }));
            assert!(
                text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b)),
                "{text}"
            );
            assert_eq!(Cursor::<i64>::parse(&text), Err(ParseCursorError), "of another list");
        }
        let by_id = Cursor { after: 7_i64 }.encode();
        assert_eq!(Cursor::<TimeSortKey>::parse(&by_id), Err(ParseCursorError), "of another list");
        for bad in [
            "at:",
            "at::",
            "at:1:",
            "at:x:1",
            "at:1:-1",
            "at:999999999999999999:1",
            "at:-999999999999999999:1",
        ] {
            let text = URL_SAFE_NO_PAD.encode(bad);
            assert_eq!(Cursor::<TimeSortKey>::parse(&text), Err(ParseCursorError), "{bad}");
        }
    }
}
