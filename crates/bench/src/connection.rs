//! A non-blocking connection with at most one request in flight.

use std::{
    io::{self, ErrorKind, Read, Write},
    net::ToSocketAddrs,
    time::Instant,
};

use linnet_platform::listener::Address;
use mio::{
    Interest, Registry, Token,
    event::Source,
    net::{TcpStream, UnixStream},
};

use crate::http::{MAX_HEAD, Response, parse_head, write_request};

trait Stream: Read + Write + Source {}
impl<T: Read + Write + Source> Stream for T {}

/// A request in flight.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SentRequest {
    pub(crate) due: Instant,
    /// Index in the list of codes.
    pub(crate) index: usize,
    /// False during the warm-up.
    pub(crate) is_measured: bool,
}

/// A connection. After a failure the next request opens it again.
pub(crate) struct Connection {
    address: Address,
    token: Token,
    stream: Option<Box<dyn Stream>>,
    request: Vec<u8>,
    received: Vec<u8>,
    received_bytes: usize,
    in_flight: Option<SentRequest>,
}

impl Connection {
    pub(crate) fn open(address: &Address, registry: &Registry, token: Token) -> io::Result<Self> {
        Ok(Self {
            stream: Some(connect(address, registry, token)?),
            address: address.clone(),
            token,
            request: Vec::new(),
            received: vec![0; MAX_HEAD],
            received_bytes: 0,
            in_flight: None,
        })
    }

    pub(crate) fn is_busy(&self) -> bool {
        self.in_flight.is_some()
    }

    /// Sends the request for `code` in one write: it is shorter than any socket's buffer.
    pub(crate) fn send(
        &mut self,
        code: &str,
        sent: SentRequest,
        registry: &Registry,
    ) -> io::Result<()> {
        write_request(&mut self.request, code);
        let written = match &mut self.stream {
            Some(stream) => stream.write_all(&self.request),
            None => Err(ErrorKind::NotConnected.into()),
        };
        if written.is_err() {
            // The server closed the idle connection.
            self.close(registry);
            let mut stream = connect(&self.address, registry, self.token)?;
            stream.write_all(&self.request)?;
            self.stream = Some(stream);
        }
        self.in_flight = Some(sent);
        Ok(())
    }

    /// Reads what has arrived. Returns the response once it is complete. `code` returns a request's code.
    pub(crate) fn receive<'c>(
        &mut self,
        code: impl Fn(&SentRequest) -> &'c str,
    ) -> io::Result<Option<(SentRequest, Response)>> {
        let Some(stream) = &mut self.stream else { return Ok(None) };
        loop {
            let free = self.received.get_mut(self.received_bytes..).unwrap_or_default();
            if free.is_empty() {
                return Err(ErrorKind::InvalidData.into());
            }
            match stream.read(free) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(count) => self.received_bytes += count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(None),
                Err(error) => return Err(error),
            }
            let Some(sent) = self.in_flight else { return Err(ErrorKind::InvalidData.into()) };
            let received = self.received.get(..self.received_bytes).unwrap_or_default();
            if let Some(head) = parse_head(received, code(&sent))?
                && self.received_bytes >= head.total_bytes
            {
                self.received_bytes = 0;
                self.in_flight = None;
                if !head.is_persistent {
                    self.stream = None;
                }
                return Ok(Some((sent, head.response)));
            }
        }
    }

    pub(crate) fn close(&mut self, registry: &Registry) {
        if let Some(mut stream) = self.stream.take() {
            // Closing the descriptor deregisters it in any case.
            let _ = registry.deregister(&mut stream);
        }
        self.received_bytes = 0;
        self.in_flight = None;
    }
}

/// Connects, waits until the connection is established, and registers it.
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
