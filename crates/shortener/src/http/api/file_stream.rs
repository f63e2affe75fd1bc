//! Streams a file that a task writes in chunks.
//!
//! * When the client reads slowly, the task and PostgreSQL wait, up to [`STALL_TIMEOUT`]. The task then gives up, and its
//!   slot is free.
//! * A file that fails aborts the connection. The head is already sent, and a body that ended normally would look
//!   complete.
//! * The server copies a chunk as a whole into the connection's buffer, so chunks have about [`CHUNK_BYTES`].

use std::{io, time::Duration};

use actix_web::web::Bytes;
use futures::{Stream, stream};
use tokio::sync::mpsc;

use linnet_store::StoreError;

use super::slots::ExportSlot;

/// The size of a chunk, in bytes.
pub(super) const CHUNK_BYTES: usize = 64 * 1024;
/// The longest time in which the client reads nothing or the database sends nothing.
pub(super) const STALL_TIMEOUT: Duration = Duration::from_secs(30);
/// Chunks that wait for the client.
const WAITING_CHUNKS: usize = 2;

/// Why a file is incomplete.
#[derive(Debug, thiserror::Error)]
pub(super) enum FileError {
    #[error("the database failed")]
    Store(#[from] StoreError),
    #[error("a row was not written")]
    Row(#[from] io::Error),
    #[error("the client read nothing for too long")]
    ClientStalled,
}

/// The error of a body, at which the server aborts the connection.
#[derive(Debug, thiserror::Error)]
#[error("file aborted: {0}")]
pub(super) struct Aborted(&'static str);

/// A message from the task to the response. If the last one is neither `End` nor `Failed`, the client has stalled.
enum Message {
    Chunk(Bytes),
    End,
    Failed(FileError),
}

/// The chunks of the file.
#[derive(Clone)]
pub(super) struct Chunks(mpsc::Sender<Message>);

impl Chunks {
    /// Sends a chunk. Waits for the client up to [`STALL_TIMEOUT`].
    pub(super) async fn send(&self, bytes: Vec<u8>) -> Result<(), FileError> {
        self.send_within(bytes, STALL_TIMEOUT).await
    }

    async fn send_within(&self, bytes: Vec<u8>, timeout: Duration) -> Result<(), FileError> {
        // An empty chunk would end a chunked body.
        if bytes.is_empty() {
            return Ok(());
        }
        match tokio::time::timeout(timeout, self.0.send(Message::Chunk(bytes.into()))).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(FileError::ClientStalled),
        }
    }
}

/// The body of a file that `write` sends in chunks, in a task that holds the slot.
pub(super) fn stream_file<W>(
    slot: ExportSlot,
    write: impl FnOnce(Chunks) -> W,
) -> impl Stream<Item = Result<Bytes, Aborted>>
where
    W: Future<Output = Result<(), FileError>> + 'static,
{
    let (sender, receiver) = mpsc::channel(WAITING_CHUNKS);
    let written = write(Chunks(sender.clone()));
    actix_web::rt::spawn(run(written, sender, slot));
    body(receiver)
}

/// The body of the response to `HEAD`.
pub(super) fn no_file() -> impl Stream<Item = Result<Bytes, Aborted>> {
    stream::empty()
}

/// Writes the file, until the client disconnects.
async fn run(
    written: impl Future<Output = Result<(), FileError>>,
    sender: mpsc::Sender<Message>,
    slot: ExportSlot,
) {
    let outcome = tokio::select! {
        outcome = written => outcome,
        () = sender.closed() => return,
    };
    drop(slot);
    let last = match outcome {
        Ok(()) => Message::End,
        // A stalled client would not read this message either.
        Err(FileError::ClientStalled) => return,
        Err(failure) => Message::Failed(failure),
    };
    let _ = tokio::time::timeout(STALL_TIMEOUT, sender.send(last)).await;
}

fn body(receiver: mpsc::Receiver<Message>) -> impl Stream<Item = Result<Bytes, Aborted>> + use<> {
    stream::unfold(Some(receiver), |receiver| async move {
        let mut receiver = receiver?;
        match receiver.recv().await {
            Some(Message::Chunk(bytes)) => Some((Ok(bytes), Some(receiver))),
            Some(Message::End) => None,
            Some(Message::Failed(failure)) => {
                let error: &dyn std::error::Error = &failure;
                tracing::warn!(error, "export aborted");
                Some((Err(Aborted("the database failed")), None))
            }
            None => Some((Err(Aborted("the client read nothing for too long")), None)),
        }
    })
}

#[cfg(test)]
mod tests {
    use futures::StreamExt;

    use super::*;

    #[tokio::test]
    async fn a_client_that_reads_nothing_aborts_the_export() {
        let (sender, receiver) = mpsc::channel(WAITING_CHUNKS);
        let chunks = Chunks(sender);
        for _ in 0..WAITING_CHUNKS {
            chunks.send(b"row".to_vec()).await.unwrap();
        }
        let stalled = chunks.send_within(b"row".to_vec(), Duration::from_millis(1)).await;
        assert!(matches!(stalled, Err(FileError::ClientStalled)), "{stalled:?}");
        drop(receiver);
        let gone = chunks.send(b"row".to_vec()).await;
        assert!(matches!(gone, Err(FileError::ClientStalled)), "{gone:?}");
    }

    /// The body after these messages.
    async fn body_of(messages: Vec<Message>) -> Vec<Result<Bytes, Aborted>> {
        let (sender, receiver) = mpsc::channel(messages.len());
        for message in messages {
            assert!(sender.send(message).await.is_ok());
        }
        drop(sender);
        body(receiver).collect().await
    }

    #[tokio::test]
    async fn a_body_ends_normally_only_after_the_last_row() {
        let rows = || Message::Chunk(Bytes::from_static(b"row"));
        let whole = body_of(vec![rows(), Message::End]).await;
        assert!(matches!(&whole[..], [Ok(_)]), "{whole:?}");
        let given_up = body_of(vec![rows()]).await;
        assert!(matches!(&given_up[..], [Ok(_), Err(_)]), "{given_up:?}");
        let failure = FileError::Store(sqlx::Error::WorkerCrashed.into());
        let failed = body_of(vec![rows(), Message::Failed(failure)]).await;
        assert!(matches!(&failed[..], [Ok(_), Err(_)]), "{failed:?}");
    }
}
