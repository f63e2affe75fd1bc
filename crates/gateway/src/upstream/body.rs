//! The request body of a call to a shortener: buffered, or streamed from the client.

use std::{
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll},
};

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use linnet_platform::lock::MutexExt as _;
use tokio::sync::mpsc;

/// An item of a streamed body.
#[derive(Debug)]
pub(crate) enum BodyEvent {
    /// The next bytes.
    Chunk(Bytes),
    /// The body is complete. A channel that closes without this event means that the client
    /// disconnected: a truncated body must never look complete.
    End,
}

/// The client disconnected before the end of its body.
#[derive(Debug, thiserror::Error)]
#[error("the client's body was truncated")]
pub(crate) struct TruncatedBody;

/// A request body. A call clones it for a possible retry. Only one clone of a streamed body is ever
/// read.
#[derive(Debug, Clone)]
pub(crate) enum CallBody {
    /// Complete; empty after it was sent.
    Buffered(Bytes),
    /// Read by the first attempt that has a connection.
    Streamed(StreamBody),
}

/// A body that arrives while it is sent; see [`CallBody::Streamed`].
#[derive(Debug)]
pub(crate) struct StreamBody {
    unclaimed: Arc<Mutex<Option<mpsc::Receiver<BodyEvent>>>>,
    claimed: Option<mpsc::Receiver<BodyEvent>>,
    remaining_bytes: Option<u64>,
    has_ended: bool,
}

impl Clone for StreamBody {
    fn clone(&self) -> Self {
        Self {
            unclaimed: Arc::clone(&self.unclaimed),
            claimed: None,
            remaining_bytes: self.remaining_bytes,
            has_ended: self.has_ended,
        }
    }
}

impl StreamBody {
    /// `length` is the client's `Content-Length` in bytes, if there is one.
    pub(crate) fn new(events: mpsc::Receiver<BodyEvent>, length: Option<u64>) -> Self {
        Self {
            unclaimed: Arc::new(Mutex::new(Some(events))),
            claimed: None,
            remaining_bytes: length,
            has_ended: false,
        }
    }

    fn is_unclaimed(&self) -> bool {
        self.unclaimed.lock_ignoring_poison().is_some()
    }

    fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, TruncatedBody>>> {
        if self.has_ended {
            return Poll::Ready(None);
        }
        if self.claimed.is_none() {
            self.claimed = self.unclaimed.lock_ignoring_poison().take();
        }
        let next = match &mut self.claimed {
            Some(events) => std::task::ready!(events.poll_recv(cx)),
            None => None,
        };
        match next {
            Some(BodyEvent::Chunk(bytes)) => {
                if let Some(remaining) = &mut self.remaining_bytes {
                    *remaining = remaining.saturating_sub(bytes.len() as u64);
                }
                Poll::Ready(Some(Ok(Frame::data(bytes))))
            }
            Some(BodyEvent::End) => {
                self.has_ended = true;
                Poll::Ready(None)
            }
            None => {
                self.has_ended = true;
                Poll::Ready(Some(Err(TruncatedBody)))
            }
        }
    }
}

impl CallBody {
    /// Whether the body can be sent from its beginning.
    pub(crate) fn is_replayable(&self) -> bool {
        match self {
            Self::Buffered(_) => true,
            Self::Streamed(stream) => stream.is_unclaimed(),
        }
    }
}

impl Body for CallBody {
    type Data = Bytes;
    type Error = TruncatedBody;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, TruncatedBody>>> {
        match self.get_mut() {
            Self::Buffered(bytes) if bytes.is_empty() => Poll::Ready(None),
            Self::Buffered(bytes) => Poll::Ready(Some(Ok(Frame::data(std::mem::take(bytes))))),
            Self::Streamed(stream) => stream.poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Buffered(bytes) => bytes.is_empty(),
            Self::Streamed(stream) => stream.has_ended,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Buffered(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Self::Streamed(StreamBody { remaining_bytes: Some(bytes), .. }) => {
                SizeHint::with_exact(*bytes)
            }
            Self::Streamed(_) => SizeHint::default(),
        }
    }
}
