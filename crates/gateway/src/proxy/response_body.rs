//! The response body of a shortener, streamed to the client.
//!
//! The server drops the body when the client disconnects, which cancels the call.

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

use super::request_body::Upload;
use crate::auth::Lease;

/// The body did not arrive in time. The head is already sent, so the connection is closed to show
/// that the body is incomplete.
#[derive(Debug, thiserror::Error)]
#[error("shortener did not send the response body in time")]
struct BodyTimedOut;

/// The timeout of a response body.
#[derive(Debug, Clone, Copy)]
pub(crate) enum BodyTimeout {
    /// The whole body must arrive before this instant.
    Deadline(Instant),
    /// Each chunk must arrive within this time after the previous one.
    Idle(Duration),
}

/// A response body with a timeout.
pub(crate) struct ProxiedBody {
    incoming: Incoming,
    size: BodySize,
    timeout: BodyTimeout,
    timer: Option<Pin<Box<Sleep>>>,
    stopping: Option<Pin<Box<WaitForCancellationFutureOwned>>>,
    lease: Option<Lease>,
    _upload: Option<Upload>,
}

impl ProxiedBody {
    /// `size` is the size that the client sees. `upload` is the request's body, which may still be
    /// in transit.
    pub(crate) fn new(
        incoming: Incoming,
        size: BodySize,
        timeout: BodyTimeout,
        upload: Option<Upload>,
    ) -> Self {
        Self { incoming, size, timeout, timer: None, stopping: None, lease: None, _upload: upload }
    }

    /// Completes the body when the process stops. For event streams, whose clients reconnect.
    pub(crate) fn ending_with(mut self, stopping: WaitForCancellationFutureOwned) -> Self {
        self.stopping = Some(Box::pin(stopping));
        self
    }

    /// Ends the body with the lease. An event stream ends cleanly, and its client finds the reason when
    /// it reconnects. Every other body is cut off: the connection is closed to show that the body is incomplete.
    pub(crate) fn ending_with_lease(mut self, lease: Option<Lease>) -> Self {
        self.lease = lease;
        self
    }

    fn has_timed_out(&mut self, cx: &mut Context<'_>) -> bool {
        let timeout = self.timeout;
        // Created on the first wait: most bodies arrive with their head and need no timer.
        let timer = self.timer.get_or_insert_with(|| {
            Box::pin(match timeout {
                BodyTimeout::Deadline(deadline) => tokio::time::sleep_until(deadline),
                BodyTimeout::Idle(idle) => tokio::time::sleep(idle),
            })
        });
        timer.as_mut().poll(cx).is_ready()
    }

    fn restart_idle_timeout(&mut self) {
        if let (BodyTimeout::Idle(idle), Some(timer)) = (self.timeout, &mut self.timer) {
            timer.as_mut().reset(Instant::now() + idle);
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
        // Checked first, so that no byte is sent after the lease has ended.
        if let Some(Poll::Ready(end)) = self.lease.as_mut().map(|lease| lease.poll_ended(cx)) {
            let is_event_stream = self.stopping.is_some();
            return Poll::Ready((!is_event_stream).then(|| Err(end.into())));
        }
        loop {
            match Pin::new(&mut self.incoming).poll_frame(cx) {
                Poll::Ready(None) => return Poll::Ready(None),
                Poll::Ready(Some(Err(error))) => return Poll::Ready(Some(Err(error.into()))),
                Poll::Ready(Some(Ok(frame))) => {
                    self.restart_idle_timeout();
                    // Trailers are hop-by-hop fields and not forwarded.
                    if let Ok(bytes) = frame.into_data() {
                        return Poll::Ready(Some(Ok(bytes)));
                    }
                }
                Poll::Pending => break,
            }
        }
        if self.has_timed_out(cx) {
            return Poll::Ready(Some(Err(BodyTimedOut.into())));
        }
        let is_stopping =
            self.stopping.as_mut().is_some_and(|stopping| stopping.as_mut().poll(cx).is_ready());
        if is_stopping { Poll::Ready(None) } else { Poll::Pending }
    }
}
