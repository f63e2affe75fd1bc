//! A stream that bounds the bytes which a connection buffers for its client.
//!
//! The HTTP library reads whatever arrives, up to 128 KiB a connection, and its limit cannot be set. This stream limits what
//! it can read:
//!
//! * A head of more than [`HEAD_BYTES`] gets a 431, and the connection ends. Nginx forwards at most 17 KiB.
//! * Heads that arrive before the response to an earlier one wait in the kernel once they exceed the same limit.
//! * A body is read in pieces of [`PIECE_BYTES`], so that the library's backpressure applies after each.
//! * A connection that the library closes in the middle of a request is not reset ([`linger`]).
//!
//! The stream follows the framing of requests only to apply these limits. The library rejects malformed requests: if
//! the stream misjudges one, a limit only applies earlier or later.

mod framing;
mod linger;

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, Waker, ready},
};

use framing::{Framing, HeadTooLarge};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Largest head of a request, in bytes. Nginx accepts 17 KiB, and the gateway adds less than 2 KiB.
pub const HEAD_BYTES: usize = 20 * 1024;
/// Maximum number of bytes that are read at once, and that a response buffers for a client that reads slowly.
pub const PIECE_BYTES: usize = 8 * 1024;

const REFUSAL: &[u8] = b"HTTP/1.1 431 Request Header Fields Too Large\r\n\
    content-length: 0\r\nconnection: close\r\n\r\n";

/// A connection whose client is limited.
#[derive(Debug)]
pub(crate) struct HeadLimited<T: Connection> {
    /// `None` only while it is dropped.
    io: Option<T>,
    framing: Framing,
    /// Bytes of whole heads that have no response yet.
    unanswered: usize,
    /// Bytes that were read since the reader last had to wait.
    in_a_row: usize,
    /// The reader, while it waits for a response to be written.
    waiting: Option<Waker>,
    is_refused: bool,
    /// Whether the client has closed its sending side, or the connection has failed.
    has_ended: bool,
}

/// A socket, or its replacement in tests.
pub(crate) trait Connection: AsyncRead + AsyncWrite + Unpin + Send + 'static {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send + 'static> Connection for T {}

impl<T: Connection> HeadLimited<T> {
    pub(crate) fn new(io: T) -> Self {
        Self {
            io: Some(io),
            framing: Framing::default(),
            unanswered: 0,
            in_a_row: 0,
            waiting: None,
            is_refused: false,
            has_ended: false,
        }
    }

    fn io(&mut self) -> io::Result<Pin<&mut T>> {
        self.io.as_mut().map(Pin::new).ok_or_else(|| io::ErrorKind::NotConnected.into())
    }

    fn response_begins(&mut self) {
        self.unanswered = 0;
        if let Some(reader) = self.waiting.take() {
            reader.wake();
        }
    }
}

impl<T: Connection> Drop for HeadLimited<T> {
    fn drop(&mut self) {
        if !self.has_ended
            && self.framing.is_in_request()
            && let Some(io) = self.io.take()
        {
            linger::close(io);
        }
    }
}

impl<T: Connection> HeadLimited<T> {
    /// Sends the refusal if the client expects no other response first. If the socket does not accept it at once, the client
    /// only finds the connection closed.
    fn refuse(&mut self, cx: &mut Context<'_>) {
        self.is_refused = true;
        if self.unanswered == 0 {
            let _ = self.io().map(|io| io.poll_write(cx, REFUSAL));
        }
    }
}

impl<T: Connection> AsyncRead for HeadLimited<T> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.is_refused {
            // The end of the stream.
            return Poll::Ready(Ok(()));
        }
        if this.unanswered > HEAD_BYTES {
            this.waiting = Some(cx.waker().clone());
            return Poll::Pending;
        }
        if this.in_a_row >= PIECE_BYTES {
            this.in_a_row = 0;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let before = buffer.filled().len();
        let read = this.io()?.poll_read(cx, buffer);
        if read.is_pending() {
            this.in_a_row = 0;
        }
        let read = ready!(read);
        let new = buffer.filled().get(before..).unwrap_or_default();
        this.has_ended = read.is_err() || new.is_empty();
        read?;
        this.in_a_row += new.len();
        match this.framing.observe(new) {
            Ok(whole_heads) => this.unanswered += whole_heads,
            Err(HeadTooLarge) => {
                // For the library, an empty read is the end of the stream.
                buffer.set_filled(before);
                this.refuse(cx);
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl<T: Connection> AsyncWrite for HeadLimited<T> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        this.response_begins();
        this.io()?.poll_write(cx, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().io()?.poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().io()?.poll_shutdown(cx)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        this.response_begins();
        this.io()?.poll_write_vectored(cx, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.as_ref().is_some_and(AsyncWrite::is_write_vectored)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};

    use super::*;

    fn pair() -> (HeadLimited<DuplexStream>, DuplexStream) {
        let (server, client) = duplex(1024 * 1024);
        (HeadLimited::new(server), client)
    }

    /// Reads until nothing arrives for 50 ms.
    async fn read_all(server: &mut HeadLimited<DuplexStream>) -> Vec<u8> {
        let mut all = Vec::new();
        let mut piece = vec![0; 8 * 1024];
        while let Ok(Ok(count @ 1..)) =
            tokio::time::timeout(std::time::Duration::from_millis(50), server.read(&mut piece))
                .await
        {
            all.extend_from_slice(&piece[..count]);
        }
        all
    }

    #[tokio::test]
    async fn head_beyond_the_limit_is_refused_and_the_stream_ends() {
        let (mut server, mut client) = pair();
        client.write_all(b"GET / HTTP/1.1\r\nHost: a\r\nX: ").await.unwrap();
        client.write_all(&vec![b'a'; 100_000]).await.unwrap();
        assert!(read_all(&mut server).await.len() <= HEAD_BYTES + PIECE_BYTES);
        let mut response = vec![0; REFUSAL.len()];
        client.read_exact(&mut response).await.unwrap();
        assert_eq!(response, REFUSAL);
    }

    #[tokio::test]
    async fn heads_without_a_response_wait_and_continue_after_it() {
        let (mut server, mut client) = pair();
        let head = format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", "a".repeat(1_000));
        for _ in 0..100 {
            client.write_all(head.as_bytes()).await.unwrap();
        }
        let mut read = read_all(&mut server).await.len();
        assert!(read < 100 * head.len() && read <= HEAD_BYTES + 2 * PIECE_BYTES, "{read}");
        while read < 100 * head.len() {
            server.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await.unwrap();
            let more = read_all(&mut server).await.len();
            assert!(more > 0);
            read += more;
        }
    }

    #[tokio::test]
    async fn long_body_passes_whole() {
        let (mut server, mut client) = pair();
        let body = vec![b'a'; 500_000];
        let head = format!("POST / HTTP/1.1\r\ncontent-length: {}\r\n\r\n", body.len());
        client.write_all(head.as_bytes()).await.unwrap();
        client.write_all(&body).await.unwrap();
        assert_eq!(read_all(&mut server).await.len(), head.len() + body.len());
    }
}
