//! A minimal HTTP/1.1 client: one request at a time on a persistent connection.
//!
//! It supports `GET` without a body and responses with a `Content-Length`. [`Client`] blocks. The generator with a
//! fixed rate has its own event loop and shares only the parser and the writer.

use std::{
    io::{self, Read, Write},
    net::TcpStream,
    os::unix::net::UnixStream,
    time::Duration,
};

use linnet_platform::listener::Address;

/// A request that takes longer fails.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(10);
/// Maximum size of a response's head, in bytes.
pub(crate) const MAX_HEAD: usize = 16 * 1024;

/// The part of a response that the generators check.
#[derive(Debug, PartialEq, Eq)]
pub struct Response {
    /// The status code.
    pub status: u16,
    /// Whether `Location` contains the requested code.
    pub location_has_code: bool,
}

trait Stream: Read + Write + Send {}
impl<T: Read + Write + Send> Stream for T {}

/// A connection. It is opened by the first request, and again by the first one after a failure.
pub struct Client<'a> {
    address: &'a Address,
    stream: Option<Box<dyn Stream>>,
    request: Vec<u8>,
    received: Vec<u8>,
}

impl<'a> Client<'a> {
    /// Creates a client without connecting.
    pub fn new(address: &'a Address) -> Self {
        Self { address, stream: None, request: Vec::new(), received: vec![0; MAX_HEAD] }
    }

    /// Sends `GET /{code}` and waits for the response. After an error the next request uses a new connection.
    pub fn get(&mut self, code: &str) -> io::Result<Response> {
        let mut stream = match self.stream.take() {
            Some(stream) => stream,
            None => connect(self.address)?,
        };
        write_request(&mut self.request, code);
        stream.write_all(&self.request)?;
        let (response, is_persistent) = read_response(&mut *stream, &mut self.received, code)?;
        if is_persistent {
            self.stream = Some(stream);
        }
        Ok(response)
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

/// Reads one response. The second value is whether the connection can be reused.
fn read_response(
    stream: &mut dyn Stream,
    received: &mut [u8],
    code: &str,
) -> io::Result<(Response, bool)> {
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
    let mut rest = head.total_bytes.saturating_sub(length);
    while head.is_persistent && rest > 0 {
        let take = rest.min(received.len());
        let count = stream.read(received.get_mut(..take).unwrap_or_default())?;
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        rest -= count;
    }
    Ok((head.response, head.is_persistent))
}

/// The head of a response.
pub(crate) struct ResponseHead {
    pub(crate) response: Response,
    /// Whether the connection can be reused.
    pub(crate) is_persistent: bool,
    /// Size of the head and the body.
    pub(crate) total_bytes: usize,
}

/// Parses the head of a response to a request for `code`. Returns `None` until the head is complete.
pub(crate) fn parse_head(received: &[u8], code: &str) -> io::Result<Option<ResponseHead>> {
    let Some(end) = received.windows(4).position(|window| window == b"\r\n\r\n") else {
        return Ok(None);
    };
    let head = std::str::from_utf8(received.get(..end).unwrap_or_default())
        .map_err(|_| invalid("the head is not UTF-8"))?;
    let mut lines = head.split("\r\n");
    let status = lines
        .next()
        .and_then(|line| line.split(' ').nth(1))
        .and_then(|status| status.parse().ok())
        .ok_or_else(|| invalid("the status is missing"))?;
    let (mut body_bytes, mut is_persistent, mut location_has_code) = (0_usize, true, false);
    for (name, value) in lines.filter_map(|line| line.split_once(':')) {
        if name.eq_ignore_ascii_case("content-length") {
            body_bytes =
                value.trim().parse().map_err(|_| invalid("Content-Length is not a number"))?;
        } else if name.eq_ignore_ascii_case("location") {
            location_has_code = value.contains(code);
        } else if name.eq_ignore_ascii_case("connection") {
            is_persistent = !value.trim().eq_ignore_ascii_case("close");
        } else if name.eq_ignore_ascii_case("transfer-encoding") {
            // The measured servers do not send it. A chunked body is not parsed, so the connection cannot be reused.
            is_persistent = false;
        }
    }
    let response = Response { status, location_has_code };
    Ok(Some(ResponseHead { response, is_persistent, total_bytes: end + 4 + body_bytes }))
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

    /// Returns at most three bytes per read.
    struct SlowStream(Vec<u8>, usize);

    impl Read for SlowStream {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let rest = &self.0[self.1..];
            let count = rest.len().min(buffer.len()).min(3);
            buffer[..count].copy_from_slice(&rest[..count]);
            self.1 += count;
            Ok(count)
        }
    }

    impl Write for SlowStream {
        fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
            Ok(buffer.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn read(text: &str) -> io::Result<(Response, bool)> {
        read_response(&mut SlowStream(text.into(), 0), &mut vec![0; 1024], "abc")
    }

    #[test]
    fn a_redirect_with_the_code_in_its_location_is_recognized() {
        let text = "HTTP/1.1 302 Found\r\ncontent-length: 0\r\nLocation: https://x/abc\r\n\r\n";
        let response = Response { status: 302, location_has_code: true };
        assert_eq!(read(text).unwrap(), (response, true));
    }

    #[test]
    fn a_body_is_read_to_its_end_and_a_truncated_one_is_an_error() {
        let head = "HTTP/1.1 404 Not Found\r\nContent-Length: 5\r\nConnection: close\r\n\r\n";
        assert!(!read(&format!("{head}12345")).unwrap().1);
        let head = "HTTP/1.1 404 Not Found\r\nContent-Length: 5\r\n\r\n";
        assert_eq!(read(&format!("{head}12345")).unwrap().0.status, 404);
        assert!(read(&format!("{head}123")).is_err());
        assert!(read("HTTP/1.1 3").is_err());
    }
}
