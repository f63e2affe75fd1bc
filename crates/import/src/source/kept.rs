//! A piece of a file that is kept whole, if it is not too long.

use super::MAX_ROW_BYTES;

/// One byte more shows whether what is too long was only white space.
const MOST_BYTES: usize = MAX_ROW_BYTES + 1;

/// The beginning of a piece, and how long it is.
#[derive(Default)]
pub(super) struct Kept {
    bytes: Vec<u8>,
    length: u64,
}

impl Kept {
    /// Begins another piece.
    pub(super) fn clear(&mut self) {
        self.bytes.clear();
        self.length = 0;
    }

    /// Goes on with the piece.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.length += bytes.len() as u64;
        let room = MOST_BYTES - self.bytes.len();
        self.bytes.extend_from_slice(bytes.get(..room).unwrap_or(bytes));
    }

    /// Takes white space away from the end.
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
