//! Where a list begins and how much of it is wanted.
//!
//! Lists are ordered by id, ascending. A cursor names the last id that was seen, so a page costs the
//! same however deep it is, and rows that come or go do not shift it. Page numbers are for clients
//! that want them, and end at [`MAX_PAGE_NUMBER`] because the database must count off what they skip.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};

/// Most items of one page.
pub const MAX_PAGE_SIZE: i64 = 200;
/// Highest page number: the database counts off what a page skips, at most 100,000 items.
pub const MAX_PAGE_NUMBER: i64 = 500;
const DEFAULT_PAGE_SIZE: i64 = 50;
const CURSOR_PREFIX: &str = "after:";

/// A point in a list, opaque to clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cursor {
    /// The page begins after this id.
    pub after_id: i64,
}

/// The text is not a cursor of this service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("is not a cursor that this service gave")]
pub struct ParseCursorError;

impl Cursor {
    /// The text that clients hand back.
    pub fn encode(self) -> String {
        URL_SAFE_NO_PAD.encode(format!("{CURSOR_PREFIX}{}", self.after_id))
    }

    /// The inverse of [`Cursor::encode`].
    pub fn parse(text: &str) -> Result<Self, ParseCursorError> {
        let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| ParseCursorError)?;
        let id = std::str::from_utf8(&bytes)
            .ok()
            .and_then(|text| text.strip_prefix(CURSOR_PREFIX))
            .and_then(|id| id.parse().ok())
            .filter(|id| *id >= 0)
            .ok_or(ParseCursorError)?;
        Ok(Self { after_id: id })
    }
}

/// Where a page begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Position {
    /// After a cursor, or at the start.
    After(i64),
    /// At a page number, from 1.
    Number(i64),
}

/// One page of a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Page {
    /// Where it begins.
    pub position: Position,
    /// Most items wanted, 1 to [`MAX_PAGE_SIZE`].
    pub size: i64,
}

impl Default for Page {
    fn default() -> Self {
        Self { position: Position::After(0), size: DEFAULT_PAGE_SIZE }
    }
}

impl Page {
    /// Items with an id up to this one are left out.
    pub fn after_id(&self) -> i64 {
        match self.position {
            Position::After(id) => id,
            Position::Number(_) => 0,
        }
    }

    /// Items to skip.
    pub fn offset(&self) -> i64 {
        match self.position {
            Position::After(_) => 0,
            Position::Number(number) => (number - 1).saturating_mul(self.size),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cursors_round_trip_and_strangers_are_refused() {
        for id in [0, 1, i64::MAX] {
            let cursor = Cursor { after_id: id };
            assert_eq!(Cursor::parse(&cursor.encode()), Ok(cursor));
        }
        for bad in ["", "1", "====", "YWZ0ZXI6", "YWZ0ZXI6LTE", "ü"] {
            assert_eq!(Cursor::parse(bad), Err(ParseCursorError), "{bad}");
        }
    }
}
