//! `POST …/bulk`: creates a job from an uploaded file.

mod body;
mod options;

use std::{io, time::Duration};

use actix_web::{
    HttpRequest, HttpResponse,
    http::{StatusCode, header::HeaderName},
    middleware::from_fn,
    web,
};
use linnet_protocol::{problem::Problem, problem_code::ProblemCode};
use serde::Serialize;
use tokio::time::Instant;
use utoipa::ToSchema;

use linnet_domain::{Job, JobId, JobKind, Lane, NewJob, RowFormat, Scope};
use linnet_import::{
    RowFile, columns_of,
    source::{Rows, SourceError, format_of_file},
};
use linnet_jobs::{publish_notice, upload::UploadError};
use linnet_store::{CreatedJob, JobRefusal};

use super::{
    super::error::ApiError,
    ApiState, Caller,
    fields::QueryFields,
    format::vary_by_prefer,
    idempotency::{self, CreatedResponse, IdempotencyKey, IdempotencyParams},
    slots::refused,
};

use body::Body;
use options::{BulkParams, ImportOptions, PreferParams};
pub(super) use options::{Options, Prefer};

/// `Retry-After` in seconds when a failover has lost a part of an upload.
const RETRY_AFTER_LOST_S: u64 = 5;
/// `Retry-After` in seconds when the space of the user's removed uploads is not free yet. Every ten minutes a part of it is.
const RETRY_AFTER_REMOVED_S: u64 = 600;
const PREFERENCE_APPLIED: HeaderName = HeaderName::from_static("preference-applied");

pub(super) fn routes(cfg: &mut web::ServiceConfig) {
    cfg.service(
        web::resource("/users/bulk")
            .wrap(from_fn(vary_by_prefer))
            .route(web::post().to(import_users)),
    );
}

/// A job, in the response to the request that created it.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct BulkAnswer {
    /// Rows written so far; the final number when the job has finished.
    count: i64,
    /// The job.
    job: Job,
}

impl From<Job> for BulkAnswer {
    fn from(job: Job) -> Self {
        Self { count: job.rows_written, job }
    }
}

/// A form with a file, documented.
#[derive(ToSchema)]
#[expect(dead_code, reason = "documents the input; `body` reads it")]
pub(crate) struct UploadForm {
    /// The rows.
    #[schema(value_type = String, format = Binary)]
    file: Vec<u8>,
}

/// An endpoint for uploads: its documentation, path, tag, kind of job, and the check of the caller.
macro_rules! upload_endpoint {
    ($(#[doc = $doc:literal])+ $name:ident, $path:literal, $tag:literal, $kind:expr, $check:expr) => {
        $(#[doc = $doc])+
        #[utoipa::path(post, path = $path, tag = $tag,
            params(BulkParams, PreferParams, IdempotencyParams),
            request_body(content((inline(Vec<serde_json::Value>) = "application/json"),
                (String = "application/x-ndjson"), (String = "text/csv"),
                (String = "application/octet-stream"), (UploadForm = "multipart/form-data"))),
            responses((status = 202, description = "The job", body = BulkAnswer,
                headers(("Location" = String, description = "The path of the job"))),
                (status = 200, description = "The job, which finished within `Prefer: wait`", body = BulkAnswer),
                (status = 507, description = "Insufficient storage", content_type = "application/problem+json")))]
        pub(crate) async fn $name(
            request: HttpRequest,
            payload: web::Payload,
            state: web::Data<ApiState>,
            caller: Caller,
            key: IdempotencyKey,
            query: QueryFields,
            prefer: Prefer,
        ) -> Result<HttpResponse, ApiError> {
            let check: fn(&Caller) -> Result<(), ApiError> = $check;
            check(&caller)?;
            let upload = UploadRequest { request, state, caller, key, prefer, kind: $kind };
            upload.create_job(payload, query).await
        }
    };
}

upload_endpoint! {
    /// Imports users in a job.
    ///
    /// Columns: `username` and `email`; optional `id` and `created_at`. The body is a CSV file (`multipart/form-data` with
    /// the field `file`, or `text/csv`), a JSON array, or NDJSON. Each may be compressed with gzip. The delimiter of CSV
    /// (comma, semicolon or tab) is recognized, and so is the format of `application/octet-stream`.
    import_users, "/api/v1/users/bulk", "users", JobKind::ImportUsers, |caller| {
        if caller.is_admin() {
            Ok(())
        } else {
            Err(ApiError::forbidden("Only an administrator may create users."))
        }
    }
}

upload_endpoint! {
    /// Imports links in a job.
    ///
    /// Columns: `original_url`; optional `short_code`, `user_id`, `created_at`, `updated_at` and the other fields of
    /// `UrlCreate`, for administrators also `id`. The body is a CSV file (`multipart/form-data` with the field `file`, or
    /// `text/csv`), a JSON array, or NDJSON. Each may be compressed with gzip. The delimiter of CSV (comma, semicolon or
    /// tab) is recognized, and so is the format of `application/octet-stream`.
    import_urls, "/api/v1/urls/bulk", "urls", JobKind::ImportUrls, |caller| {
        // The gateway has checked the scope `jobs:write`.
        if caller.is_admin() || caller.identity().scopes.allows(Scope::UrlsWrite) {
            Ok(())
        } else {
            Err(ApiError::forbidden("The key also needs the scope `urls:write`."))
        }
    }
}

/// An upload without its body.
struct UploadRequest {
    request: HttpRequest,
    state: web::Data<ApiState>,
    caller: Caller,
    key: IdempotencyKey,
    prefer: Prefer,
    kind: JobKind,
}

impl UploadRequest {
    /// Receives the file and creates the job. Responds with the job, or with the finished job for `Prefer: wait`.
    async fn create_job(
        self,
        payload: web::Payload,
        query: QueryFields,
    ) -> Result<HttpResponse, ApiError> {
        let options = Options::read(query)?;
        let jobs = &self.state.jobs;
        let slot = self.state.slots.uploads.take(self.caller.user_id());
        let slot = slot.map_err(|refusal| refused(refusal, "uploads"))?;
        let area = jobs.uploads(&self.state.store);
        let mut body = body::receive(&self.request, payload, &area, self.caller.user_id()).await?;
        let options = options.and(std::mem::take(&mut body.options))?;
        let new = self.new_job(&body, &options).await?;
        // The wait for the job is no upload.
        drop(slot);
        let mut created = None;
        // Each form has a new boundary, so the options and the file are compared instead of the bytes of the body.
        let request = format!("{:?} {options:?} {:?}", new.format, body.upload.hash);
        let (state, caller, request) = (&self.state, &self.caller, request.as_bytes());
        let upload = &mut body.upload;
        let response = idempotency::once(state, caller, self.key, request, async |creator| {
            // From here on the job may exist even if this request fails or is dropped: a connection may break after the
            // commit. The maintenance task `uploads` removes the file if there is no job.
            upload.keep(true);
            let created_job = creator.create_job(&new, jobs.settings.limits()).await?;
            let CreatedJob { job, is_announced } = created_job.map_err(|refusal| {
                upload.keep(false);
                refused_job(refusal, jobs.settings.kept_per_user)
            })?;
            let location = format!("/api/v1/jobs/{}", job.id);
            created = Some((job.clone(), is_announced));
            CreatedResponse::new(StatusCode::ACCEPTED, location, &BulkAnswer::from(job))
        })
        .await?;
        let wait = self.prefer.wait();
        let Some((job, is_announced)) = created else {
            // The file of the first request is kept, and dropping `body` removes this one.
            return replay(state, caller, response, wait).await;
        };
        let lane = Lane::of(new.is_large);
        if is_announced
            && let Err(error) = publish_notice(&self.state.announcer.redis, lane, job.id).await
        {
            tracing::debug!(%error, "job notice not published; the dispatcher will publish it");
        }
        Ok(wait_for(state, caller, job, wait).await.unwrap_or(response))
    }

    async fn new_job(&self, body: &Body, options: &ImportOptions) -> Result<NewJob, ApiError> {
        let (upload, named, kind) = (&body.upload, body.format, self.kind);
        let (file, name) = (upload.file(), body.name.clone());
        let columns = web::block(move || {
            let format = format_of_file(&file, &name, named).map_err(unreadable)?;
            read_columns(&file, format, kind).map(|columns| (format, columns))
        });
        let columns = columns.await.map_err(|error| unreadable(io::Error::other(error)))?;
        let (format, (columns, unknown_columns)) = columns?;
        Ok(NewJob {
            kind,
            user_id: self.caller.user_id(),
            key_id: self.caller.identity().key_id.clone(),
            by_admin: self.caller.is_admin(),
            format,
            on_conflict: options.on_conflict,
            dry_run: options.dry_run,
            upload: upload.name.clone(),
            upload_bytes: i64::try_from(upload.bytes).unwrap_or(i64::MAX),
            is_large: upload.bytes > self.state.jobs.settings.small_bytes,
            columns,
            unknown_columns,
            null_columns: options.null_columns.clone(),
        })
    }
}

/// Waits for the job of a stored response, as the first request did. If the job is deleted, it has no later state.
async fn replay(
    state: &ApiState,
    caller: &Caller,
    stored: HttpResponse,
    wait: Option<Duration>,
) -> Result<HttpResponse, ApiError> {
    let location = stored.headers().get("location").and_then(|path| path.to_str().ok());
    let id = location.and_then(|path| JobId::new(path.rsplit('/').next()?.parse().ok()?));
    let Some(id) = wait.and(id) else { return Ok(stored) };
    let Some(job) = state.store.find_job(id, caller.visibility()).await? else { return Ok(stored) };
    let finished = wait_for(state, caller, job, wait).await;
    Ok(finished.map_or(stored, idempotency::replayed))
}

/// Waits for the job, if the client prefers that. Returns the response if the job finishes in time. A wait takes the place
/// of a stream of the job's events; if the caller has its share of them, it does not wait.
async fn wait_for(
    state: &ApiState,
    caller: &Caller,
    job: Job,
    wait: Option<Duration>,
) -> Option<HttpResponse> {
    let wait = wait?;
    let _slot = state.slots.job_streams.take(caller.user_id()).ok()?;
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

fn refused_job(refusal: JobRefusal, kept: u32) -> ApiError {
    match refusal {
        JobRefusal::TooManyActive => too_many(),
        JobRefusal::TooManyKept => Problem::of(ProblemCode::TooManyJobs)
            .detail(format!("A user may have {kept} jobs. Delete finished ones first."))
            .retry_after(10)
            .into(),
        JobRefusal::UploadLost => UploadError::Lost.into(),
        JobRefusal::KeyEnded => {
            Problem::unauthorized("The API key is unknown, revoked or expired.").into()
        }
    }
}

pub(super) fn too_many() -> ApiError {
    Problem::of(ProblemCode::TooManyJobs)
        .detail("Too many unfinished jobs. Create this one when others have finished.")
        .retry_after(10)
        .into()
}

/// An upload that was whole, and that this process cannot read. If it is in the database, that may be unavailable, or have
/// lost a part of it in a failover since then.
fn unreadable(error: io::Error) -> ApiError {
    match error.downcast::<UploadError>() {
        Ok(error) => error.into(),
        Err(error) => {
            tracing::error!(%error, "upload not read");
            Problem::internal().into()
        }
    }
}

/// The columns of a file, and those of them that are unknown and ignored.
fn read_columns(
    file: &impl RowFile,
    format: RowFormat,
    kind: JobKind,
) -> Result<(Vec<String>, Vec<String>), ApiError> {
    let source = file
        .open()
        .map_err(SourceError::from)
        .and_then(|file| Rows::open(file, format, &columns_of(kind)));
    match source {
        Ok(source) => Ok((source.header().to_vec(), source.unknown_columns().to_vec())),
        Err(error) if error.is_of_file() => {
            Err(ApiError::invalid(error.field(), error.code(), &error.to_string()))
        }
        Err(SourceError::Io(error)) => Err(unreadable(error)),
        Err(error) => Err(unreadable(io::Error::other(error))),
    }
}

impl From<UploadError> for ApiError {
    fn from(error: UploadError) -> Self {
        let text = error.to_string();
        let code = match error {
            UploadError::Incomplete => ProblemCode::BodyBroken,
            UploadError::TimedOut | UploadError::TooSlow { .. } => ProblemCode::BodyTimeout,
            UploadError::TooLarge { .. } | UploadError::Expands { .. } => ProblemCode::TooLarge,
            UploadError::InvalidGzip => return Self::invalid("file", "invalid", &text),
            UploadError::DiskFull => {
                tracing::error!("upload area full");
                ProblemCode::InsufficientStorage
            }
            UploadError::StoreFull => {
                tracing::error!("uploads in the database have reached jobs.upload_total_bytes");
                ProblemCode::InsufficientStorage
            }
            UploadError::RemovedFull => {
                tracing::error!(
                    "removed uploads in the database have reached four times jobs.upload_total_bytes"
                );
                ProblemCode::InsufficientStorage
            }
            UploadError::UserFull => return too_many(),
            UploadError::UserRemovedFull => {
                return Problem::of(ProblemCode::TooManyJobs)
                    .detail(
                        "Your uploads of the last 2 h are too large together. Upload more later.",
                    )
                    .retry_after(RETRY_AFTER_REMOVED_S)
                    .into();
            }
            UploadError::Lost => {
                tracing::warn!("the database has lost a part of an upload");
                let detail = "The database has lost a part of the upload. Repeat it.";
                return Problem::unavailable(detail, RETRY_AFTER_LOST_S).into();
            }
            UploadError::Store(error) => return error.into(),
            UploadError::Io(error) => {
                tracing::error!(%error, "upload area not writable");
                return Problem::internal().into();
            }
        };
        Problem::of(code).detail(text).into()
    }
}
