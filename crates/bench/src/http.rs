//! The smallest HTTP/1.1 client: one request at a time on a connection that is kept.
//!
//! It does what the generators need and no more: `GET` without a body, answers with a
//! `Content-Length`. The client here blocks; the paced generator has a loop of its own around the same
//! reading and writing.

use std::{
    io::{self, Read, Write},
    net::TcpStream,
    os::unix::net::UnixStream,
    time::Duration,
};

use linnet_platform::listener::Address;

/// A request that takes longer has failed.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(10);
/// Longest answer's head that is read, in bytes.
pub(crate) const MAX_HEAD: usize = 16 * 1024;

/// What came back.
#[derive(Debug, PartialEq, Eq)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// Whether `Location` held the code that was asked for.
    pub location_has_code: bool,
}

trait Stream: Read + Write + Send {}
impl<T: Read + Write + Send> Stream for T {}

/// A connection; made at the first request, and again after a failure.
pub struct Client<'a> {
    address: &'a Address,
    stream: Option<Box<dyn Stream>>,
    request: Vec<u8>,
    received: Vec<u8>,
}

impl<'a> Client<'a> {
    /// Does not connect yet.
    pub fn new(address: &'a Address) -> Self {
        Self { address, stream: None, request: Vec::new(), received: vec![0; MAX_HEAD] }
    }

    /// `GET /{code}`. After an error the next request has a new connection.
    pub fn get(&mut self, code: &str) -> io::Result<Answer> {
        let mut stream = match self.stream.take() {
            Some(stream) => stream,
            None => connect(self.address)?,
        };
        write_request(&mut self.request, code);
        stream.write_all(&self.request)?;
        let (answer, keep) = read_answer(&mut *stream, &mut self.received, code)?;
        if keep {
            self.stream = Some(stream);
        }
        Ok(answer)
    }
}

fn connect(address: &Address) -> io::Result<Box<dyn Stream>> {
    match address {
        Address::Tcp(address) => {
            let stream = TcpStream::connect(address)?;
            stream.set_nodelay(true)?;
            stream.set_read_timeout(Some(TIMEOUT))?;
            stream.set_write_timeout(Some(TIMEOUT))?;
            Ok(Box::new(stream))
        }
        Address::Unix(path) => {
            let stream = UnixStream::connect(path)?;
            stream.set_read_timeout(Some(TIMEOUT))?;
            stream.set_write_timeout(Some(TIMEOUT))?;
            Ok(Box::new(stream))
        }
    }
}

/// Reads one answer; also says whether the connection may be kept.
fn read_answer(
    stream: &mut dyn Stream,
    received: &mut [u8],
    code: &str,
) -> io::Result<(Answer, bool)> {
    let mut length = 0;
    let head = loop {
        let free = received.get_mut(length..).filter(|free| !free.is_empty());
        let count = stream.read(free.ok_or_else(|| invalid("the head is too long"))?)?;
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        length += count;
        if let Some(head) = parse_head(received.get(..length).unwrap_or_default(), code)? {
            break head;
        }
    };
    let mut rest = head.answer_bytes.saturating_sub(length);
    while head.keep && rest > 0 {
        let take = rest.min(received.len());
        let count = stream.read(received.get_mut(..take).unwrap_or_default())?;
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        rest -= count;
    }
    Ok((head.answer, head.keep))
}

/// An answer's head.
pub(crate) struct Head {
    pub(crate) answer: Answer,
    /// Whether the connection may be kept.
    pub(crate) keep: bool,
    /// Bytes of the whole answer, the body included.
    pub(crate) answer_bytes: usize,
}

/// Reads the head of an answer to a request for `code`; `None` until it is there whole.
pub(crate) fn parse_head(received: &[u8], code: &str) -> io::Result<Option<Head>> {
    let Some(end) = received.windows(4).position(|window| window == b"\r\n\r\n") else {
        return Ok(None);
    };
    let head = std::str::from_utf8(received.get(..end).unwrap_or_default())
        .map_err(|_| invalid("the head is no text"))?;
    let mut lines = head.split("\r\n");
    let status = lines
        .next()
        .and_then(|line| line.split(' ').nth(1))
        .and_then(|status| status.parse().ok())
        .ok_or_else(|| invalid("no status"))?;
    let (mut body, mut keep, mut location_has_code) = (0_usize, true, false);
    for (name, value) in lines.filter_map(|line| line.split_once(':')) {
        if name.eq_ignore_ascii_case("content-length") {
            body = value.trim().parse().map_err(|_| invalid("a bad Content-Length"))?;
        } else if name.eq_ignore_ascii_case("location") {
            location_has_code = value.contains(code);
        } else if name.eq_ignore_ascii_case("connection") {
            keep = !value.trim().eq_ignore_ascii_case("close");
        } else if name.eq_ignore_ascii_case("transfer-encoding") {
            // Nothing that is measured answers so, and what follows could not be told apart.
            keep = false;
        }
    }
    let answer = Answer { status, location_has_code };
    Ok(Some(Head { answer, keep, answer_bytes: end + 4 + body }))
}

/// Writes the request for a code.
pub(crate) fn write_request(request: &mut Vec<u8>, code: &str) {
    request.clear();
    request.extend_from_slice(b"GET /");
    request.extend_from_slice(code.as_bytes());
    request.extend_from_slice(b" HTTP/1.1\r\nHost: bench.local\r\n\r\n");
}

fn invalid(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Gives its bytes in pieces of three.
    struct Pieces(Vec<u8>, usize);

    impl Read for Pieces {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let rest = &self.0[self.1..];
            let count = rest.len().min(buffer.len()).min(3);
            buffer[..count].copy_from_slice(&rest[..count]);
            self.1 += count;
            Ok(count)
        }
    }

    impl Write for Pieces {
        fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
            Ok(buffer.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn read(text: &str) -> io::Result<(Answer, bool)> {
        read_answer(&mut Pieces(text.into(), 0), &mut vec![0; 1024], "abc")
    }

    #[test]
    fn a_redirect_is_recognised() {
        let text = "HTTP/1.1 302 Found\r\ncontent-length: 0\r\nLocation: https://x/abc\r\n\r\n";
        let answer = Answer { status: 302, location_has_code: true };
        assert_eq!(read(text).unwrap(), (answer, true));
    }

    #[test]
    fn a_body_is_read_to_its_end_and_a_cut_one_is_an_error() {
        let head = "HTTP/1.1 404 Not Found\r\nContent-Length: 5\r\nConnection: close\r\n\r\n";
        assert!(!read(&format!("{head}12345")).unwrap().1);
        let head = "HTTP/1.1 404 Not Found\r\nContent-Length: 5\r\n\r\n";
        assert_eq!(read(&format!("{head}12345")).unwrap().0.status, 404);
        assert!(read(&format!("{head}123")).is_err());
        assert!(read("HTTP/1.1 3").is_err());
    }
}
