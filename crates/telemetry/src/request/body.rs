//! Wraps a response's body, so that the request's exchange ends when the body ends.

use std::{
    error::Error as StdError,
    pin::Pin,
    task::{Context, Poll, ready},
};

use actix_web::{
    body::{BodySize, MessageBody},
    web::Bytes,
};

use super::exchange::Exchange;

pin_project_lite::pin_project! {
    /// A response body whose end is the end of the request.
    pub struct ObservedBody<B> {
        #[pin]
        body: B,
        exchange: Exchange,
        // Bytes that remain, if the size is known.
        remaining: Option<u64>,
    }
}

impl<B: MessageBody> ObservedBody<B> {
    pub(super) fn new(body: B, mut exchange: Exchange) -> Self {
        let remaining = match body.size() {
            BodySize::None => Some(0),
            BodySize::Sized(size) => Some(size),
            BodySize::Stream => None,
        };
        // The HTTP server never polls an empty body.
        if remaining == Some(0) {
            exchange.complete();
        }
        Self { body, exchange, remaining }
    }
}

impl<B> MessageBody for ObservedBody<B>
where
    B: MessageBody,
    B::Error: Into<Box<dyn StdError>>,
{
    type Error = Box<dyn StdError>;

    fn size(&self) -> BodySize {
        self.body.size()
    }

    fn poll_next(
        self: Pin<&mut Self>,
        task: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, Self::Error>>> {
        let this = self.project();
        let context = std::sync::Arc::clone(this.exchange.context());
        let next = ready!(context.enter(|| this.body.poll_next(task)));
        Poll::Ready(match next {
            Some(Ok(bytes)) => {
                if let Some(remaining) = this.remaining {
                    *remaining = remaining.saturating_sub(bytes.len() as u64);
                    if *remaining == 0 {
                        this.exchange.complete();
                    }
                }
                Some(Ok(bytes))
            }
            Some(Err(error)) => {
                let error = error.into();
                this.exchange.body_failed(error.to_string());
                Some(Err(error))
            }
            None => {
                this.exchange.complete();
                None
            }
        })
    }
}
