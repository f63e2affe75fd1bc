//! `GET /api/v1/urls/export`: all links of a list as one file, as they come from the database.
//!
//! A task of its own takes rows from the database and hands them on in pieces. The server asks for a
//! body's next piece only when the client has room for it, so the task waits then, and PostgreSQL with
//! it; but not for ever, since its transaction holds up the clean-up of dead rows. What ends before its
//! end breaks the connection off: the head is sent, and a body that just ended would look complete.

mod rows;
mod slots;

use std::{io, time::Duration};

use actix_web::{
    HttpResponse, HttpResponseBuilder,
    web::{self, Bytes},
};
use futures::stream;
use linnet_protocol::problem::Problem;
use tokio::sync::mpsc;

use linnet_store::{LinkExport, StoreError};

use super::{
    super::{csv, error::ApiError},
    ApiState, Caller,
    fields::{Bad, QueryFields, string},
    urls::read_filter,
};
use rows::RowWriter;
use slots::ExportSlot;

pub use slots::{ExportSlots, Exports};

/// Bytes of a piece.
const PIECE: usize = 64 * 1024;
/// A row is added before it is seen that a piece is full; few rows are longer than this.
const ROW: usize = 2 * 1024;
/// Pieces that wait for the client.
const WAITING: usize = 2;
/// Longest time without progress, whether the client does not read or the database does not send.
const PATIENCE: Duration = Duration::from_secs(30);
/// Seconds after which it may be tried again when too many exports run.
const RETRY_AFTER_BUSY: u64 = 5;

const CONTENT_TYPE_NDJSON: &str = "application/x-ndjson";

/// How a file is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ExportFormat {
    Csv,
    Ndjson,
}

pub(super) fn routes(cfg: &mut web::ServiceConfig) {
    cfg.service(
        web::resource("/urls/export").route(web::get().to(get)).route(web::head().to(head)),
    );
}

/// Exports all links of the list as one file.
///
/// In the order of ids, with the columns `id`, `user_id`, `short_code`, `original_url`, `title`,
/// `is_active`, `redirect_status`, `expires_at`, `max_clicks`, `clicks`, `created_at`, `updated_at`.
/// A connection that breaks off means that the file is not whole.
#[utoipa::path(get, path = "/api/v1/urls/export", operation_id = "export_urls", tag = "urls",
    params(("format" = Option<String>, Query, description = "`csv` (the default) or `ndjson`", pattern = "^(csv|ndjson)$"),
        ("user_id" = Option<i64>, Query, minimum = 1), ("is_active" = Option<bool>, Query),
        ("search" = Option<String>, Query, min_length = 3, max_length = 200,
            pattern = r"^[^\x00-\x1f\x7f-\x9f]*[^\s\x00-\x1f\x7f-\x9f][^\x00-\x1f\x7f-\x9f]*$")),
    responses((status = 200, description = "The file", content(
        (String = "text/csv"), (String = "application/x-ndjson")))))]
pub(crate) async fn get(
    state: web::Data<ApiState>,
    caller: Caller,
    query: QueryFields,
) -> Result<HttpResponse, ApiError> {
    let (format, filter) = read(query)?;
    let slot = state
        .exports
        .take()
        .ok_or_else(|| Problem::unavailable("too many exports run already", RETRY_AFTER_BUSY))?;
    // What is known to be away by now is still told with a status.
    let export = state.store.begin_export(&filter, caller.visibility()).await?;
    let (sender, receiver) = mpsc::channel(WAITING);
    actix_web::rt::spawn(run(export, format, sender, slot));
    Ok(respond(format).streaming(body(receiver)))
}

async fn head(query: QueryFields) -> Result<HttpResponse, ApiError> {
    let (format, _) = read(query)?;
    Ok(respond(format).streaming(stream::empty::<Result<Bytes, BrokenOff>>()))
}

fn read(query: QueryFields) -> Result<(ExportFormat, linnet_domain::LinkFilter), ApiError> {
    let mut fields = query.fields;
    let format = fields.optional("format", format).unwrap_or(ExportFormat::Csv);
    let filter = read_filter(&mut fields);
    fields.finish()?;
    Ok((format, filter))
}

fn format(value: serde_json::Value) -> Result<ExportFormat, Bad> {
    match string(value)?.as_str() {
        "csv" => Ok(ExportFormat::Csv),
        "ndjson" => Ok(ExportFormat::Ndjson),
        _ => Err(("invalid", "must be csv or ndjson".to_owned())),
    }
}

fn respond(format: ExportFormat) -> HttpResponseBuilder {
    let (name, content_type) = match format {
        ExportFormat::Csv => ("urls.csv", csv::CONTENT_TYPE_CSV),
        ExportFormat::Ndjson => ("urls.ndjson", CONTENT_TYPE_NDJSON),
    };
    let mut response = HttpResponse::Ok();
    csv::name_file(&mut response, name, content_type);
    response
}

/// What the task says. A task that ends without `End` or `Failed` has given up.
enum Piece {
    Rows(Bytes),
    End,
    Failed(Failure),
}

#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("the database failed")]
    Store(#[from] StoreError),
    #[error("a row could not be written")]
    Row(#[from] io::Error),
    #[error("nobody takes what was asked for")]
    NobodyReads,
}

/// The body ends before its end.
#[derive(Debug, thiserror::Error)]
#[error("the export broke off: {0}")]
struct BrokenOff(&'static str);

/// Until all is sent, or nobody wants it any more.
async fn run(
    export: LinkExport,
    format: ExportFormat,
    sender: mpsc::Sender<Piece>,
    slot: ExportSlot,
) {
    let outcome = tokio::select! {
        outcome = send_rows(export, format, &sender) => outcome,
        () = sender.closed() => return,
    };
    drop(slot);
    let last = match outcome {
        Ok(()) => Piece::End,
        // Who takes nothing is not told why, either: the sender goes without a word.
        Err(Failure::NobodyReads) => return,
        Err(failure) => Piece::Failed(failure),
    };
    let _ = tokio::time::timeout(PATIENCE, sender.send(last)).await;
}

async fn send_rows(
    export: LinkExport,
    format: ExportFormat,
    sender: &mpsc::Sender<Piece>,
) -> Result<(), Failure> {
    let mut rows = RowWriter::new(format, PIECE + ROW);
    export
        .for_each(PATIENCE, async |link| {
            rows.push(link)?;
            if rows.len() >= PIECE {
                hand_on(sender, rows.take(), PATIENCE).await?;
            }
            Ok::<_, Failure>(())
        })
        .await?;
    hand_on(sender, rows.take(), PATIENCE).await
}

async fn hand_on(
    sender: &mpsc::Sender<Piece>,
    rows: Vec<u8>,
    patience: Duration,
) -> Result<(), Failure> {
    // An empty piece would be the end of a chunked body.
    if rows.is_empty() {
        return Ok(());
    }
    match tokio::time::timeout(patience, sender.send(Piece::Rows(rows.into()))).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(_)) | Err(_) => Err(Failure::NobodyReads),
    }
}

fn body(
    receiver: mpsc::Receiver<Piece>,
) -> impl futures::Stream<Item = Result<Bytes, BrokenOff>> + use<> {
    stream::unfold(Some(receiver), |receiver| async move {
        let mut receiver = receiver?;
        match receiver.recv().await {
            Some(Piece::Rows(bytes)) => Some((Ok(bytes), Some(receiver))),
            Some(Piece::End) => None,
            Some(Piece::Failed(failure)) => {
                let error: &dyn std::error::Error = &failure;
                tracing::warn!(error, "an export broke off");
                Some((Err(BrokenOff("the database failed")), None))
            }
            None => Some((Err(BrokenOff("nobody read it for too long")), None)),
        }
    })
}

#[cfg(test)]
mod tests {
    use futures::StreamExt;

    use super::*;

    #[tokio::test]
    async fn a_client_that_takes_nothing_is_given_up() {
        let (sender, receiver) = mpsc::channel(WAITING);
        let soon = Duration::from_millis(1);
        for _ in 0..WAITING {
            hand_on(&sender, b"row".to_vec(), PATIENCE).await.unwrap();
        }
        let given_up = hand_on(&sender, b"row".to_vec(), soon).await;
        assert!(matches!(given_up, Err(Failure::NobodyReads)), "{given_up:?}");
        drop(receiver);
        let gone = hand_on(&sender, b"row".to_vec(), PATIENCE).await;
        assert!(matches!(gone, Err(Failure::NobodyReads)), "{gone:?}");
    }

    /// What a client gets when this is said, and then nothing more.
    async fn heard(pieces: Vec<Piece>) -> Vec<Result<Bytes, BrokenOff>> {
        let (sender, receiver) = mpsc::channel(pieces.len());
        for piece in pieces {
            assert!(sender.send(piece).await.is_ok());
        }
        drop(sender);
        body(receiver).collect().await
    }

    #[tokio::test]
    async fn only_an_end_that_is_said_is_one() {
        let rows = || Piece::Rows(Bytes::from_static(b"row"));
        let whole = heard(vec![rows(), Piece::End]).await;
        assert!(matches!(&whole[..], [Ok(_)]), "{whole:?}");
        let given_up = heard(vec![rows()]).await;
        assert!(matches!(&given_up[..], [Ok(_), Err(_)]), "{given_up:?}");
        let failure = Failure::Store(sqlx::Error::WorkerCrashed.into());
        let failed = heard(vec![rows(), Piece::Failed(failure)]).await;
        assert!(matches!(&failed[..], [Ok(_), Err(_)]), "{failed:?}");
    }
}
