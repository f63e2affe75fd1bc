//! Collects a piece of a file up to the greatest length of a row.

use super::MAX_ROW_BYTES;

/// One byte more than a row may have, to distinguish a row that is too long from one that is followed by white space.
const MOST_BYTES: usize = MAX_ROW_BYTES + 1;

/// The beginning of a piece, with the length of the whole piece.
#[derive(Default)]
pub(super) struct BoundedText {
    bytes: Vec<u8>,
    length: u64,
}

impl BoundedText {
    /// Begins another piece.
    pub(super) fn clear(&mut self) {
        self.bytes.clear();
        self.length = 0;
    }

    /// Appends to the piece.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.length += bytes.len() as u64;
        let room = MOST_BYTES - self.bytes.len();
        self.bytes.extend_from_slice(bytes.get(..room).unwrap_or(bytes));
    }

    /// Removes white space from the end.
    pub(super) fn trim_end(&mut self) {
        if self.length <= MOST_BYTES as u64 {
            self.bytes.truncate(self.bytes.trim_ascii_end().len());
            self.length = self.bytes.len() as u64;
        }
    }

    /// The piece, or its beginning.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub(super) fn is_too_long(&self) -> bool {
        self.length > MAX_ROW_BYTES as u64
    }

    #[cfg(test)]
    pub(super) fn capacity(&self) -> usize {
        self.bytes.capacity()
    }
}
