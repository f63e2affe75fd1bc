//! The shortener's body, passed on as it comes.
//!
//! Dropping it, which the server does when the client leaves, drops the call behind it.

use std::{
    error::Error as StdError,
    future::Future as _,
    pin::Pin,
    task::{Context, Poll},
};

use actix_web::body::{BodySize, MessageBody};
use bytes::Bytes;
use hyper::body::{Body as _, Incoming};
use tokio::time::{Instant, Sleep};
use tokio_util::sync::WaitForCancellationFutureOwned;

use super::request_body::Pump;

/// The answer's body did not come in time.
#[derive(Debug, thiserror::Error)]
#[error("the rest of the answer did not arrive in time")]
struct TooSlow;

/// See the module's documentation.
pub(crate) struct ProxiedBody {
    incoming: Incoming,
    size: BodySize,
    deadline: Option<Instant>,
    timer: Option<Pin<Box<Sleep>>>,
    stopping: Option<Pin<Box<WaitForCancellationFutureOwned>>>,
    _pump: Option<Pump>,
}

impl ProxiedBody {
    /// `size` is told to the client. After `deadline` the body fails, since its head is sent and
    /// nothing else could tell the client that it is not whole.
    pub(crate) fn new(
        incoming: Incoming,
        size: BodySize,
        deadline: Option<Instant>,
        pump: Option<Pump>,
    ) -> Self {
        Self { incoming, size, deadline, timer: None, stopping: None, _pump: pump }
    }

    /// Ends the body, as if it were complete, when the process stops: for event streams, whose
    /// clients come back.
    pub(crate) fn ending_with(mut self, stopping: WaitForCancellationFutureOwned) -> Self {
        self.stopping = Some(Box::pin(stopping));
        self
    }

    fn is_late(&mut self, cx: &mut Context<'_>) -> bool {
        let Some(deadline) = self.deadline else { return false };
        // Made on the first wait only: most bodies are here with their head.
        let timer =
            self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline)));
        timer.as_mut().poll(cx).is_ready()
    }
}

impl MessageBody for ProxiedBody {
    type Error = Box<dyn StdError>;

    fn size(&self) -> BodySize {
        self.size
    }

    fn poll_next(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, Self::Error>>> {
        loop {
            match Pin::new(&mut self.incoming).poll_frame(cx) {
                Poll::Ready(None) => return Poll::Ready(None),
                Poll::Ready(Some(Err(error))) => return Poll::Ready(Some(Err(error.into()))),
                Poll::Ready(Some(Ok(frame))) => {
                    // Trailers are hop-by-hop here.
                    if let Ok(bytes) = frame.into_data() {
                        return Poll::Ready(Some(Ok(bytes)));
                    }
                }
                Poll::Pending => break,
            }
        }
        if self.is_late(cx) {
            return Poll::Ready(Some(Err(TooSlow.into())));
        }
        let stopped =
            self.stopping.as_mut().is_some_and(|stopping| stopping.as_mut().poll(cx).is_ready());
        if stopped { Poll::Ready(None) } else { Poll::Pending }
    }
}
