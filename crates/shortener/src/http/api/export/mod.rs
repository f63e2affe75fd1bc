//! `GET /api/v1/urls/export`: streams all links of a list as one file.
//!
//! * A task reads rows from the database and sends them to the response in chunks.
//! * When the client reads slowly, the task and PostgreSQL wait, up to [`STALL_TIMEOUT`]: the open transaction prevents
//!   the clean-up of dead rows.
//! * An export that fails aborts the connection. The head is already sent, and a body that ended normally would look
//!   complete.

mod rows;

use std::{io, time::Duration};

use actix_web::{
    HttpResponse, HttpResponseBuilder,
    web::{self, Bytes},
};
use futures::stream;
use tokio::sync::mpsc;

use linnet_domain::{
    LinkFilter,
    rules::{Violation, string},
};
use linnet_store::{LinkExport, StoreError};

use super::{
    super::{csv, error::ApiError},
    ApiState, Caller,
    fields::{QueryFields, query_boolean},
    link_filter::{LinkFilterParams, read_filter},
    slots::{ExportSlot, refused},
};
use rows::RowWriter;

/// The size of a chunk, in bytes.
const CHUNK_BYTES: usize = 64 * 1024;
/// Room for the row that completes a chunk; few rows are longer.
const ROW_BYTES: usize = 2 * 1024;
/// Chunks that wait for the client.
const WAITING_CHUNKS: usize = 2;
/// The longest time in which the client reads nothing or the database sends nothing.
const STALL_TIMEOUT: Duration = Duration::from_secs(30);

const CONTENT_TYPE_NDJSON: &str = "application/x-ndjson";

/// The format of the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ExportFormat {
    Csv {
        /// Whether the file begins with a byte order mark.
        bom: bool,
    },
    Ndjson,
}

pub(super) fn routes(cfg: &mut web::ServiceConfig) {
    cfg.service(
        web::resource("/urls/export").route(web::get().to(get)).route(web::head().to(head)),
    );
}

/// Exports all links of the list as one file.
///
/// The links are in the order of ids. The columns are the fields of a link without `short_url`. The file is incomplete if
/// the connection is aborted.
#[utoipa::path(get, path = "/api/v1/urls/export", operation_id = "export_urls", tag = "urls",
    params(("format" = Option<String>, Query, description = "`csv` (default) or `ndjson`", pattern = "^(csv|ndjson)$"),
        ("bom" = Option<bool>, Query, description = "Whether CSV begins with a byte order mark, by which Excel recognizes UTF-8"),
        LinkFilterParams),
    responses((status = 200, description = "The file", content(
        (String = "text/csv"), (String = "application/x-ndjson")))))]
pub(crate) async fn get(
    state: web::Data<ApiState>,
    caller: Caller,
    query: QueryFields,
) -> Result<HttpResponse, ApiError> {
    let (format, filter) = read(query)?;
    let slot =
        state.exports.take(caller.user_id()).map_err(|refusal| refused(refusal, "exports"))?;
    // A failure before this point still results in an error status.
    let export = state.store.begin_export(&filter, caller.visibility()).await?;
    let (sender, receiver) = mpsc::channel(WAITING_CHUNKS);
    actix_web::rt::spawn(run(export, format, sender, slot));
    Ok(respond(format).streaming(body(receiver)))
}

async fn head(query: QueryFields) -> Result<HttpResponse, ApiError> {
    let (format, _) = read(query)?;
    Ok(respond(format).streaming(stream::empty::<Result<Bytes, Aborted>>()))
}

fn read(query: QueryFields) -> Result<(ExportFormat, LinkFilter), ApiError> {
    let mut fields = query.fields;
    let bom = fields.optional("bom", query_boolean).unwrap_or(false);
    let format = match fields.optional("format", format).unwrap_or(ExportFormat::Csv { bom }) {
        ExportFormat::Csv { .. } => ExportFormat::Csv { bom },
        ExportFormat::Ndjson => ExportFormat::Ndjson,
    };
    let filter = read_filter(&mut fields);
    fields.finish()?;
    Ok((format, filter))
}

fn format(value: serde_json::Value) -> Result<ExportFormat, Violation> {
    match string(value)?.as_str() {
        "csv" => Ok(ExportFormat::Csv { bom: false }),
        "ndjson" => Ok(ExportFormat::Ndjson),
        _ => Err(Violation::invalid("must be csv or ndjson")),
    }
}

fn respond(format: ExportFormat) -> HttpResponseBuilder {
    let (name, content_type) = match format {
        ExportFormat::Csv { .. } => ("urls.csv", csv::CONTENT_TYPE_CSV),
        ExportFormat::Ndjson => ("urls.ndjson", CONTENT_TYPE_NDJSON),
    };
    let mut response = HttpResponse::Ok();
    csv::name_file(&mut response, name, content_type);
    response
}

/// A message from the task to the response. If the last one is neither `End` nor `Failed`, the client has stalled.
enum ExportMessage {
    Rows(Bytes),
    End,
    Failed(ExportError),
}

#[derive(Debug, thiserror::Error)]
enum ExportError {
    #[error("the database failed")]
    Store(#[from] StoreError),
    #[error("a row was not written")]
    Row(#[from] io::Error),
    #[error("the client read nothing for too long")]
    ClientStalled,
}

/// The error of a body, at which the server aborts the connection.
#[derive(Debug, thiserror::Error)]
#[error("export aborted: {0}")]
struct Aborted(&'static str);

/// Sends all rows, until the client disconnects.
async fn run(
    export: LinkExport,
    format: ExportFormat,
    sender: mpsc::Sender<ExportMessage>,
    slot: ExportSlot,
) {
    let outcome = tokio::select! {
        outcome = send_rows(export, format, &sender) => outcome,
        () = sender.closed() => return,
    };
    drop(slot);
    let last = match outcome {
        Ok(()) => ExportMessage::End,
        // A stalled client would not read this message either.
        Err(ExportError::ClientStalled) => return,
        Err(failure) => ExportMessage::Failed(failure),
    };
    let _ = tokio::time::timeout(STALL_TIMEOUT, sender.send(last)).await;
}

async fn send_rows(
    export: LinkExport,
    format: ExportFormat,
    sender: &mpsc::Sender<ExportMessage>,
) -> Result<(), ExportError> {
    let mut rows = RowWriter::new(format, CHUNK_BYTES + ROW_BYTES);
    export
        .for_each(STALL_TIMEOUT, async |link| {
            rows.push(link)?;
            if rows.len() >= CHUNK_BYTES {
                send_chunk(sender, rows.take(), STALL_TIMEOUT).await?;
            }
            Ok::<_, ExportError>(())
        })
        .await?;
    send_chunk(sender, rows.take(), STALL_TIMEOUT).await
}

async fn send_chunk(
    sender: &mpsc::Sender<ExportMessage>,
    rows: Vec<u8>,
    timeout: Duration,
) -> Result<(), ExportError> {
    // An empty chunk would end a chunked body.
    if rows.is_empty() {
        return Ok(());
    }
    match tokio::time::timeout(timeout, sender.send(ExportMessage::Rows(rows.into()))).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(_)) | Err(_) => Err(ExportError::ClientStalled),
    }
}

fn body(
    receiver: mpsc::Receiver<ExportMessage>,
) -> impl futures::Stream<Item = Result<Bytes, Aborted>> + use<> {
    stream::unfold(Some(receiver), |receiver| async move {
        let mut receiver = receiver?;
        match receiver.recv().await {
            Some(ExportMessage::Rows(bytes)) => Some((Ok(bytes), Some(receiver))),
            Some(ExportMessage::End) => None,
            Some(ExportMessage::Failed(failure)) => {
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
        let short = Duration::from_millis(1);
        for _ in 0..WAITING_CHUNKS {
            send_chunk(&sender, b"row".to_vec(), STALL_TIMEOUT).await.unwrap();
        }
        let stalled = send_chunk(&sender, b"row".to_vec(), short).await;
        assert!(matches!(stalled, Err(ExportError::ClientStalled)), "{stalled:?}");
        drop(receiver);
        let gone = send_chunk(&sender, b"row".to_vec(), STALL_TIMEOUT).await;
        assert!(matches!(gone, Err(ExportError::ClientStalled)), "{gone:?}");
    }

    /// The body after these messages.
    async fn body_of(messages: Vec<ExportMessage>) -> Vec<Result<Bytes, Aborted>> {
        let (sender, receiver) = mpsc::channel(messages.len());
        for message in messages {
            assert!(sender.send(message).await.is_ok());
        }
        drop(sender);
        body(receiver).collect().await
    }

    #[tokio::test]
    async fn a_body_ends_normally_only_after_the_last_row() {
        let rows = || ExportMessage::Rows(Bytes::from_static(b"row"));
        let whole = body_of(vec![rows(), ExportMessage::End]).await;
        assert!(matches!(&whole[..], [Ok(_)]), "{whole:?}");
        let given_up = body_of(vec![rows()]).await;
        assert!(matches!(&given_up[..], [Ok(_), Err(_)]), "{given_up:?}");
        let failure = ExportError::Store(sqlx::Error::WorkerCrashed.into());
        let failed = body_of(vec![rows(), ExportMessage::Failed(failure)]).await;
        assert!(matches!(&failed[..], [Ok(_), Err(_)]), "{failed:?}");
    }
}
