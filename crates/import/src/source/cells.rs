//! Collects the cells of a bad row up to a limit.

use super::MAX_CELL_BYTES;

const ELLIPSIS: &str = "…";

/// Cells up to [`MAX_CELL_BYTES`].
#[derive(Default)]
pub(super) struct Cells {
    cells: Vec<String>,
    bytes: usize,
}

impl Cells {
    /// Adds a cell. Returns `false` if it was cut; then it is the last one.
    pub(super) fn push(&mut self, text: &[u8]) -> bool {
        let left = MAX_CELL_BYTES - self.bytes;
        // Beyond the limit by one character, which has at most four bytes, to detect text that does not fit.
        let text = text.get(..left + 4).unwrap_or(text);
        let mut cell = String::from_utf8_lossy(text).replace('\0', "\u{fffd}");
        let fits = cell.len() <= left;
        if !fits {
            cell.truncate(cell.floor_char_boundary(left.saturating_sub(ELLIPSIS.len())));
            // If not even an ellipsis fits, the previous cell was the last.
            if left >= ELLIPSIS.len() {
                cell.push_str(ELLIPSIS);
            }
        }
        self.bytes += cell.len();
        self.cells.push(cell);
        fits
    }

    pub(super) fn finish(self) -> Vec<String> {
        self.cells
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_that_fit_are_complete() {
        let mut cells = Cells::default();
        assert!(cells.push(b"a\0\xffb"));
        assert!(cells.push(&vec![b'x'; MAX_CELL_BYTES - 8]));
        assert!(cells.push(b""));
        let cells = cells.finish();
        assert_eq!(cells[0], "a\u{fffd}\u{fffd}b");
        assert_eq!(cells.concat().len(), MAX_CELL_BYTES);
    }

    #[test]
    fn longer_cells_are_cut_between_characters() {
        for (character, before) in [("x", 0), ("é", 0), ("é", 1), ("☃", 2), ("\0", 1), ("𝄞", 3)]
        {
            let mut cells = Cells::default();
            assert!(cells.push(&vec![b'a'; before]));
            assert!(!cells.push(character.repeat(MAX_CELL_BYTES + 1).as_bytes()));
            let cells = cells.finish();
            assert!(cells[1].ends_with('…'), "{character:?}");
            let length = cells.concat().len();
            assert!((MAX_CELL_BYTES - 3..=MAX_CELL_BYTES).contains(&length), "{length}");
        }
        let mut cells = Cells::default();
        assert!(!cells.push(&vec![0xff; MAX_CELL_BYTES]));
        assert!(cells.finish().concat().len() <= MAX_CELL_BYTES);
        for left in 0..4 {
            let mut cells = Cells::default();
            assert!(cells.push(&vec![b'a'; MAX_CELL_BYTES - left]));
            assert!(!cells.push(b"abcde"));
            assert!(cells.finish().concat().len() <= MAX_CELL_BYTES);
        }
    }
}
