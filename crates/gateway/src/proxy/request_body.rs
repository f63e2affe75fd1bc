//! The request body of a client: read within limits, or streamed to the shortener.

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
        ConnectionType,
        header::{
            ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_LENGTH, HeaderMap, HeaderValue,
            TRANSFER_ENCODING,
        },
    },
};
use bytes::{Bytes, BytesMut};
use futures::{FutureExt as _, StreamExt as _};
use linnet_platform::slot_pool::Slot;
use linnet_protocol::{
    problem::{FieldError, Problem},
    problem_code::ProblemCode,
};
use tokio::{
    sync::mpsc,
    task::JoinHandle,
    time::{Instant, timeout, timeout_at},
};

use crate::{
    body_budget::{BodyOwner, BodyReservation},
    problems,
    upstream::{BodyEvent, CallBody, StreamBody},
};

/// Chunks that are buffered between client and shortener; more would only hide backpressure.
const BUFFERED_CHUNKS: usize = 2;
/// Idle timeout of a streamed body, in both directions.
pub(super) const STREAM_IDLE_TIMEOUT: Duration = Duration::from_mins(1);

fn content_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.trim().parse().ok()
}

/// Whether the request announces a body.
pub(super) fn has_body(headers: &HeaderMap) -> bool {
    headers.contains_key(TRANSFER_ENCODING)
        || content_length(headers).is_some_and(|length| length > 0)
}

/// Whether the request announces a body of more than `limit` bytes.
pub(super) fn exceeds(headers: &HeaderMap, limit: usize) -> bool {
    content_length(headers).is_some_and(|length| length > limit as u64)
}

/// Rejects an encoded body (415), which the shortener would take for malformed JSON. Uploads are not checked: their
/// compression is recognized by their first bytes.
pub(super) fn require_no_encoding(headers: &HeaderMap) -> Result<(), Problem> {
    let is_identity =
        |value: &HeaderValue| value.as_bytes().trim_ascii().eq_ignore_ascii_case(b"identity");
    if headers.get_all(CONTENT_ENCODING).all(is_identity) {
        return Ok(());
    }
    let (code, rule) = (ProblemCode::UnsupportedMediaType, "must not have a Content-Encoding");
    let errors =
        vec![FieldError { field: "body".into(), code: code.as_str(), message: rule.into() }];
    let problem = Problem::of(code).detail(format!("body: {rule}.")).errors(errors);
    Err(problem.header(ACCEPT_ENCODING, HeaderValue::from_static("identity")))
}

/// Reads the whole body: 413 above `limit` bytes, 408 if it is incomplete at `deadline`, 400 if it
/// ends early, 503 if it does not fit into the budget, or if too many other requests wait for bodies.
/// Returns the body, and whether the gateway had to wait for it.
pub(super) async fn read(
    headers: &HeaderMap,
    payload: &mut Payload,
    limit: usize,
    deadline: Instant,
    reserved: &mut BodyReservation,
) -> Result<(Bytes, bool), Problem> {
    if !has_body(headers) {
        return Ok((Bytes::new(), false));
    }
    if exceeds(headers, limit) {
        return Err(Problem::too_large(limit));
    }
    let mut first = Bytes::new();
    let mut rest = BytesMut::new();
    // Taken only if the gateway has to wait: most bodies arrive with their heads.
    let mut slot = None;
    loop {
        let Some(chunk) = next_chunk(payload, deadline, reserved, &mut slot).await? else { break };
        if first.len() + rest.len() + chunk.len() > limit {
            return Err(Problem::too_large(limit));
        }
        reserved.grow(chunk.len()).map_err(|error| {
            tracing::debug!(%error, "request body rejected");
            problems::too_many_bodies()
        })?;
        // Most bodies are a single chunk, which is not copied.
        if first.is_empty() && rest.is_empty() {
            first = chunk;
        } else {
            if rest.is_empty() {
                // Reserved once: growing would double the capacity. Only pages that are written become resident.
                let announced = content_length(headers).and_then(|length| length.try_into().ok());
                rest.reserve(announced.map_or(0, |length: usize| length.min(limit)));
                rest.extend_from_slice(&std::mem::take(&mut first));
            }
            rest.extend_from_slice(&chunk);
        }
    }
    Ok((if rest.is_empty() { first } else { rest.freeze() }, slot.is_some()))
}

/// The next bytes of the body; `None` at its end. Takes a slot before the first wait.
async fn next_chunk(
    payload: &mut Payload,
    deadline: Instant,
    reserved: &BodyReservation,
    slot: &mut Option<Slot<BodyOwner>>,
) -> Result<Option<Bytes>, Problem> {
    let mut next = payload.next();
    let arrived = match (&mut next).now_or_never() {
        Some(chunk) => chunk,
        None => {
            if slot.is_none() {
                *slot = Some(reserved.wait().map_err(|error| {
                    tracing::debug!(%error, "request body not awaited");
                    problems::too_many_bodies()
                })?);
            }
            timeout_at(deadline, next).await.map_err(|_| problems::body_timeout())?
        }
    };
    arrived.transpose().map_err(|error| {
        let error = &error as &dyn std::error::Error;
        tracing::debug!(error, "request body ended early");
        problems::body_broken()
    })
}

/// A response that does not wait for the rest of the request's body. The connection is closed after it
/// unless the body has arrived already.
///
/// The response owns the payload: actix-web reads a dropped payload to its end before it sends the
/// response. With the payload alive it sends the response first, then discards what arrives for a
/// short time, and closes the connection.
pub(crate) fn without_body(
    headers: &HeaderMap,
    response: HttpResponse,
    mut payload: Payload,
) -> HttpResponse {
    if !has_body(headers) || has_arrived(&mut payload) {
        return response;
    }
    closing(response, payload)
}

/// Closes the connection after the response, which owns the payload or the upload that reads it.
pub(super) fn closing<P: Unpin + 'static>(mut response: HttpResponse, payload: P) -> HttpResponse {
    response.head_mut().set_connection_type(ConnectionType::Close);
    response.map_body(|_, body| BoxBody::new(BodyWithPayload { body, _payload: payload }))
}

/// Discards what has arrived. Returns whether that was the end.
fn has_arrived(payload: &mut Payload) -> bool {
    loop {
        match payload.next().now_or_never() {
            Some(Some(Ok(_))) => {}
            Some(None) => return true,
            Some(Some(Err(_))) | None => return false,
        }
    }
}

struct BodyWithPayload<P> {
    body: BoxBody,
    _payload: P,
}

impl<P: Unpin> MessageBody for BodyWithPayload<P> {
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

/// A streamed body in transit; dropping it ends the transfer.
pub(super) struct Upload {
    task: JoinHandle<()>,
    forwarded_chunks: Arc<AtomicU64>,
}

impl Upload {
    /// Waits for `response` while chunks are forwarded. `None` if for `idle` no chunk was forwarded
    /// and no response arrived.
    pub(super) async fn wait_for<F: Future>(
        &self,
        response: F,
        idle: Duration,
    ) -> Option<F::Output> {
        let mut response = pin!(response);
        loop {
            let before = self.forwarded_chunks.load(Ordering::Relaxed);
            match timeout(idle, &mut response).await {
                Ok(response) => return Some(response),
                Err(_) if self.forwarded_chunks.load(Ordering::Relaxed) == before => return None,
                Err(_) => {}
            }
        }
    }

    /// Whether the client may still be sending.
    pub(super) fn is_incomplete(&self) -> bool {
        !self.task.is_finished()
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Forwards the body as it arrives. The upload must outlive the call and its response: a shortener
/// may respond while it reads.
pub(super) fn stream(
    headers: &HeaderMap,
    payload: Payload,
    reserved: BodyReservation,
) -> (CallBody, Option<Upload>) {
    if !has_body(headers) {
        return (CallBody::Buffered(Bytes::new()), None);
    }
    let (sender, receiver) = mpsc::channel(BUFFERED_CHUNKS);
    let length = content_length(headers).filter(|_| !headers.contains_key(TRANSFER_ENCODING));
    let forwarded_chunks = Arc::new(AtomicU64::new(0));
    let forwarding = forward_chunks(payload, sender, Arc::clone(&forwarded_chunks));
    let task = actix_web::rt::spawn(async move {
        forwarding.await;
        // Released here, because the response may take much longer than the body.
        drop(reserved);
    });
    let body = StreamBody::new(receiver, length);
    (CallBody::Streamed(body), Some(Upload { task, forwarded_chunks }))
}

/// Returning without [`BodyEvent::End`] truncates the body.
async fn forward_chunks(
    mut payload: Payload,
    sender: mpsc::Sender<BodyEvent>,
    forwarded_chunks: Arc<AtomicU64>,
) {
    loop {
        let chunk = tokio::select! {
            () = sender.closed() => return,
            chunk = timeout(STREAM_IDLE_TIMEOUT, payload.next()) => chunk,
        };
        let event = match chunk {
            Ok(Some(Ok(bytes))) => BodyEvent::Chunk(bytes),
            Ok(None) => BodyEvent::End,
            Ok(Some(Err(error))) => {
                tracing::debug!(error = &error as &dyn std::error::Error, "upload ended early");
                return;
            }
            Err(_) => {
                tracing::debug!("upload timed out while idle");
                return;
            }
        };
        let is_end = matches!(event, BodyEvent::End);
        if sender.send(event).await.is_err() || is_end {
            return;
        }
        forwarded_chunks.fetch_add(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use futures::stream;
    use linnet_protocol::problem_code::ProblemCode;

    use super::*;
    use crate::body_budget::Bodies;

    fn chunked() -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(
            TRANSFER_ENCODING,
            actix_web::http::header::HeaderValue::from_static("chunked"),
        );
        headers
    }

    fn reserved() -> BodyReservation {
        Bodies::new(8_000, 64).reserve(BodyOwner::Network(None))
    }

    /// An endless payload, and the number of chunks that were read from it.
    fn endless() -> (Payload, Arc<AtomicU64>) {
        let read_chunks = Arc::new(AtomicU64::new(0));
        let counter = Arc::clone(&read_chunks);
        let chunks = stream::repeat_with(move || {
            counter.fetch_add(1, Ordering::Relaxed);
            Ok(Bytes::from_static(b"chunk"))
        });
        (Payload::from(Box::pin(chunks) as Pin<Box<dyn futures::Stream<Item = _>>>), read_chunks)
    }

    #[actix_web::test]
    async fn upload_is_read_no_faster_than_the_shortener_reads() {
        let (payload, read_chunks) = endless();
        let (body, upload) = stream(&chunked(), payload, reserved());
        for _ in 0..1_000 {
            tokio::task::yield_now().await;
        }
        let ahead = read_chunks.load(Ordering::Relaxed);
        assert!((1..=BUFFERED_CHUNKS as u64 + 1).contains(&ahead), "{ahead}");
        drop((body, upload));
    }

    #[tokio::test(start_paused = true)]
    async fn response_is_awaited_while_the_upload_makes_progress() {
        let (_body, upload) = tokio::task::LocalSet::new()
            .run_until(async { stream(&chunked(), endless().0, reserved()) })
            .await;
        let upload = upload.unwrap();
        let chunks = Arc::clone(&upload.forwarded_chunks);
        let idle = Duration::from_secs(10);
        let progressing = async {
            for _ in 0..10 {
                tokio::time::sleep(Duration::from_secs(9)).await;
                chunks.fetch_add(1, Ordering::Relaxed);
            }
        };
        assert_eq!(upload.wait_for(progressing, idle).await, Some(()));
        let stalled = std::future::pending::<()>();
        assert_eq!(upload.wait_for(stalled, idle).await, None);
    }

    #[actix_web::test]
    async fn chunked_body_is_accepted_up_to_the_limit() {
        let deadline = Instant::now() + Duration::from_secs(10);
        for (limit, fits) in [(10, true), (9, false)] {
            let chunks = stream::iter(["abc", "defg", "hij"].map(|chunk| Ok(Bytes::from(chunk))));
            let chunks = Box::pin(chunks) as Pin<Box<dyn futures::Stream<Item = _>>>;
            let mut payload = Payload::from(chunks);
            let body = read(&chunked(), &mut payload, limit, deadline, &mut reserved()).await;
            match body {
                Ok((bytes, _)) => assert!(fits && bytes == "abcdefghij"),
                Err(problem) => assert!(!fits && problem.code() == ProblemCode::TooLarge),
            }
        }
    }
}
