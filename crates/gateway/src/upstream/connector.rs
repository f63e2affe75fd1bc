//! Connections to shorteners, over TCP or a unix socket.
//!
//! The HTTP client knows an upstream by a made-up host name that carries its index
//! ([`authority_of`]); here that becomes the real address again. So the client's pool keeps
//! upstreams apart, and nothing a visitor sends can choose where a connection goes.

use std::{
    future::Future,
    io,
    pin::Pin,
    sync::Arc,
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

const HOST_PREFIX: &str = "shortener-";

/// The made-up authority of upstream `index`.
pub(crate) fn authority_of(index: usize) -> Result<Authority, http::uri::InvalidUri> {
    format!("{HOST_PREFIX}{index}").parse()
}

/// Connects to one of a fixed list of addresses.
#[derive(Debug, Clone)]
pub(crate) struct Connector {
    addresses: Arc<[Address]>,
    timeout: Duration,
}

impl Connector {
    /// `timeout` bounds one connect, name resolution included.
    pub(crate) fn new(addresses: Arc<[Address]>, timeout: Duration) -> Self {
        Self { addresses, timeout }
    }

    fn address_of(&self, uri: &Uri) -> Option<Address> {
        let index: usize = uri.host()?.strip_prefix(HOST_PREFIX)?.parse().ok()?;
        self.addresses.get(index).cloned()
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
        let address = self.address_of(&uri);
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
    Ok(Stream { socket, write_side_gone: false })
}

/// A connection of either kind.
///
/// Once the other side reads no more, what is written is thrown away instead of being an error: it
/// may have answered before it hung up, and the client gives up on a connection that fails to write
/// without looking for an answer. If there is none, reading says so.
#[derive(Debug)]
pub(crate) struct Stream {
    socket: Socket,
    write_side_gone: bool,
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
    /// `length` is what was to be written.
    fn written(
        &mut self,
        result: Poll<io::Result<usize>>,
        length: usize,
    ) -> Poll<io::Result<usize>> {
        match result {
            Poll::Ready(Err(error)) if is_hang_up(&error) => {
                self.write_side_gone = true;
                Poll::Ready(Ok(length))
            }
            other => other,
        }
    }
}

fn is_hang_up(error: &io::Error) -> bool {
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
        if stream.write_side_gone {
            return Poll::Ready(Ok(bytes.len()));
        }
        let result = either!(stream, poll_write, cx, bytes);
        stream.written(result, bytes.len())
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
        if stream.write_side_gone {
            return Poll::Ready(Ok(length));
        }
        let result = either!(stream, poll_write_vectored, cx, buffers);
        stream.written(result, length)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }
}
