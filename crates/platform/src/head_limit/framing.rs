//! Follows where heads and bodies of requests begin and end in a stream of bytes.

use super::HEAD_BYTES;

/// Bytes that are kept of each line: enough for `transfer-encoding:`, and for `content-length:` with its number.
const LINE_BYTES: usize = 48;

const CONTENT_LENGTH: &[u8] = b"content-length:";
const TRANSFER_ENCODING: &[u8] = b"transfer-encoding:";

/// A head has more than [`HEAD_BYTES`].
#[derive(Debug, PartialEq, Eq)]
pub(super) struct HeadTooLarge;

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Before the first byte of a head. Empty lines are allowed there.
    #[default]
    Start,
    Head,
    /// This many bytes are left of a body with `Content-Length`, or of a chunk with its line break.
    Body {
        left: u64,
        is_chunk: bool,
    },
    /// A line with the size of a chunk.
    ChunkSize,
    /// Lines after the last chunk.
    Trailers,
}

/// The framing of one connection.
#[derive(Debug)]
pub(super) struct Framing {
    phase: Phase,
    head_bytes: usize,
    content_length: u64,
    is_chunked: bool,
    line: [u8; LINE_BYTES],
    /// Length of the current line, which can exceed [`LINE_BYTES`].
    line_length: usize,
}

impl Default for Framing {
    fn default() -> Self {
        Self {
            phase: Phase::Start,
            head_bytes: 0,
            content_length: 0,
            is_chunked: false,
            line: [0; LINE_BYTES],
            line_length: 0,
        }
    }
}

impl Framing {
    /// Whether a request has begun and more of it is expected.
    pub(super) fn is_in_request(&self) -> bool {
        self.phase != Phase::Start
    }

    /// Follows the next bytes. Returns the bytes of the heads that end in them.
    pub(super) fn observe(&mut self, mut bytes: &[u8]) -> Result<usize, HeadTooLarge> {
        if self.phase == Phase::Start && self.head_bytes == 0 && is_one_head_without_body(bytes) {
            return Ok(bytes.len());
        }
        let mut whole_heads = 0;
        while let Some(&first) = bytes.first() {
            match self.phase {
                Phase::Start if matches!(first, b'\r' | b'\n') => {
                    bytes = bytes.get(1..).unwrap_or_default();
                    self.head_bytes += 1;
                    if self.head_bytes > HEAD_BYTES {
                        return Err(HeadTooLarge);
                    }
                }
                Phase::Start => {
                    self.phase = Phase::Head;
                    self.content_length = 0;
                    self.is_chunked = false;
                    self.line_length = 0;
                }
                Phase::Body { left, is_chunk } => {
                    let taken = bytes.len().min(usize::try_from(left).unwrap_or(usize::MAX));
                    bytes = bytes.get(taken..).unwrap_or_default();
                    let left = left - taken as u64;
                    self.phase = match (left, is_chunk) {
                        (0, true) => Phase::ChunkSize,
                        (0, false) => Phase::Start,
                        _ => Phase::Body { left, is_chunk },
                    };
                }
                Phase::Head | Phase::ChunkSize | Phase::Trailers => {
                    let (taken, is_whole) = self.add_to_line(bytes);
                    bytes = bytes.get(taken..).unwrap_or_default();
                    // Lines of a chunked body are bounded like a head.
                    self.head_bytes += taken;
                    if self.head_bytes > HEAD_BYTES {
                        return Err(HeadTooLarge);
                    }
                    if is_whole {
                        whole_heads += self.end_line();
                        self.line_length = 0;
                    }
                }
            }
        }
        Ok(whole_heads)
    }

    /// Adds the bytes up to the end of the line. Returns their number, and whether the line is whole.
    fn add_to_line(&mut self, bytes: &[u8]) -> (usize, bool) {
        let end = memchr::memchr(b'\n', bytes);
        let taken = end.map_or(bytes.len(), |end| end + 1);
        if let Some(room) = self.line.get_mut(self.line_length..) {
            let kept = room.len().min(taken);
            if let (Some(room), Some(kept)) = (room.get_mut(..kept), bytes.get(..kept)) {
                room.copy_from_slice(kept);
            }
        }
        self.line_length += taken;
        (taken, end.is_some())
    }

    /// Acts on a whole line. Returns the bytes of the head if the line ended one.
    fn end_line(&mut self) -> usize {
        let kept = self.line.get(..self.line_length.min(LINE_BYTES)).unwrap_or_default();
        let line = kept.trim_ascii_end();
        match self.phase {
            Phase::Head if self.line_length <= 2 && line.is_empty() => {
                self.phase = match (self.is_chunked, self.content_length) {
                    (true, _) => Phase::ChunkSize,
                    (false, 0) => Phase::Start,
                    (false, left) => Phase::Body { left, is_chunk: false },
                };
                return std::mem::take(&mut self.head_bytes);
            }
            Phase::Head if announces_body(line) => match value_of(line, CONTENT_LENGTH) {
                Some(value) => self.content_length = number(value, 10),
                None => self.is_chunked = true,
            },
            Phase::ChunkSize => {
                self.head_bytes = 0;
                let size = line.split(|byte| *byte == b';').next().unwrap_or_default();
                self.phase = match number(size, 16) {
                    0 => Phase::Trailers,
                    size => Phase::Body { left: size.saturating_add(2), is_chunk: true },
                };
            }
            Phase::Trailers if self.line_length <= 2 && line.is_empty() => {
                self.phase = Phase::Start;
                self.head_bytes = 0;
            }
            _ => {}
        }
        0
    }
}

/// Whether the bytes are exactly one head that announces no body. Nearly every visit is, so this copies no line.
fn is_one_head_without_body(bytes: &[u8]) -> bool {
    if bytes.len() > HEAD_BYTES || !bytes.ends_with(b"\r\n\r\n") {
        return false;
    }
    let mut start = 0;
    for end in memchr::memchr_iter(b'\n', bytes) {
        let line = bytes.get(start..end).unwrap_or_default();
        match line.first() {
            None => return false,
            Some(b'\r') => return line.len() == 1 && start > 0 && end + 1 == bytes.len(),
            Some(_) if announces_body(line) => return false,
            Some(_) => start = end + 1,
        }
    }
    false
}

fn announces_body(line: &[u8]) -> bool {
    // A cheap filter, because few headers begin with these letters.
    matches!(line.first(), Some(b'c' | b'C' | b't' | b'T'))
        && (value_of(line, CONTENT_LENGTH).is_some() || value_of(line, TRANSFER_ENCODING).is_some())
}

fn value_of<'a>(line: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let (start, value) = line.split_at_checked(name.len())?;
    start.eq_ignore_ascii_case(name).then_some(value)
}

/// The number; 0 for anything else, which the HTTP library rejects.
fn number(text: &[u8], radix: u32) -> u64 {
    std::str::from_utf8(text.trim_ascii())
        .map_or(0, |text| u64::from_str_radix(text, radix).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The bytes of whole heads and the phase after `stream`, in pieces of every size.
    #[track_caller]
    fn after(stream: &[u8], heads: usize, phase: Phase) {
        for size in [1, 2, 3, 7, 64, stream.len()] {
            let mut framing = Framing::default();
            let whole: usize =
                stream.chunks(size).map(|piece| framing.observe(piece).unwrap()).sum();
            assert_eq!((whole, framing.phase), (heads, phase), "pieces of {size}");
        }
    }

    #[test]
    fn head_ends_at_an_empty_line_with_either_line_break() {
        after(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", 27, Phase::Start);
        after(b"GET / HTTP/1.1\nHost: a\n\n", 24, Phase::Start);
        after(b"\r\n\r\n\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", 32, Phase::Start);
        after(b"GET / HTTP/1.1\r\nHost: a\r\n", 0, Phase::Head);
        after(b"GET / HTTP/1.1\r\n\r\nGET / HTTP/1.1\r\n\r\n", 36, Phase::Start);
    }

    #[test]
    fn body_is_followed_to_its_end() {
        let head = "POST / HTTP/1.1\r\ncOnTeNt-LeNgTh:  12 \r\n\r\n";
        after(format!("{head}0123456789").as_bytes(), 41, Phase::Body { left: 2, is_chunk: false });
        after(format!("{head}a\r\n\r\n\r\n\r\n\r\n1").as_bytes(), 41, Phase::Start);
        let head = "POST / HTTP/1.1\r\ntransfer-encoding: gzip, chunked\r\n\r\n";
        after(
            format!("{head}1f;a=b\r\n\r\n\r\n").as_bytes(),
            53,
            Phase::Body { left: 29, is_chunk: true },
        );
        after(format!("{head}2\r\n\r\n\r\n0\r\nx: y\r\n").as_bytes(), 53, Phase::Trailers);
        after(format!("{head}2\r\n\r\n\r\n0\r\nx: y\r\n\r\n").as_bytes(), 53, Phase::Start);
    }

    #[test]
    fn limit_is_that_of_one_head_wherever_it_begins() {
        let long = [b"GET /".as_slice(), &vec![b'a'; HEAD_BYTES]].concat();
        for before in [
            "",
            "\r\n\r\n",
            "GET / HTTP/1.1\r\n\r\n",
            "GET / HTTP/1.1\r\ncontent-length: 1\r\n\r\na",
        ] {
            let mut framing = Framing::default();
            assert!(framing.observe(before.as_bytes()).is_ok());
            assert_eq!(framing.observe(&long), Err(HeadTooLarge), "{before:?}");
        }
        let many = b"A:\r\n".repeat(HEAD_BYTES / 4 + 1);
        assert_eq!(Framing::default().observe(&many), Err(HeadTooLarge));
        let chunked = b"POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n0\r\n";
        let mut framing = Framing::default();
        assert!(framing.observe(chunked).is_ok());
        assert_eq!(framing.observe(&many), Err(HeadTooLarge), "trailers");
        assert_eq!(Framing::default().observe(&b"\r\n".repeat(HEAD_BYTES)), Err(HeadTooLarge));
    }
}
