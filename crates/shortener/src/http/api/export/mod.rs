//! `GET /api/v1/urls/export`: streams all links of a list as one file.
//!
//! The task that writes the file reads rows in one transaction, which prevents the clean-up of dead rows: a stalled client
//! ends it, see [`super::file_stream`].

mod rows;

use actix_web::{HttpResponse, HttpResponseBuilder, web};

use linnet_domain::{
    LinkFilter,
    rules::{Violation, string},
};
use linnet_store::LinkExport;

use super::{
    super::{csv, error::ApiError},
    ApiState, Caller,
    fields::{QueryFields, query_boolean},
    file_stream::{CHUNK_BYTES, Chunks, FileError, STALL_TIMEOUT, no_file, stream_file},
    link_filter::{LinkFilterParams, read_filter},
    slots::refused,
};
use rows::RowWriter;

/// Room for the row that completes a chunk; few rows are longer.
const ROW_BYTES: usize = 2 * 1024;

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
    let file = stream_file(slot, move |chunks| send_rows(export, format, chunks));
    Ok(respond(format).streaming(file))
}

async fn head(query: QueryFields) -> Result<HttpResponse, ApiError> {
    let (format, _) = read(query)?;
    Ok(respond(format).streaming(no_file()))
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

async fn send_rows(
    export: LinkExport,
    format: ExportFormat,
    chunks: Chunks,
) -> Result<(), FileError> {
    let mut rows = RowWriter::new(format, CHUNK_BYTES + ROW_BYTES);
    export
        .for_each(STALL_TIMEOUT, async |link| {
            rows.push(link)?;
            if rows.len() >= CHUNK_BYTES {
                chunks.send(rows.take()).await?;
            }
            Ok::<_, FileError>(())
        })
        .await?;
    chunks.send(rows.take()).await
}
