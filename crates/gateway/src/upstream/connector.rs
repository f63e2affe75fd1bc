//! Connections to shorteners over TCP or unix sockets.
//!
//! The HTTP client pools connections by URI authority, so [`authority_of`] encodes each address as
//! an authority. No part of a client's request is used in it.

use std::{
    ffi::OsString,
    fmt::Write as _,
    future::Future,
    io,
    os::unix::ffi::{OsStrExt as _, OsStringExt as _},
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use http::{Uri, uri::Authority};
use hyper_util::{
    client::legacy::connect::{Connected, Connection},
    rt::TokioIo,
};
use linnet_platform::listener::Address;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpStream, UnixStream},
    time::timeout,
};

/// Prefix of a unix socket's authority; the path follows in hexadecimal digits. A TCP authority
/// always has a port.
const UNIX_PREFIX: &str = "unix-";

/// The authority that encodes an address.
pub(crate) fn authority_of(address: &Address) -> Result<Authority, http::uri::InvalidUri> {
    match address {
        Address::Tcp(address) => address.parse(),
        Address::Unix(path) => {
            let mut host = UNIX_PREFIX.to_owned();
            for byte in path.as_os_str().as_bytes() {
                // Writing to a string cannot fail.
                let _ = write!(host, "{byte:02x}");
            }
            host.parse()
        }
    }
}

/// The inverse of [`authority_of`].
fn address_of(uri: &Uri) -> Option<Address> {
    let authority = uri.authority()?;
    if authority.port().is_some() {
        return Some(Address::Tcp(authority.as_str().to_owned()));
    }
    let digits = authority.host().strip_prefix(UNIX_PREFIX)?;
    let bytes: Option<Vec<u8>> = (0..digits.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(digits.get(at..at + 2)?, 16).ok())
        .collect();
    Some(Address::Unix(OsString::from_vec(bytes?).into()))
}

/// Connects to the address that a URI's authority encodes.
#[derive(Debug, Clone)]
pub(crate) struct Connector {
    timeout: Duration,
}

impl Connector {
    /// `timeout` bounds one connect, name resolution included.
    pub(crate) fn new(timeout: Duration) -> Self {
        Self { timeout }
    }
}

impl tower_service::Service<Uri> for Connector {
    type Response = TokioIo<Stream>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<TokioIo<Stream>>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let address = address_of(&uri);
        let limit = self.timeout;
        Box::pin(async move {
            let address = address.ok_or(io::ErrorKind::NotFound)?;
            let stream = timeout(limit, connect(&address)).await??;
            Ok(TokioIo::new(stream))
        })
    }
}

async fn connect(address: &Address) -> io::Result<Stream> {
    let socket = match address {
        Address::Tcp(address) => {
            let stream = TcpStream::connect(address.as_str()).await?;
            stream.set_nodelay(true)?;
            Socket::Tcp(stream)
        }
        Address::Unix(path) => Socket::Unix(UnixStream::connect(path).await?),
    };
    Ok(Stream { socket, discards_writes: false })
}

/// A TCP or unix connection.
///
/// After the shortener has closed its read side, writes succeed and discard the data. The shortener
/// may have responded before it closed, and the HTTP client drops a connection whose write fails
/// without reading the response. If there is no response, the read fails.
#[derive(Debug)]
pub(crate) struct Stream {
    socket: Socket,
    discards_writes: bool,
}

#[derive(Debug)]
enum Socket {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Connection for Stream {
    fn connected(&self) -> Connected {
        Connected::new()
    }
}

macro_rules! either {
    ($stream:expr, $method:ident, $($argument:expr),*) => {
        match &mut $stream.socket {
            Socket::Tcp(socket) => Pin::new(socket).$method($($argument),*),
            Socket::Unix(socket) => Pin::new(socket).$method($($argument),*),
        }
    };
}

impl Stream {
    /// Turns a closed read side of the peer into a successful write of `length` bytes.
    fn discard_if_closed_by_peer(
        &mut self,
        result: Poll<io::Result<usize>>,
        length: usize,
    ) -> Poll<io::Result<usize>> {
        match result {
            Poll::Ready(Err(error)) if is_closed_by_peer(&error) => {
                self.discards_writes = true;
                Poll::Ready(Ok(length))
            }
            other => other,
        }
    }
}

fn is_closed_by_peer(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset)
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        either!(self.get_mut(), poll_read, cx, buffer)
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let stream = self.get_mut();
        if stream.discards_writes {
            return Poll::Ready(Ok(bytes.len()));
        }
        let result = either!(stream, poll_write, cx, bytes);
        stream.discard_if_closed_by_peer(result, bytes.len())
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        either!(self.get_mut(), poll_flush, cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        either!(self.get_mut(), poll_shutdown, cx)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffers: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let length = buffers.iter().map(|buffer| buffer.len()).sum();
        let stream = self.get_mut();
        if stream.discards_writes {
            return Poll::Ready(Ok(length));
        }
        let result = either!(stream, poll_write_vectored, cx, buffers);
        stream.discard_if_closed_by_peer(result, length)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn authority_encodes_an_address() {
        for text in ["127.0.0.1:80", "[::1]:8083", "shortener:8083", "unix:/run/a b/\u{e9}.sock"] {
            let address: Address = text.parse().unwrap();
            let authority = authority_of(&address).unwrap();
            let uri = Uri::builder().scheme("http").authority(authority).path_and_query("/");
            assert_eq!(address_of(&uri.build().unwrap()), Some(address));
        }
    }
}
