//! The client's body: read within limits, or passed on as it comes.

use std::{
    future::Future,
    pin::{Pin, pin},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use actix_web::{
    HttpResponse,
    body::{BodySize, BoxBody, MessageBody},
    dev::Payload,
    http::{
        ConnectionType, StatusCode,
        header::{CONTENT_LENGTH, HeaderMap, TRANSFER_ENCODING},
    },
};
use bytes::{Bytes, BytesMut};
use futures::StreamExt as _;
use linnet_protocol::problem::Problem;
use tokio::{
    sync::mpsc,
    task::JoinHandle,
    time::{Instant, timeout, timeout_at},
};

use crate::upstream::{CallBody, Piece, StreamBody};

/// Chunks that wait between the client and the shortener; more would only hide back-pressure.
const CHUNKS_IN_FLIGHT: usize = 2;
/// Longest silence in the middle of a streamed body, whichever way it goes.
pub(crate) const STREAM_SILENCE: Duration = Duration::from_mins(1);

/// The body's length as announced; a body without a length is chunked.
pub(crate) fn announced_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.trim().parse().ok()
}

fn has_body(headers: &HeaderMap) -> bool {
    headers.contains_key(TRANSFER_ENCODING)
        || announced_length(headers).is_some_and(|length| length > 0)
}

/// Reads the whole body: 413 beyond `limit` bytes, 408 when it is not here by `deadline`, 400 when
/// it breaks off.
pub(crate) async fn read(
    headers: &HeaderMap,
    payload: &mut Payload,
    limit: usize,
    deadline: Instant,
) -> Result<Bytes, Problem> {
    if !has_body(headers) {
        return Ok(Bytes::new());
    }
    let announced = announced_length(headers).unwrap_or(0);
    if announced > limit as u64 {
        return Err(Problem::too_large(limit));
    }
    let mut first = Bytes::new();
    let mut rest = BytesMut::new();
    loop {
        let chunk = match timeout_at(deadline, payload.next()).await {
            Err(_) => return Err(too_slow()),
            Ok(None) => break,
            Ok(Some(Err(error))) => {
                tracing::debug!(error = &error as &dyn std::error::Error, "a body broke off");
                return Err(broken_off());
            }
            Ok(Some(Ok(chunk))) => chunk,
        };
        if first.len() + rest.len() + chunk.len() > limit {
            return Err(Problem::too_large(limit));
        }
        // Most bodies come in one chunk, which then needs no copy.
        if first.is_empty() && rest.is_empty() {
            first = chunk;
        } else {
            if rest.is_empty() {
                rest.extend_from_slice(&std::mem::take(&mut first));
            }
            rest.extend_from_slice(&chunk);
        }
    }
    Ok(if rest.is_empty() { first } else { rest.freeze() })
}

fn too_slow() -> Problem {
    Problem::new(StatusCode::REQUEST_TIMEOUT, "body_timeout", "The body came too slowly")
        .detail("the rest of the body did not arrive in time")
}

fn broken_off() -> Problem {
    Problem::new(StatusCode::BAD_REQUEST, "body_broken", "The body could not be read")
        .detail("the body broke off or its encoding is wrong")
}

/// Answers without reading the rest. The answer holds on to the payload until it is sent: a payload
/// that is dropped earlier would be read to its end first, however long that takes, while this way
/// the connection closes, after a short while in which what is under way is thrown away.
pub(crate) fn refuse(problem: &Problem, payload: Payload) -> HttpResponse {
    let mut response = crate::routing::answer_of(problem);
    response.head_mut().set_connection_type(ConnectionType::Close);
    response.map_body(|_, body| BoxBody::new(HoldingBody { body, _payload: payload }))
}

struct HoldingBody {
    body: BoxBody,
    _payload: Payload,
}

impl MessageBody for HoldingBody {
    type Error = Box<dyn std::error::Error>;

    fn size(&self) -> BodySize {
        self.body.size()
    }

    fn poll_next(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, Self::Error>>> {
        Pin::new(&mut self.body).poll_next(cx)
    }
}

/// Carries a body from the client to the shortener while it is alive.
pub(crate) struct Pump {
    task: JoinHandle<()>,
    pieces: Arc<AtomicU64>,
}

impl Pump {
    /// Waits for the answer to an upload, however long that takes while pieces go through; `None`
    /// when none did for `silence` and there is no answer either.
    pub(crate) async fn wait_for<F: Future>(
        &self,
        answer: F,
        silence: Duration,
    ) -> Option<F::Output> {
        let mut answer = pin!(answer);
        loop {
            let before = self.pieces.load(Ordering::Relaxed);
            match timeout(silence, &mut answer).await {
                Ok(answer) => return Some(answer),
                Err(_) if self.pieces.load(Ordering::Relaxed) == before => return None,
                Err(_) => {}
            }
        }
    }
}

impl Drop for Pump {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Passes the body on as it comes; the shortener's `body_mode` is the client's. The pump must live as long
/// as the call, its answer included: a shortener may answer while it reads.
pub(crate) fn stream(headers: &HeaderMap, payload: Payload) -> (CallBody, Option<Pump>) {
    if !has_body(headers) {
        return (CallBody::Whole(Bytes::new()), None);
    }
    let (sender, receiver) = mpsc::channel(CHUNKS_IN_FLIGHT);
    let length = announced_length(headers).filter(|_| !headers.contains_key(TRANSFER_ENCODING));
    let pieces = Arc::new(AtomicU64::new(0));
    let task = actix_web::rt::spawn(pump(payload, sender, Arc::clone(&pieces)));
    (CallBody::Stream(StreamBody::new(receiver, length)), Some(Pump { task, pieces }))
}

/// Returning without [`Piece::End`] tells the other side that the body is cut off.
async fn pump(mut payload: Payload, sender: mpsc::Sender<Piece>, pieces: Arc<AtomicU64>) {
    loop {
        let chunk = tokio::select! {
            () = sender.closed() => return,
            chunk = timeout(STREAM_SILENCE, payload.next()) => chunk,
        };
        let piece = match chunk {
            Ok(Some(Ok(bytes))) => Piece::Chunk(bytes),
            Ok(None) => Piece::End,
            Ok(Some(Err(error))) => {
                tracing::debug!(error = &error as &dyn std::error::Error, "an upload broke off");
                return;
            }
            Err(_) => {
                tracing::debug!("an upload fell silent");
                return;
            }
        };
        let ends = matches!(piece, Piece::End);
        if sender.send(piece).await.is_err() || ends {
            return;
        }
        pieces.fetch_add(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use futures::stream;

    use super::*;

    fn chunked() -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(
            TRANSFER_ENCODING,
            actix_web::http::header::HeaderValue::from_static("chunked"),
        );
        headers
    }

    /// An upload without an end, and the number of pieces that were taken from it.
    fn endless() -> (Payload, Arc<AtomicU64>) {
        let taken = Arc::new(AtomicU64::new(0));
        let counter = Arc::clone(&taken);
        let pieces = stream::repeat_with(move || {
            counter.fetch_add(1, Ordering::Relaxed);
            Ok(Bytes::from_static(b"piece"))
        });
        (Payload::from(Box::pin(pieces) as Pin<Box<dyn futures::Stream<Item = _>>>), taken)
    }

    #[actix_web::test]
    async fn a_client_is_read_no_faster_than_the_shortener_reads() {
        let (payload, taken) = endless();
        let (body, pump) = stream(&chunked(), payload);
        for _ in 0..1_000 {
            tokio::task::yield_now().await;
        }
        let ahead = taken.load(Ordering::Relaxed);
        assert!((1..=CHUNKS_IN_FLIGHT as u64 + 1).contains(&ahead), "{ahead}");
        drop((body, pump));
    }

    #[tokio::test(start_paused = true)]
    async fn an_upload_is_waited_for_while_it_moves_and_no_longer() {
        let (_body, pump) =
            tokio::task::LocalSet::new().run_until(async { stream(&chunked(), endless().0) }).await;
        let pump = pump.unwrap();
        let pieces = Arc::clone(&pump.pieces);
        let silence = Duration::from_secs(10);
        let moving = async {
            for _ in 0..10 {
                tokio::time::sleep(Duration::from_secs(9)).await;
                pieces.fetch_add(1, Ordering::Relaxed);
            }
        };
        assert_eq!(pump.wait_for(moving, silence).await, Some(()));
        let stuck = std::future::pending::<()>();
        assert_eq!(pump.wait_for(stuck, silence).await, None);
    }

    #[actix_web::test]
    async fn a_body_may_come_in_pieces_up_to_its_limit() {
        let deadline = Instant::now() + Duration::from_secs(10);
        for (limit, whole) in [(10, true), (9, false)] {
            let pieces = stream::iter(["abc", "defg", "hij"].map(|piece| Ok(Bytes::from(piece))));
            let pieces = Box::pin(pieces) as Pin<Box<dyn futures::Stream<Item = _>>>;
            let mut payload = Payload::from(pieces);
            let body = read(&chunked(), &mut payload, limit, deadline).await;
            match body {
                Ok(bytes) => assert!(whole && bytes == "abcdefghij"),
                Err(problem) => assert!(!whole && problem.code() == "too_large"),
            }
        }
    }
}
