//! Pages of lists, by cursor or by number.
//!
//! * Lists are in ascending order of ids, or of times and ids.
//! * A cursor contains the [`SortKey`] of the last item. A page costs the same at any depth, and rows that are added
//!   or deleted do not shift it.
//! * Page numbers end at [`MAX_PAGE_NUMBER`], because the database reads every row before the page.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use chrono::{DateTime, Datelike, Utc};

/// The maximum number of items of one page.
pub const MAX_PAGE_SIZE: i64 = 200;
/// The highest page number: at most 100,000 items are skipped.
pub const MAX_PAGE_NUMBER: i64 = 500;
const DEFAULT_PAGE_SIZE: i64 = 50;

/// The key that orders a list.
pub trait SortKey: Copy {
    /// A key before every item.
    const START: Self;

    /// The text inside a cursor.
    fn write(self) -> String;

    /// The inverse of [`SortKey::write`].
    fn read(text: &str) -> Option<Self>;
}

/// The number of an id; 0 is before every id.
impl SortKey for i64 {
    const START: Self = 0;

    fn write(self) -> String {
        format!("after:{self}")
    }

    fn read(text: &str) -> Option<Self> {
        text.strip_prefix("after:")?.parse().ok().filter(|id| *id >= 0)
    }
}

/// The key of a list in the order of time. Ids order items of the same time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct TimeSortKey {
    /// The time, in microseconds as in the database; `None` is before every time.
    pub time: Option<DateTime<Utc>>,
    /// The number of an id; 0 is before every id.
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
            // `chrono` accepts years that PostgreSQL rejects.
            micros => Some(
                DateTime::from_timestamp_micros(micros.parse().ok()?)
                    .filter(|time| (0..=9999).contains(&time.year()))?,
            ),
        };
        Some(Self { time, id: id.parse().ok().filter(|id| *id >= 0)? })
    }
}

/// A place in a list, as an opaque text for clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cursor<P = i64> {
    /// The key of the item before the page.
    pub after: P,
}

/// The text is not a cursor of this list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be a cursor from a Link header of this list")]
pub struct ParseCursorError;

impl<P: SortKey> Cursor<P> {
    /// The text that clients send back.
    pub fn encode(self) -> String {
        URL_SAFE_NO_PAD.encode(self.after.write())
    }

    /// The inverse of [`Cursor::encode`].
    pub fn parse(text: &str) -> Result<Self, ParseCursorError> {
        let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| ParseCursorError)?;
        let text = std::str::from_utf8(&bytes).map_err(|_| ParseCursorError)?;
        let cursor = P::read(text).map(|after| Self { after }).ok_or(ParseCursorError)?;
        // A number has other spellings, such as `+5` and `05`, which no `Link` header contains.
        if cursor.after.write() == text { Ok(cursor) } else { Err(ParseCursorError) }
    }
}

/// The start of a page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PageStart<P = i64> {
    /// The page begins after this key, which is a cursor's or [`SortKey::START`].
    After(P),
    /// The page has this number, counted from 1.
    Number(i64),
}

/// One page of a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Page<P = i64> {
    /// The start.
    pub position: PageStart<P>,
    /// The maximum number of items, from 1 to [`MAX_PAGE_SIZE`].
    pub size: i64,
}

impl<P: SortKey> Default for Page<P> {
    fn default() -> Self {
        Self { position: PageStart::After(P::START), size: DEFAULT_PAGE_SIZE }
    }
}

impl<P: SortKey> Page<P> {
    /// The key after which the page begins; [`SortKey::START`] for a page number.
    pub fn after(&self) -> P {
        match self.position {
            PageStart::After(key) => key,
            PageStart::Number(_) => P::START,
        }
    }

    /// The number of items to skip; 0 for a cursor.
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
    fn cursors_by_id_round_trip_and_other_texts_are_refused() {
        for id in [0, 1, i64::MAX] {
            let cursor = Cursor { after: id };
            assert_eq!(Cursor::parse(&cursor.encode()), Ok(cursor));
        }
        let other_spellings =
            ["after:+42", "after:042", "after:-0", "at:+1:7", "at:1:07", "at:-0:7"]
                .map(|text| URL_SAFE_NO_PAD.encode(text));
        let malformed = ["", "1", "====", "YWZ0ZXI6", "YWZ0ZXI6LTE", "ü"];
        for bad in malformed.into_iter().chain(other_spellings.iter().map(String::as_str)) {
            assert_eq!(Cursor::<i64>::parse(bad), Err(ParseCursorError), "{bad}");
            assert_eq!(Cursor::<TimeSortKey>::parse(bad), Err(ParseCursorError), "{bad}");
        }
    }

    #[test]
    fn cursors_by_time_round_trip_to_the_microsecond() {
        let time = "2026-11-21T10:00:00.123456Z".parse().ok();
        for after in [TimeSortKey::START, TimeSortKey { time, id: 7 }] {
            let text = Cursor { after }.encode();
            assert_eq!(Cursor::parse(&text), Ok(Cursor { after }));
            assert!(
                text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b)),
                "{text}"
            );
            assert_eq!(
                Cursor::<i64>::parse(&text),
                Err(ParseCursorError),
                "a cursor of another list"
            );
        }
        let by_id = Cursor { after: 7_i64 }.encode();
        assert_eq!(
            Cursor::<TimeSortKey>::parse(&by_id),
            Err(ParseCursorError),
            "a cursor of another list"
        );
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

    #[test]
    fn a_page_begins_after_its_key_or_at_its_number() {
        let first = Page::<i64>::default();
        assert_eq!((first.after(), first.offset(), first.size), (0, 0, 50));
        let keyed = Page { position: PageStart::After(7_i64), size: 20 };
        assert_eq!((keyed.after(), keyed.offset()), (7, 0));
        for (number, offset) in [(1, 0), (2, 20), (MAX_PAGE_NUMBER, 9_980)] {
            let page = Page::<i64> { position: PageStart::Number(number), size: 20 };
            assert_eq!((page.after(), page.offset()), (0, offset));
        }
        let start = Page::<TimeSortKey>::default().after();
        assert_eq!(start, TimeSortKey { time: None, id: 0 });
    }

    #[test]
    fn keys_of_cursors_are_never_before_the_start() {
        for (text, key) in [("after:0", Some(0)), ("after:-1", None), ("after:1", Some(1))] {
            assert_eq!(<i64 as SortKey>::read(text), key, "{text}");
        }
        let id = |text: &str| TimeSortKey::read(text).map(|key| key.id);
        assert_eq!((id("at::0"), id("at::-1"), id("at::2")), (Some(0), None, Some(2)));
    }
}
