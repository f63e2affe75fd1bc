//! One non-blocking connection of the paced generator, with at most one request under way.

use std::{
    io::{self, ErrorKind, Read, Write},
    net::ToSocketAddrs,
};

use linnet_platform::listener::Address;
use mio::{
    Interest, Registry, Token,
    event::Source,
    net::{TcpStream, UnixStream},
};

use super::pace::Sent;
use crate::http::{Answer, MAX_HEAD, parse_head, write_request};

trait Stream: Read + Write + Source {}
impl<T: Read + Write + Source> Stream for T {}

/// A connection; opened again at the next request after a failure.
pub(super) struct Connection {
    address: Address,
    token: Token,
    stream: Option<Box<dyn Stream>>,
    request: Vec<u8>,
    received: Vec<u8>,
    length: usize,
    sent: Option<Sent>,
}

impl Connection {
    pub(super) fn open(address: &Address, registry: &Registry, token: Token) -> io::Result<Self> {
        Ok(Self {
            stream: Some(connect(address, registry, token)?),
            address: address.clone(),
            token,
            request: Vec::new(),
            received: vec![0; MAX_HEAD],
            length: 0,
            sent: None,
        })
    }

    pub(super) fn is_busy(&self) -> bool {
        self.sent.is_some()
    }

    /// Sends the request for `code`. It is shorter than any socket's buffer, so it goes out whole.
    pub(super) fn send(&mut self, code: &str, sent: Sent, registry: &Registry) -> io::Result<()> {
        write_request(&mut self.request, code);
        let written = match &mut self.stream {
            Some(stream) => stream.write_all(&self.request),
            None => Err(ErrorKind::NotConnected.into()),
        };
        if written.is_err() {
            // Closed while it was idle.
            self.close(registry);
            let mut stream = connect(&self.address, registry, self.token)?;
            stream.write_all(&self.request)?;
            self.stream = Some(stream);
        }
        self.sent = Some(sent);
        Ok(())
    }

    /// The answer, once it is there whole. `code` tells what a request asked for.
    pub(super) fn receive<'c>(
        &mut self,
        code: impl Fn(&Sent) -> &'c str,
    ) -> io::Result<Option<(Sent, Answer)>> {
        let Some(stream) = &mut self.stream else { return Ok(None) };
        loop {
            let free = self.received.get_mut(self.length..).unwrap_or_default();
            if free.is_empty() {
                return Err(ErrorKind::InvalidData.into());
            }
            match stream.read(free) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(count) => self.length += count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(None),
                Err(error) => return Err(error),
            }
            let Some(sent) = self.sent else { return Err(ErrorKind::InvalidData.into()) };
            let received = self.received.get(..self.length).unwrap_or_default();
            if let Some(head) = parse_head(received, code(&sent))?
                && self.length >= head.answer_bytes
            {
                self.length = 0;
                self.sent = None;
                if !head.keep {
                    self.stream = None;
                }
                return Ok(Some((sent, head.answer)));
            }
        }
    }

    pub(super) fn close(&mut self, registry: &Registry) {
        if let Some(mut stream) = self.stream.take() {
            // It goes with its descriptor in any case.
            let _ = registry.deregister(&mut stream);
        }
        self.length = 0;
        self.sent = None;
    }
}

/// Connects, waiting until the connection is there, and registers it.
fn connect(address: &Address, registry: &Registry, token: Token) -> io::Result<Box<dyn Stream>> {
    let mut stream: Box<dyn Stream> = match address {
        Address::Tcp(text) => {
            let address = text.to_socket_addrs()?.next().ok_or(ErrorKind::NotFound)?;
            let stream = std::net::TcpStream::connect(address)?;
            stream.set_nodelay(true)?;
            stream.set_nonblocking(true)?;
            Box::new(TcpStream::from_std(stream))
        }
        Address::Unix(path) => {
            let stream = std::os::unix::net::UnixStream::connect(path)?;
            stream.set_nonblocking(true)?;
            Box::new(UnixStream::from_std(stream))
        }
    };
    registry.register(&mut stream, token, Interest::READABLE)?;
    Ok(stream)
}
