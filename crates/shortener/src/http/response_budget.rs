//! Bounds the bytes of large responses that clients have not read yet.
//!
//! * A response of at most [`SMALL_BYTES`] fits into the buffers that each connection has, and is not counted.
//! * A larger one holds its bytes until the client has read it, in pieces. One user can hold half of the budget, so a client
//!   that reads slowly affects no other user.

use std::{
    convert::Infallible,
    pin::Pin,
    task::{Context, Poll},
};

use actix_web::{
    Error,
    body::{BodySize, EitherBody, MessageBody},
    dev::{ServiceRequest, ServiceResponse},
    middleware::Next,
    web::{Bytes, Data},
};
use linnet_platform::{
    byte_budget::{ByteBudget, Reservation},
    server::PIECE_BYTES,
};
use linnet_protocol::problem::Problem;

use super::{api::Caller, error::ApiError};

/// Size up to which a response is not counted.
const SMALL_BYTES: u64 = 2 * PIECE_BYTES as u64;
/// When a client may repeat the request, in seconds.
const RETRY_AFTER_S: u64 = 1;

/// The budget of large responses, by owner.
#[derive(Debug, Clone)]
pub struct LargeResponses(pub ByteBudget<String>);

/// Counts a large response until it is sent, or responds with 503 if it does not fit.
pub async fn bound_responses<B: MessageBody + 'static>(
    request: ServiceRequest,
    next: Next<B>,
) -> Result<ServiceResponse<EitherBody<B, CountedBody>>, Error> {
    let budget = request.app_data::<Data<LargeResponses>>().cloned();
    let response = next.call(request).await?;
    let size = match response.response().body().size() {
        BodySize::Sized(size) if size > SMALL_BYTES => size,
        _ => return Ok(response.map_into_left_body()),
    };
    let Some(budget) = budget else { return Ok(response.map_into_left_body()) };
    let owner = Caller::of(response.request()).idempotency_owner();
    let mut reservation = budget.0.reserve(owner);
    if reservation.grow(usize::try_from(size).unwrap_or(usize::MAX)).is_err() {
        let problem = Problem::unavailable(
            "Too many large responses are being read. Retry later, or request smaller pages.",
            RETRY_AFTER_S,
        );
        return Err(ApiError::from(problem).into());
    }
    let (request, response) = response.into_parts();
    let (response, body) = response.into_parts();
    let response = match body.try_into_bytes() {
        Ok(left) => {
            response.set_body(EitherBody::right(CountedBody { left, _reservation: reservation }))
        }
        Err(body) => response.set_body(EitherBody::left(body)),
    };
    Ok(ServiceResponse::new(request, response))
}

/// A body that is sent in pieces and holds its bytes in the budget.
pub struct CountedBody {
    left: Bytes,
    _reservation: Reservation<String>,
}

impl MessageBody for CountedBody {
    type Error = Infallible;

    fn size(&self) -> BodySize {
        BodySize::Sized(self.left.len() as u64)
    }

    fn poll_next(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, Infallible>>> {
        let left = &mut self.get_mut().left;
        if left.is_empty() {
            return Poll::Ready(None);
        }
        Poll::Ready(Some(Ok(left.split_to(left.len().min(PIECE_BYTES)))))
    }
}
