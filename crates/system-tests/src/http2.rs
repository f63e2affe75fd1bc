//! Frames of HTTP/2, for tests that hold requests as no HTTP client does: bodies and responses that stall.

use std::net::SocketAddr;

use tokio::{io::AsyncWriteExt as _, net::TcpStream};
use tokio_rustls::client::TlsStream;

use crate::https;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
const INITIAL_WINDOW_SIZE: u16 = 4;
/// Largest payload of a frame, in bytes, that a server must accept.
const MAX_PAYLOAD: usize = 16_384;

/// A connection on which the server may send no byte of a body.
#[derive(Debug)]
pub struct Http2Connection {
    stream: TlsStream<TcpStream>,
    next_id: u32,
}

impl Http2Connection {
    /// Connects, and forbids response bodies.
    pub async fn open(address: SocketAddr) -> std::io::Result<Self> {
        let connection = https::connect(address, "localhost", &["h2"]).await?;
        if connection.alpn().as_deref() != Some("h2") {
            return Err(std::io::Error::other("the server does not offer HTTP/2"));
        }
        let mut stream = connection.into_stream();
        let window = [&INITIAL_WINDOW_SIZE.to_be_bytes()[..], &[0; 4]].concat();
        let settings = frame(SETTINGS, 0, 0, &window);
        stream.write_all(&[PREFACE, &settings].concat()).await?;
        Ok(Self { stream, next_id: 1 })
    }

    /// Sends a request with these headers. With `unfinished`, the server must expect a body: these bytes of it are sent,
    /// and its end is not.
    pub async fn request(
        &mut self,
        method: &str,
        path: &str,
        headers: &[(String, String)],
        unfinished: Option<&[u8]>,
    ) -> std::io::Result<()> {
        let id = self.next_id;
        self.next_id += 2;
        let pseudo =
            [(":method", method), (":scheme", "https"), (":path", path), (":authority", "x")];
        let mut block: Vec<u8> =
            pseudo.iter().flat_map(|(name, value)| field(name, value)).collect();
        block.extend(headers.iter().flat_map(|(name, value)| field(name, value)));
        let mut bytes = Vec::new();
        let mut kind = HEADERS;
        let mut pieces = block.chunks(MAX_PAYLOAD).peekable();
        while let Some(piece) = pieces.next() {
            let end = if pieces.peek().is_none() { END_HEADERS } else { 0 };
            let stream = if kind == HEADERS && unfinished.is_none() { END_STREAM } else { 0 };
            bytes.extend(frame(kind, end | stream, id, piece));
            kind = CONTINUATION;
        }
        for piece in unfinished.unwrap_or_default().chunks(MAX_PAYLOAD) {
            bytes.extend(frame(DATA, 0, id, piece));
        }
        self.stream.write_all(&bytes).await
    }
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("a short payload").to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// A literal header field without indexing and compression.
fn field(name: &str, value: &str) -> Vec<u8> {
    let mut bytes = vec![0];
    for text in [name, value] {
        length(text.len(), &mut bytes);
        bytes.extend(text.bytes());
    }
    bytes
}

/// An integer with a prefix of 7 bits.
fn length(number: usize, bytes: &mut Vec<u8>) {
    let byte = |number: usize| u8::try_from(number).expect("a byte");
    if number < 127 {
        bytes.push(byte(number));
        return;
    }
    bytes.push(127);
    let mut rest = number - 127;
    while rest >= 128 {
        bytes.push(byte(rest % 128 + 128));
        rest /= 128;
    }
    bytes.push(byte(rest));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_and_fields_are_encoded_as_rfc_7541_defines() {
        let encoded = |number| {
            let mut bytes = Vec::new();
            length(number, &mut bytes);
            bytes
        };
        assert_eq!(encoded(126), [126]);
        assert_eq!(encoded(127), [127, 0]);
        assert_eq!(encoded(127 + 1_306), [127, 154, 10]);
        assert_eq!(field("a", "bc"), [0, 1, b'a', 2, b'b', b'c']);
        assert_eq!(frame(DATA, 1, 3, b"x"), [0, 0, 1, 0, 1, 0, 0, 0, 3, b'x']);
    }
}
