//! Links by rank; rank 0 is the most popular one.
//!
//! The rank alone determines code and target. Codes have the length and the alphabet of generated codes, so that a
//! lookup costs as much as for a real code.

use std::io::{self, Write};

/// The shortener's alphabet of generated codes.
const ALPHABET: &[u8; 56] = b"23456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnpqrstuvwxyz";
/// Length of a code, in characters.
pub const CODE_LENGTH: usize = 7;
/// Number of possible codes: 56⁷.
const CODES: u64 = 1_727_094_849_536;
/// Scatters neighboring ranks. It is coprime to [`CODES`] (odd, and not a multiple of 7), so no two ranks have the same
/// code.
const SCATTER: u64 = 982_451_653_117;
/// Scatters ranks over the rows of the table, because popular links are scattered in a real one.
const ROW_SCATTER: u64 = 611_953;

/// Maximum number of links: the products below fit in 64 bits.
pub const MAX_LINKS: u64 = 4_000_000;

/// The code of a rank below [`MAX_LINKS`].
pub fn code(rank: u64) -> [u8; CODE_LENGTH] {
    let mut rest = rank * SCATTER % CODES;
    [(); CODE_LENGTH].map(|()| {
        // The remainder is below 56.
        let digit = usize::try_from(rest % 56).unwrap_or(0);
        rest /= 56;
        ALPHABET.get(digit).copied().unwrap_or(b'2')
    })
}

/// The code as text.
pub fn code_text(rank: u64) -> String {
    code(rank).into_iter().map(char::from).collect()
}

/// Writes rows for `COPY urls (short_code, original_url, clicks)`, in an order independent of popularity. `clicks`
/// follow Zipf's law, so that the warm-up at startup loads the popular links.
pub fn write_rows(links: u64, mut out: impl Write) -> io::Result<()> {
    for row in 0..links {
        // 611,953 is prime and `links` is not a multiple of it, so each rank occurs once.
        let rank = row * ROW_SCATTER % links;
        let code = code_text(rank);
        let clicks = 100 * links / (rank + 1);
        writeln!(
            out,
            "{code}\thttps://www.example.com/articles/{code}?utm_source=linnet\t{clicks}"
        )?;
    }
    out.flush()
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn codes_are_distinct_and_rows_hold_every_rank_once() {
        let codes: HashSet<_> = (0..100_000).map(code).collect();
        assert_eq!(codes.len(), 100_000);
        let mut rows = Vec::new();
        write_rows(1_000, &mut rows).unwrap();
        let text = String::from_utf8(rows).unwrap();
        let in_rows: HashSet<_> = text.lines().map(|line| line[..CODE_LENGTH].to_owned()).collect();
        let expected: HashSet<_> = (0..1_000).map(code_text).collect();
        assert_eq!(in_rows, expected);
    }
}
