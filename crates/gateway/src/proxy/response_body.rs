//! The shortener's body, passed on as it comes.
//!
//! Dropping it, which the server does when the client leaves, drops the call behind it.

use std::{
    error::Error as StdError,
    future::Future as _,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use actix_web::body::{BodySize, MessageBody};
use bytes::Bytes;
use hyper::body::{Body as _, Incoming};
use tokio::time::{Instant, Sleep};
use tokio_util::sync::WaitForCancellationFutureOwned;

use super::request_body::Pump;

/// The answer's body did not come in time. The head is sent, so only a cut connection can tell the
/// client that the body is not whole.
#[derive(Debug, thiserror::Error)]
#[error("the rest of the answer did not arrive in time")]
struct TooSlow;

/// How long a body is waited for.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Patience {
    /// All of it must be here by then.
    Until(Instant),
    /// No two pieces may be further apart.
    Silence(Duration),
}

/// See the module's documentation.
pub(crate) struct ProxiedBody {
    incoming: Incoming,
    size: BodySize,
    patience: Patience,
    timer: Option<Pin<Box<Sleep>>>,
    stopping: Option<Pin<Box<WaitForCancellationFutureOwned>>>,
    _pump: Option<Pump>,
}

impl ProxiedBody {
    /// `size` is told to the client. The pump carries the request's body, which may still come in.
    pub(crate) fn new(
        incoming: Incoming,
        size: BodySize,
        patience: Patience,
        pump: Option<Pump>,
    ) -> Self {
        Self { incoming, size, patience, timer: None, stopping: None, _pump: pump }
    }

    /// Ends the body, as if it were complete, when the process stops: for event streams, whose
    /// clients come back.
    pub(crate) fn ending_with(mut self, stopping: WaitForCancellationFutureOwned) -> Self {
        self.stopping = Some(Box::pin(stopping));
        self
    }

    fn is_late(&mut self, cx: &mut Context<'_>) -> bool {
        let patience = self.patience;
        // Made on the first wait only: most bodies are here with their head.
        let timer = self.timer.get_or_insert_with(|| {
            Box::pin(match patience {
                Patience::Until(deadline) => tokio::time::sleep_until(deadline),
                Patience::Silence(silence) => tokio::time::sleep(silence),
            })
        });
        timer.as_mut().poll(cx).is_ready()
    }

    fn piece_came(&mut self) {
        if let (Patience::Silence(silence), Some(timer)) = (self.patience, &mut self.timer) {
            timer.as_mut().reset(Instant::now() + silence);
        }
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
                    self.piece_came();
                    // Trailers end here, as every hop-by-hop field does.
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
