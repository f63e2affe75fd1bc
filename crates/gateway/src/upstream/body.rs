//! The body of a call to a shortener: read already, or still coming in.

use std::{
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
};

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use tokio::sync::mpsc;

/// A piece of a body that is still coming in.
#[derive(Debug)]
pub(crate) enum Piece {
    /// Some bytes.
    Chunk(Bytes),
    /// The body is complete. Without this mark the end of the channel means that the client is
    /// gone, and a cut-off body must never look whole.
    End,
}

/// The body ended before its time.
#[derive(Debug, thiserror::Error)]
#[error("the client's body was cut off")]
pub(crate) struct CutOff;

/// What is sent. A clone is made for a possible retry; of a streamed body only one clone is ever
/// read.
#[derive(Debug, Clone)]
pub(crate) enum CallBody {
    /// Known in full; empty after it was sent.
    Whole(Bytes),
    /// Taken by the first attempt that gets a connection.
    Stream(StreamBody),
}

/// See [`CallBody::Stream`].
#[derive(Debug)]
pub(crate) struct StreamBody {
    waiting: Arc<Mutex<Option<mpsc::Receiver<Piece>>>>,
    reading: Option<mpsc::Receiver<Piece>>,
    length: Option<u64>,
    ended: bool,
}

impl Clone for StreamBody {
    fn clone(&self) -> Self {
        Self {
            waiting: Arc::clone(&self.waiting),
            reading: None,
            length: self.length,
            ended: self.ended,
        }
    }
}

impl StreamBody {
    /// `length` is what the client announced, in bytes.
    pub(crate) fn new(pieces: mpsc::Receiver<Piece>, length: Option<u64>) -> Self {
        Self { waiting: Arc::new(Mutex::new(Some(pieces))), reading: None, length, ended: false }
    }

    fn is_untouched(&self) -> bool {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }
}

impl CallBody {
    /// Whether the body can still be sent from its beginning.
    pub(crate) fn is_replayable(&self) -> bool {
        match self {
            Self::Whole(_) => true,
            Self::Stream(stream) => stream.is_untouched(),
        }
    }
}

impl Body for CallBody {
    type Data = Bytes;
    type Error = CutOff;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, CutOff>>> {
        match self.get_mut() {
            Self::Whole(bytes) if bytes.is_empty() => Poll::Ready(None),
            Self::Whole(bytes) => Poll::Ready(Some(Ok(Frame::data(std::mem::take(bytes))))),
            Self::Stream(stream) => stream.poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Whole(bytes) => bytes.is_empty(),
            Self::Stream(stream) => stream.ended,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Self::Stream(StreamBody { length: Some(length), .. }) => SizeHint::with_exact(*length),
            Self::Stream(_) => SizeHint::default(),
        }
    }
}

impl StreamBody {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, CutOff>>> {
        if self.ended {
            return Poll::Ready(None);
        }
        if self.reading.is_none() {
            self.reading = self.waiting.lock().unwrap_or_else(PoisonError::into_inner).take();
        }
        let next = match &mut self.reading {
            Some(pieces) => std::task::ready!(pieces.poll_recv(cx)),
            None => None,
        };
        match next {
            Some(Piece::Chunk(bytes)) => {
                if let Some(length) = &mut self.length {
                    *length = length.saturating_sub(bytes.len() as u64);
                }
                Poll::Ready(Some(Ok(Frame::data(bytes))))
            }
            Some(Piece::End) => {
                self.ended = true;
                Poll::Ready(None)
            }
            None => {
                self.ended = true;
                Poll::Ready(Some(Err(CutOff)))
            }
        }
    }
}
