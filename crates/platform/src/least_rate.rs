//! Ends a body that arrives too slowly, so that no client can hold a slot with a few bytes.
//!
//! Only the time for which the process waits for the client counts, so a busy disk does not make a body slow.

use std::{
    cell::Cell,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
    time::Duration,
};

use actix_web::{error::PayloadError, web::Bytes};
use futures::Stream;
use tokio::time::{Instant, Sleep};

/// The time over which the rate is measured.
pub const WINDOW: Duration = Duration::from_secs(30);

/// A body that fails when it is slower than its minimum rate.
pub struct LeastRate<S> {
    body: S,
    bytes_per_window: u64,
    bytes: u64,
    /// Time for which this window's bytes have been awaited, before the current wait.
    waited: Duration,
    waiting_since: Option<Instant>,
    timer: Pin<Box<Sleep>>,
    is_too_slow: Rc<Cell<bool>>,
}

impl<S> LeastRate<S> {
    /// Returns the body, and a flag that is set when the body fails because it is slower than `bytes_per_s`.
    pub fn new(body: S, bytes_per_s: u64) -> (Self, Rc<Cell<bool>>) {
        let is_too_slow = Rc::new(Cell::new(false));
        let body = Self {
            body,
            bytes_per_window: bytes_per_s.saturating_mul(WINDOW.as_secs()),
            bytes: 0,
            waited: Duration::ZERO,
            waiting_since: None,
            timer: Box::pin(tokio::time::sleep(WINDOW)),
            is_too_slow: Rc::clone(&is_too_slow),
        };
        (body, is_too_slow)
    }

    /// Ends the window once the process has waited for [`WINDOW`]. Returns false if the window ends with too few bytes.
    fn is_fast_enough(&mut self, waited: Duration) -> bool {
        if waited < WINDOW {
            return true;
        }
        let is_fast = self.bytes >= self.bytes_per_window;
        (self.bytes, self.waited) = (0, Duration::ZERO);
        self.waiting_since = self.waiting_since.map(|_| Instant::now());
        is_fast
    }

    fn fail(&self) -> PayloadError {
        self.is_too_slow.set(true);
        PayloadError::Io(std::io::ErrorKind::TimedOut.into())
    }
}

impl<S> Stream for LeastRate<S>
where
    S: Stream<Item = Result<Bytes, PayloadError>> + Unpin,
{
    type Item = Result<Bytes, PayloadError>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        match Pin::new(&mut this.body).poll_next(cx) {
            Poll::Ready(item) => {
                if let Some(since) = this.waiting_since.take() {
                    this.waited += since.elapsed();
                }
                if let Some(Ok(bytes)) = &item {
                    this.bytes += bytes.len() as u64;
                    if !this.is_fast_enough(this.waited) {
                        return Poll::Ready(Some(Err(this.fail())));
                    }
                }
                Poll::Ready(item)
            }
            Poll::Pending => loop {
                let since = *this.waiting_since.get_or_insert_with(Instant::now);
                if !this.is_fast_enough(this.waited + since.elapsed()) {
                    return Poll::Ready(Some(Err(this.fail())));
                }
                let since = this.waiting_since.unwrap_or(since);
                this.timer.as_mut().reset(since + WINDOW.saturating_sub(this.waited));
                if this.timer.as_mut().poll(cx).is_pending() {
                    return Poll::Pending;
                }
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::{StreamExt as _, stream};

    use super::*;

    /// Reads pieces of `size` bytes, one every `every`. Returns the bytes that arrived, and whether the body failed.
    async fn read(size: usize, every: Duration, pieces: usize, pause: Duration) -> (usize, bool) {
        let body = stream::iter(0..pieces).then(|_| async move {
            tokio::time::sleep(every).await;
            Ok(Bytes::from(vec![0; size]))
        });
        let (mut body, is_too_slow) = LeastRate::new(Box::pin(body), 1_024);
        let mut received = 0;
        while let Some(Ok(bytes)) = body.next().await {
            received += bytes.len();
            tokio::time::sleep(pause).await;
        }
        (received, is_too_slow.get())
    }

    const SECOND: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn must_26_upload_of_a_few_bytes_ends() {
        let began = Instant::now();
        assert!(read(1, 20 * SECOND, 100, Duration::ZERO).await.1);
        assert!(began.elapsed() <= WINDOW + SECOND, "{:?}", began.elapsed());
        assert!(read(1_000, SECOND, 100, Duration::ZERO).await.1, "just below the rate");
        assert!(read(1, 1_000 * SECOND, 1, Duration::ZERO).await.1, "nothing at all");
    }

    #[tokio::test(start_paused = true)]
    async fn upload_at_its_rate_and_one_that_waits_for_the_disk_continue() {
        assert_eq!(read(1_100, SECOND, 300, Duration::ZERO).await, (330_000, false));
        assert_eq!(read(32_000, 25 * SECOND, 20, Duration::ZERO).await, (640_000, false));
        let slow_disk = read(100, SECOND / 100, 200, 60 * SECOND).await;
        assert_eq!(slow_disk, (20_000, false), "the process did not wait for the client");
    }
}
