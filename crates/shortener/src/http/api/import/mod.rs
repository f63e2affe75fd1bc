//! `POST …/bulk`: uploads that become jobs.

mod body;
mod options;

use std::{fs::File, path::Path, time::Duration};

use actix_web::{
    HttpRequest, HttpResponse,
    http::{StatusCode, header::HeaderName},
    web,
};
use linnet_domain::Scope;
use linnet_protocol::{problem::Problem, problem_code::ProblemCode};
use serde::Serialize;
use tokio::time::Instant;
use utoipa::ToSchema;

use linnet_domain::{Job, JobKind, Lane, NewJob, RowFormat};
use linnet_import::{
    columns_of,
    source::{Rows, SourceError},
};
use linnet_jobs::{publish_notice, upload::UploadError};

use super::{
    super::error::{ApiError, RETRY_AFTER_AWAY, field_error},
    ApiState, Caller,
    fields::QueryFields,
    idempotency::{self, IdempotencyKey, IdempotencyParams, Made},
};

use options::{BulkParams, Options, Prefer, PreferParams};

const PREFERENCE_APPLIED: HeaderName = HeaderName::from_static("preference-applied");

pub(super) fn routes(cfg: &mut web::ServiceConfig) {
    cfg.service(web::resource("/users/bulk").route(web::post().to(import_users)));
}

/// A job as it is answered to those who start one.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct BulkAnswer {
    /// Rows that are written so far; all of them when the job has come to its end.
    count: i64,
    /// The job.
    job: Job,
}

impl From<Job> for BulkAnswer {
    fn from(job: Job) -> Self {
        Self { count: job.rows_written, job }
    }
}

/// Makes users, as a job.
///
/// Columns: `username`, `email`, and if you like `id` and `created_at`. A CSV file (`multipart/form-data`
/// with the field `file`, or `text/csv`), a JSON array, or NDJSON; each may be packed with gzip.
#[utoipa::path(post, path = "/api/v1/users/bulk", operation_id = "import_users", tag = "users",
    params(BulkParams, PreferParams, IdempotencyParams),
    request_body(content((inline(Vec<serde_json::Value>) = "application/json"), (String = "application/x-ndjson"),
        (String = "text/csv"), (UploadForm = "multipart/form-data"))),
    responses((status = 202, description = "The job", body = BulkAnswer,
        headers(("Location" = String, description = "The job's address"))),
        (status = 200, description = "The job, which has come to its end within `Prefer: wait`", body = BulkAnswer),
        (status = 507, description = "No room for the upload", content_type = "application/problem+json")))]
pub(crate) async fn import_users(
    request: HttpRequest,
    payload: web::Payload,
    state: web::Data<ApiState>,
    caller: Caller,
    key: IdempotencyKey,
    query: QueryFields,
    prefer: Prefer,
) -> Result<HttpResponse, ApiError> {
    if !caller.is_admin() {
        return Err(ApiError::forbidden("only an administrator makes users"));
    }
    import(JobKind::ImportUsers, &request, payload, &state, &caller, key, query, prefer).await
}

/// Makes links, as a job.
///
/// Columns: `original_url`, and if you like `short_code`, `title`, `is_active`, `redirect_status`, `expires_at`,
/// `max_clicks`, `user_id`, `created_at`, `updated_at`; administrators may give `id`. A CSV file
/// (`multipart/form-data` with the field `file`, or `text/csv`), a JSON array, or NDJSON; each may be packed with gzip.
#[utoipa::path(post, path = "/api/v1/urls/bulk", operation_id = "import_urls", tag = "urls",
    params(BulkParams, PreferParams, IdempotencyParams),
    request_body(content((inline(Vec<serde_json::Value>) = "application/json"), (String = "application/x-ndjson"),
        (String = "text/csv"), (UploadForm = "multipart/form-data"))),
    responses((status = 202, description = "The job", body = BulkAnswer,
        headers(("Location" = String, description = "The job's address"))),
        (status = 200, description = "The job, which has come to its end within `Prefer: wait`", body = BulkAnswer),
        (status = 507, description = "No room for the upload", content_type = "application/problem+json")))]
pub(crate) async fn import_urls(
    request: HttpRequest,
    payload: web::Payload,
    state: web::Data<ApiState>,
    caller: Caller,
    key: IdempotencyKey,
    query: QueryFields,
    prefer: Prefer,
) -> Result<HttpResponse, ApiError> {
    // The gateway asked for the scope of jobs.
    if !caller.is_admin() && !caller.identity().scopes.allows(Scope::UrlsWrite) {
        return Err(ApiError::forbidden("this needs a key with the scope urls:write, too"));
    }
    import(JobKind::ImportUrls, &request, payload, &state, &caller, key, query, prefer).await
}

/// A form with a file, documented.
#[derive(ToSchema)]
#[expect(dead_code, reason = "documents the input; `body` reads it")]
pub(crate) struct UploadForm {
    /// The rows.
    #[schema(value_type = String, format = Binary)]
    file: Vec<u8>,
}

#[expect(clippy::too_many_arguments, reason = "they are the handlers' own")]
async fn import(
    kind: JobKind,
    request: &HttpRequest,
    payload: web::Payload,
    state: &web::Data<ApiState>,
    caller: &Caller,
    key: IdempotencyKey,
    query: QueryFields,
    prefer: Prefer,
) -> Result<HttpResponse, ApiError> {
    let options = Options::read(query)?;
    let settings = &state.jobs.settings;
    let Ok(_slot) = state.jobs.upload_slots.try_acquire() else {
        let detail = "too many uploads are under way";
        return Err(Problem::unavailable(detail, RETRY_AFTER_AWAY).into());
    };
    let body = body::receive(request, payload, settings).await?;
    let options = options.and(body.options)?;
    let (upload, format) = (body.upload, body.format);
    let path = upload.path().to_owned();
    let (columns, unknown_columns) =
        web::block(move || look_at(&path, format, kind)).await.map_err(|error| {
            tracing::error!(%error, "an upload could not be looked at");
            Problem::internal()
        })??;
    let new = NewJob {
        kind,
        user_id: caller.user_id(),
        by_admin: caller.is_admin(),
        format,
        on_conflict: options.on_conflict,
        dry_run: options.dry_run,
        upload: upload.name.clone(),
        upload_bytes: i64::try_from(upload.bytes).unwrap_or(i64::MAX),
        is_large: upload.bytes > settings.small_bytes,
        columns,
        unknown_columns,
    };
    let mut made = None;
    let route = format!("POST {} {}", request.path(), request.query_string());
    let answer = idempotency::once(state, caller, &route, key, &upload.hash, async |maker| {
        let job = maker.create_job(&new, settings.limits()).await?.ok_or_else(too_many)?;
        let location = format!("/api/v1/jobs/{}", job.id);
        made = Some(job.clone());
        Made::new(StatusCode::ACCEPTED, location, &BulkAnswer::from(job))
    })
    .await?;
    // An answer of before needs no second upload.
    let Some(job) = made else { return Ok(answer) };
    upload.keep();
    let lane = Lane::of(new.is_large);
    if let Err(error) = publish_notice(&state.announcer.redis, lane, job.id).await {
        // A dispatcher notices.
        tracing::debug!(%error, "a job is announced later");
    }
    match prefer.wait() {
        Some(wait) => Ok(wait_for(state, job, wait).await.unwrap_or(answer)),
        None => Ok(answer),
    }
}

/// The answer to those who prefer to wait, when the job comes to its end in time.
async fn wait_for(state: &ApiState, job: Job, wait: Duration) -> Option<HttpResponse> {
    let deadline = Instant::now() + wait;
    let location = format!("/api/v1/jobs/{}", job.id);
    let mut watched = state.jobs.updates.subscribe(job)?;
    loop {
        tokio::time::timeout_at(deadline, watched.job.changed()).await.ok()?.ok()?;
        let job = watched.job.borrow_and_update().clone()?;
        if !job.state.is_active() {
            let applied = format!("wait={}", wait.as_secs());
            return Some(
                HttpResponse::Ok()
                    .insert_header((PREFERENCE_APPLIED, applied))
                    .insert_header(("location", location))
                    .json(BulkAnswer::from(Job::clone(&job))),
            );
        }
    }
}

fn too_many() -> ApiError {
    Problem::of(ProblemCode::TooManyJobs)
        .detail("jobs must come to their end before others are taken")
        .retry_after(10)
        .into()
}

/// The columns of a file, and those that are passed over.
fn look_at(
    path: &Path,
    format: RowFormat,
    kind: JobKind,
) -> Result<(Vec<String>, Vec<String>), ApiError> {
    let source = File::open(path)
        .map_err(SourceError::from)
        .and_then(|file| Rows::open(file, format, &columns_of(kind)));
    match source {
        Ok(source) => Ok((source.header().to_vec(), source.unknown_columns().to_vec())),
        Err(error) if error.is_of_file() => {
            let errors = vec![field_error(error.field(), error.code(), &error.to_string())];
            Err(Problem::invalid(errors).into())
        }
        Err(error) => {
            tracing::error!(%error, "an upload could not be looked at");
            Err(Problem::internal().into())
        }
    }
}

impl From<UploadError> for ApiError {
    fn from(error: UploadError) -> Self {
        let text = error.to_string();
        let problem = match error {
            UploadError::Incomplete => Problem::of(ProblemCode::BodyBroken),
            UploadError::TimedOut => Problem::of(ProblemCode::BodyTimeout),
            UploadError::TooLarge { .. } => Problem::of(ProblemCode::TooLarge),
            UploadError::InvalidGzip => {
                return Problem::invalid(vec![field_error("file", "invalid", &text)]).into();
            }
            UploadError::DiskFull => {
                tracing::error!("the upload area is full");
                Problem::of(ProblemCode::InsufficientStorage)
            }
            UploadError::Io(error) => {
                tracing::error!(%error, "the upload area cannot be written");
                return Problem::internal().into();
            }
        };
        problem.detail(text).into()
    }
}
