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
    match address {
        Address::Tcp(address) => {
            let stream = TcpStream::connect(address.as_str()).await?;
            stream.set_nodelay(true)?;
            Ok(Stream::Tcp(stream))
        }
        Address::Unix(path) => Ok(Stream::Unix(UnixStream::connect(path).await?)),
    }
}

/// A connection of either kind.
#[derive(Debug)]
pub(crate) enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Connection for Stream {
    fn connected(&self) -> Connected {
        Connected::new()
    }
}

macro_rules! either {
    ($self:ident, $method:ident, $($argument:expr),*) => {
        match $self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).$method($($argument),*),
            Self::Unix(stream) => Pin::new(stream).$method($($argument),*),
        }
    };
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        either!(self, poll_read, cx, buffer)
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        either!(self, poll_write, cx, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        either!(self, poll_flush, cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        either!(self, poll_shutdown, cx)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffers: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        either!(self, poll_write_vectored, cx, buffers)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }
}
