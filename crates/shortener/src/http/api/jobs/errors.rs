//! `GET /api/v1/jobs/{id}/errors`: a job's bad rows.

use actix_web::{
    HttpResponse,
    middleware::from_fn,
    web::{self, Bytes},
};
use futures::stream;

use crate::http::csv;
use linnet_domain::{JobId, RowProblem, RowReport};
use linnet_import::REPORT_COLUMNS;
use linnet_store::{Store, StoreError};

use super::{
    super::{
        super::error::ApiError,
        ApiState, Caller, IdGuard,
        fields::QueryFields,
        format::{Accepted, Format, FormatParams, vary_by_accept},
        list::{CursorParam, ListParams, ListQuery},
    },
    PATH, absent,
};

/// The number of rows of one read from the database.
const PAGE: i64 = 500;

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
/// CSV has all bad rows: the errors, then the row as uploaded, under its own column names. A corrected file can be
/// uploaded again.
#[utoipa::path(get, path = "/api/v1/jobs/{id}/errors", operation_id = "list_job_errors", tag = "jobs",
    params(("id" = i64, Path, minimum = 1), ListParams, CursorParam, FormatParams),
    responses((status = 200, description = "One page", content(
            (Vec<RowReport> = "application/json"), (String = "text/csv")),
        headers(("Link" = String, description = "The next page, as RFC 8288")))))]
pub(crate) async fn list(
    state: web::Data<ApiState>,
    caller: Caller,
    id: IdGuard<JobId>,
    accepted: Accepted,
    query: QueryFields,
) -> Result<HttpResponse, ApiError> {
    let (list, format) = ListQuery::read(query, |fields| accepted.read(fields))?;
    let job = state.store.find_job(id.0, caller.visibility()).await?.ok_or_else(absent)?;
    match format {
        Format::Json => {
            let (page, path) = (list.page, format!("{PATH}/{}/errors", job.id));
            let reports =
                state.store.job_reports(job.id, page.after(), page.size, page.offset()).await?;
            Ok(list.respond(&path, &reports, |last| last.event))
        }
        Format::Csv { bom } => {
            let columns = state.store.job_columns(job.id).await?;
            Ok(csv_of_all(state.store.clone(), job.id, &columns, bom))
        }
    }
}

/// Streams all bad rows as CSV.
fn csv_of_all(store: Store, job_id: JobId, columns: &[String], bom: bool) -> HttpResponse {
    let names = REPORT_COLUMNS.into_iter().chain(columns.iter().map(String::as_str));
    let mut header = csv::begin(bom);
    push_line(&mut header, names);
    let body = stream::try_unfold((0, Some(header)), move |(after, header)| {
        let store = store.clone();
        async move {
            if let Some(header) = header {
                return Ok(Some((Bytes::from(header), (after, None))));
            }
            let reports = store.job_reports(job_id, after, PAGE, 0).await?;
            let Some(last) = reports.last().map(|report| report.event) else {
                return Ok(None);
            };
            let mut lines = Vec::new();
            for report in &reports {
                push_report(&mut lines, report);
            }
            Ok::<_, StoreError>(Some((Bytes::from(lines), (last, None))))
        }
    });
    let mut response = HttpResponse::Ok();
    let name = format!("job-{job_id}-errors.csv");
    csv::name_file(&mut response, &name, csv::CONTENT_TYPE_CSV);
    response.streaming(body)
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
    push_line(lines, about.iter().chain(&report.cells).map(String::as_str));
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
