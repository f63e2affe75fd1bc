//! Collects the cells of a bad row up to a limit.

use std::fmt::Write as _;

use linnet_domain::RowCells;

use super::MAX_CELL_BYTES;

const ELLIPSIS: &str = "…";
/// The quotes around a cell.
const QUOTES: usize = 2;
/// The bracket after the last cell.
const END: usize = 1;

/// Cells whose JSON text has up to [`MAX_CELL_BYTES`].
#[derive(Default)]
pub(super) struct Cells {
    /// The text without the bracket at its end.
    json: String,
}

impl Cells {
    /// Adds a cell. Returns `false` if it was cut; then it is the last one.
    pub(super) fn push(&mut self, text: &[u8]) -> bool {
        let before = self.json.len();
        self.json.push(if before == 0 { '[' } else { ',' });
        self.json.push('"');
        let Some(left) = MAX_CELL_BYTES.checked_sub(self.json.len() + QUOTES - 1 + END) else {
            self.json.truncate(before);
            return false;
        };
        // Beyond the limit by one character, which has at most four bytes. That much text never fits, because each of its
        // bytes takes at least one.
        let text = String::from_utf8_lossy(text.get(..left + 4).unwrap_or(text));
        let whole: usize = text.chars().map(encoded_bytes).sum();
        if whole <= left {
            text.chars().for_each(|character| self.encode(character));
            self.json.push('"');
            return true;
        }
        let Some(room) = left.checked_sub(ELLIPSIS.len()) else {
            // Not even an ellipsis fits, so the previous cell was the last.
            self.json.truncate(before);
            return false;
        };
        let mut bytes = 0;
        for character in text.chars() {
            bytes += encoded_bytes(character);
            if bytes > room {
                break;
            }
            self.encode(character);
        }
        self.json.push_str(ELLIPSIS);
        self.json.push('"');
        false
    }

    pub(super) fn finish(mut self) -> RowCells {
        self.json.push_str(if self.json.is_empty() { "[]" } else { "]" });
        self.json.shrink_to_fit();
        RowCells::from_json(self.json)
    }

    /// Appends a character. PostgreSQL stores no NUL.
    fn encode(&mut self, character: char) {
        match character {
            '\0' => self.json.push(char::REPLACEMENT_CHARACTER),
            '"' | '\\' => self.json.extend(['\\', character]),
            '\n' => self.json.push_str("\\n"),
            '\r' => self.json.push_str("\\r"),
            '\t' => self.json.push_str("\\t"),
            ' '.. => self.json.push(character),
            // An infallible write, to a string.
            _ => drop(write!(self.json, "\\u{:04x}", u32::from(character))),
        }
    }
}

/// Bytes of a character in the text.
fn encoded_bytes(character: char) -> usize {
    match character {
        '\0' => char::REPLACEMENT_CHARACTER.len_utf8(),
        '"' | '\\' | '\n' | '\r' | '\t' => 2,
        ' '.. => character.len_utf8(),
        _ => 6,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bytes of the text of a row with one empty cell.
    const EMPTY: usize = 4;

    #[test]
    fn cells_that_fit_are_complete() {
        let mut cells = Cells::default();
        assert!(cells.push(b"a\0\xffb"));
        assert!(cells.push(&vec![b'x'; MAX_CELL_BYTES - 8 - EMPTY - 3 - 3]));
        assert!(cells.push(b""));
        assert!(!cells.push(b""));
        let cells = cells.finish();
        assert_eq!(cells.as_json().len(), MAX_CELL_BYTES);
        assert_eq!(cells.to_vec()[0], "a\u{fffd}\u{fffd}b");
        assert_eq!(cells.to_vec().len(), 3);
        assert_eq!(Cells::default().finish().to_vec(), [""; 0]);
    }

    #[test]
    fn every_character_is_valid_json() {
        for code in 0..=0x300 {
            let text = char::from_u32(code).unwrap().to_string();
            let mut cells = Cells::default();
            assert!(cells.push(text.as_bytes()));
            let cells = cells.finish();
            assert_eq!(cells.to_vec(), [text.replace('\0', "\u{fffd}")]);
            let bytes: usize = text.chars().map(encoded_bytes).sum();
            assert_eq!(cells.as_json().len(), EMPTY + bytes, "{code}");
        }
    }

    #[test]
    fn must_25_text_of_a_row_is_bounded_whatever_its_cells_are() {
        for cell in ["", "a", "\u{1}", "\"", "é", "12345678"] {
            let mut cells = Cells::default();
            let mut count = 0;
            while count < 100_000 && cells.push(cell.as_bytes()) {
                count += 1;
            }
            let cells = cells.finish();
            assert!(cells.as_json().len() <= MAX_CELL_BYTES, "{cell:?}");
            assert!(cells.to_vec().len() >= count, "{cell:?}");
            assert!(count >= 700, "{cell:?}: {count}");
        }
    }

    #[test]
    fn longer_cells_are_cut_between_characters() {
        for (character, before) in
            [("x", 0), ("é", 0), ("é", 1), ("☃", 2), ("\0", 1), ("𝄞", 3), ("\u{1}", 2), ("\"", 1)]
        {
            let mut cells = Cells::default();
            assert!(cells.push(&vec![b'a'; before]));
            assert!(!cells.push(character.repeat(MAX_CELL_BYTES + 1).as_bytes()));
            let cells = cells.finish();
            assert!(cells.to_vec()[1].ends_with('…'), "{character:?}");
            let length = cells.as_json().len();
            assert!((MAX_CELL_BYTES - 5..=MAX_CELL_BYTES).contains(&length), "{length}");
            if character == "x" {
                assert_eq!(length, MAX_CELL_BYTES, "no room is left");
            }
        }
        let mut cells = Cells::default();
        assert!(!cells.push(&vec![0xff; MAX_CELL_BYTES]));
        assert!(cells.finish().as_json().len() <= MAX_CELL_BYTES);
        for left in 0..10 {
            let mut cells = Cells::default();
            assert!(cells.push(&vec![b'a'; MAX_CELL_BYTES - EMPTY - left]));
            assert!(!cells.push(b"abcdefgh"));
            let cells = cells.finish();
            assert!(cells.as_json().len() <= MAX_CELL_BYTES);
            assert_eq!(cells.to_vec().len(), if left < 6 { 1 } else { 2 }, "{left}");
        }
    }
}
