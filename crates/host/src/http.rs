//! One HTTP request to a container's address or socket.

use std::{
    io::{self, Read, Write},
    net::TcpStream,
    os::unix::net::UnixStream,
    path::Path,
    time::Duration,
};

/// Timeout of each step of a request. A process that hangs is found within four looks.
const TIMEOUT: Duration = Duration::from_secs(1);
/// The same of the smoke test: a busy server must not fail a release.
const SOCKET_TIMEOUT: Duration = Duration::from_secs(5);
/// Responses are at most this long; metrics have a few hundred kilobytes.
const MAX_BYTES: u64 = 8 << 20;

/// The parts of a response that are compared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Response {
    /// Status code.
    pub status: u16,
    /// The header `Location`.
    pub location: Option<String>,
    /// The body.
    pub body: String,
}

/// Requests `path` from a TCP address.
pub fn get(address: &str, path: &str) -> io::Result<Response> {
    let address = address.parse().map_err(io::Error::other)?;
    let stream = TcpStream::connect_timeout(&address, TIMEOUT)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    exchange(stream, path, "localhost")
}

/// Requests `path` from a unix socket, as `host`.
pub fn get_from_socket(socket: &Path, path: &str, host: &str) -> io::Result<Response> {
    let stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(SOCKET_TIMEOUT))?;
    stream.set_write_timeout(Some(SOCKET_TIMEOUT))?;
    exchange(stream, path, host).map_err(|error| match error.kind() {
        io::ErrorKind::WouldBlock => {
            io::Error::other(format!("no response within {} s", SOCKET_TIMEOUT.as_secs()))
        }
        _ => error,
    })
}

/// HTTP/1.0, so that the body ends with the connection. The user agent is that of a bot: its clicks are not a person's.
fn exchange(mut stream: impl Read + Write, path: &str, host: &str) -> io::Result<Response> {
    let request = format!(
        "GET {path} HTTP/1.0\r\nHost: {host}\r\nUser-Agent: linnet-host-bot\r\nAccept: */*\r\nConnection: close\r\n\r\n"
    );
    // In one write: a server that responds to a part of it and closes would break the next write.
    stream.write_all(request.as_bytes())?;
    let mut bytes = Vec::new();
    stream.take(MAX_BYTES).read_to_end(&mut bytes)?;
    parse(&String::from_utf8_lossy(&bytes)).ok_or_else(|| io::Error::other("not an HTTP response"))
}

fn parse(text: &str) -> Option<Response> {
    let (head, body) = text.split_once("\r\n\r\n")?;
    let mut lines = head.lines();
    let status = lines.next()?.split(' ').nth(1)?.parse().ok()?;
    let location = lines.find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("location").then(|| value.trim().to_owned())
    });
    Some(Response { status, location, body: body.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn response_is_split() {
        let found =
            parse("HTTP/1.1 302 Found\r\nLOCATION: https://a.example/\r\n\r\nbody\r\n\r\nrest")
                .unwrap();
        assert_eq!(found.status, 302);
        assert_eq!(found.location.as_deref(), Some("https://a.example/"));
        assert_eq!(found.body, "body\r\n\r\nrest");
        assert!(parse("HTTP/1.1 200").is_none());
    }
}
