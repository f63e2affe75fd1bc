//! `GET /api/v1/jobs/{id}/errors`: a job's bad rows.

use actix_web::{HttpResponse, http::Method, middleware::from_fn, web};

use crate::http::csv;
use linnet_domain::{JobId, RowProblem, RowReport};
use linnet_import::REPORT_COLUMNS;
use linnet_store::{ReportPage, ReportRange, Store};

use super::{
    super::{
        super::error::ApiError,
        ApiState, Caller, IdGuard,
        fields::QueryFields,
        file_stream::{CHUNK_BYTES, Chunks, FileError, no_file, stream_file},
        format::{Accepted, Format, FormatParams, vary_by_accept},
        list::{CursorParam, ListParams, ListQuery},
        slots::refused,
    },
    PATH, absent,
};

/// The maximum number of rows of one read from the database.
const PAGE: i64 = 500;
/// The maximum size of a page's rows, in bytes of JSON. A row may have 8 KiB.
const MAX_PAGE_BYTES: i64 = 256 * 1024;

pub(super) fn routes(cfg: &mut web::ServiceConfig) {
    cfg.service(
        web::resource("/jobs/{id}/errors")
            .wrap(from_fn(vary_by_accept))
            .route(web::get().to(list))
            .route(web::head().to(list)),
    );
}

/// Lists a job's bad rows in the order of lines.
///
/// A page ends before its size when its rows exceed 256 KiB.
///
/// CSV has all bad rows: the errors, then the row as uploaded, under its own column names. A corrected file can be
/// uploaded again. It takes the place of an export.
#[utoipa::path(get, path = "/api/v1/jobs/{id}/errors", operation_id = "list_job_errors", tag = "jobs",
    params(("id" = i64, Path, minimum = 1), ListParams, CursorParam, FormatParams),
    responses((status = 200, description = "One page", content(
            (Vec<RowReport> = "application/json"), (String = "text/csv")),
        headers(("Link" = String, description = "The next page, as RFC 8288")))))]
pub(crate) async fn list(
    state: web::Data<ApiState>,
    caller: Caller,
    id: IdGuard<JobId>,
    method: Method,
    accepted: Accepted,
    query: QueryFields,
) -> Result<HttpResponse, ApiError> {
    let (list, format) = ListQuery::read(query, |fields| accepted.read(fields))?;
    let job = state.store.find_job(id.0, caller.visibility()).await?.ok_or_else(absent)?;
    match format {
        Format::Json => {
            let (page, path) = (list.page, format!("{PATH}/{}/errors", job.id));
            let range = ReportRange {
                after: page.after(),
                limit: page.size,
                offset: page.offset(),
                bytes: MAX_PAGE_BYTES,
            };
            let ReportPage { reports, is_cut } = state.store.job_reports(job.id, range).await?;
            let cut_after = reports.last().filter(|_| is_cut).map(|last| last.event);
            let mut response = list.begin(&path, &reports, cut_after, |last| last.event);
            Ok(response.json(reports))
        }
        Format::Csv { bom } => {
            let mut response = HttpResponse::Ok();
            let name = format!("job-{}-errors.csv", job.id);
            csv::name_file(&mut response, &name, csv::CONTENT_TYPE_CSV);
            if method == Method::HEAD {
                return Ok(response.streaming(no_file()));
            }
            let slot = state.exports.take(caller.user_id());
            let slot = slot.map_err(|refusal| refused(refusal, "exports"))?;
            let columns = state.store.job_columns(job.id).await?;
            let names = REPORT_COLUMNS.into_iter().chain(columns.iter().map(String::as_str));
            let mut header = csv::begin(bom);
            push_line(&mut header, names);
            let store = state.store.clone();
            let lines = stream_file(slot, move |chunks| send_lines(store, job.id, header, chunks));
            Ok(response.streaming(lines))
        }
    }
}

/// Sends the bad rows as lines of CSV after the header.
async fn send_lines(
    store: Store,
    job_id: JobId,
    header: Vec<u8>,
    chunks: Chunks,
) -> Result<(), FileError> {
    for part in header.chunks(CHUNK_BYTES) {
        chunks.send(part.to_vec()).await?;
    }
    let mut after = 0;
    loop {
        let bytes = i64::try_from(CHUNK_BYTES).unwrap_or(i64::MAX);
        let range = ReportRange { after, limit: PAGE, offset: 0, bytes };
        let ReportPage { reports, .. } = store.job_reports(job_id, range).await?;
        let Some(last) = reports.last() else { return Ok(()) };
        after = last.event;
        let mut lines = Vec::new();
        for report in &reports {
            push_report(&mut lines, report);
        }
        drop(reports);
        chunks.send(lines).await?;
    }
}

fn push_report(lines: &mut Vec<u8>, report: &RowReport) {
    let joined =
        |of: fn(&RowProblem) -> &str| report.errors.iter().map(of).collect::<Vec<_>>().join("; ");
    let about = [
        report.line.to_string(),
        joined(|problem| &problem.column),
        joined(|problem| &problem.code),
        joined(|problem| &problem.message),
    ];
    push_line(lines, about.iter().chain(&report.cells.to_vec()).map(String::as_str));
}

fn push_line<'a>(lines: &mut Vec<u8>, cells: impl Iterator<Item = &'a str>) {
    for (place, cell) in cells.enumerate() {
        if place > 0 {
            lines.push(b',');
        }
        csv::push_text(lines, cell);
    }
    lines.extend_from_slice(b"\r\n");
}
