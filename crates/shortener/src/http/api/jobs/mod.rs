//! `/api/v1/jobs`: bulk jobs and the dead-letter queue.

pub(crate) mod errors;
pub(crate) mod events;

use actix_web::{HttpResponse, web};
use linnet_protocol::{problem::Problem, problem_code::ProblemCode};

use linnet_domain::{
    Job, JobFilter, JobId, JobKind, JobState, UploadName,
    rules::{Violation, string},
};
use linnet_store::JobChange;

use super::{
    super::error::ApiError,
    ApiState, Caller, IdGuard,
    fields::{Fields, QueryFields},
    import,
    list::{CursorParam, ListParams, ListQuery},
};

const PATH: &str = "/api/v1/jobs";
const DEAD_PATH: &str = "/api/v1/jobs/dead";

pub(super) fn routes(cfg: &mut web::ServiceConfig) {
    cfg.service(web::resource("/jobs").route(web::get().to(list)).route(web::head().to(list)))
        .service(web::resource("/jobs/dead").route(web::get().to(dead)).route(web::head().to(dead)))
        .service(
            web::resource("/jobs/{id}")
                .route(web::get().to(get))
                .route(web::head().to(get))
                .route(web::delete().to(delete)),
        )
        .service(web::resource("/jobs/{id}/cancel").route(web::post().to(cancel)))
        .service(web::resource("/jobs/{id}/replay").route(web::post().to(replay)))
        .configure(errors::routes)
        .configure(events::routes);
}

fn absent() -> ApiError {
    ApiError::not_found("job")
}

fn wrong_state(job: &Job, detail: &str) -> ApiError {
    let state = if job.is_dead { "dead" } else { job.state.as_str() };
    Problem::of(ProblemCode::WrongState).detail(format!("The job is {state}; {detail}.")).into()
}

fn filter(fields: &mut Fields, only_dead: bool) -> JobFilter {
    JobFilter {
        state: fields.optional("state", state),
        kind: fields.optional("kind", kind),
        only_dead,
    }
}

fn state(value: serde_json::Value) -> Result<JobState, Violation> {
    let rule = "must be queued, running, succeeded, failed or cancelled";
    JobState::parse(&string(value)?).ok_or_else(|| Violation::invalid(rule))
}

fn kind(value: serde_json::Value) -> Result<JobKind, Violation> {
    let rule = "must be import_users or import_urls";
    JobKind::parse(&string(value)?).ok_or_else(|| Violation::invalid(rule))
}

/// Lists jobs in the order of ids.
#[utoipa::path(get, path = "/api/v1/jobs", operation_id = "list_jobs", tag = "jobs",
    params(("state" = Option<JobState>, Query), ("kind" = Option<JobKind>, Query), ListParams, CursorParam),
    responses((status = 200, description = "One page", body = [Job],
        headers(("Link" = String, description = "The next page, as RFC 8288")))))]
pub(crate) async fn list(
    state: web::Data<ApiState>,
    caller: Caller,
    query: QueryFields,
) -> Result<HttpResponse, ApiError> {
    let (list, filter) = ListQuery::read(query, |fields| filter(fields, false))?;
    let jobs = state.store.list_jobs(&filter, caller.visibility(), list.page).await?;
    Ok(list.respond(PATH, &jobs, |last| last.id.get()))
}

/// Lists the dead-letter queue: jobs that have used up their attempts.
#[utoipa::path(get, path = "/api/v1/jobs/dead", operation_id = "list_dead_jobs", tag = "jobs",
    params(("kind" = Option<JobKind>, Query), ListParams, CursorParam),
    responses((status = 200, description = "One page", body = [Job],
        headers(("Link" = String, description = "The next page, as RFC 8288")))))]
pub(crate) async fn dead(
    state: web::Data<ApiState>,
    caller: Caller,
    query: QueryFields,
) -> Result<HttpResponse, ApiError> {
    let (list, filter) = ListQuery::read(query, |fields| JobFilter {
        state: None,
        kind: fields.optional("kind", kind),
        only_dead: true,
    })?;
    let jobs = state.store.list_jobs(&filter, caller.visibility(), list.page).await?;
    Ok(list.respond(DEAD_PATH, &jobs, |last| last.id.get()))
}

/// Returns a job.
#[utoipa::path(get, path = "/api/v1/jobs/{id}", operation_id = "get_job", tag = "jobs",
    params(("id" = i64, Path, minimum = 1)),
    responses((status = 200, description = "The job", body = Job)))]
pub(crate) async fn get(
    state: web::Data<ApiState>,
    caller: Caller,
    id: IdGuard<JobId>,
) -> Result<HttpResponse, ApiError> {
    let job = state.store.find_job(id.0, caller.visibility()).await?;
    Ok(HttpResponse::Ok().json(job.ok_or_else(absent)?))
}

/// Cancels a queued or running job. Rows that are already written stay.
#[utoipa::path(post, path = "/api/v1/jobs/{id}/cancel", operation_id = "cancel_job", tag = "jobs",
    params(("id" = i64, Path, minimum = 1)),
    responses((status = 200, description = "The job", body = Job),
        (status = 409, description = "The job has finished", content_type = "application/problem+json")))]
pub(crate) async fn cancel(
    state: web::Data<ApiState>,
    caller: Caller,
    id: IdGuard<JobId>,
) -> Result<HttpResponse, ApiError> {
    match state.store.cancel_job(id.0, caller.visibility()).await? {
        JobChange::Done((job, upload)) => {
            remove_upload(&state, &upload).await;
            Ok(HttpResponse::Ok().json(job))
        }
        JobChange::WrongState(job) => {
            Err(wrong_state(&job, "only a queued or running job can be cancelled"))
        }
        JobChange::NotFound => Err(absent()),
    }
}

/// Returns a dead job to the queue. It continues where it stopped.
///
/// It has the rights of the key that replays it, and ends with that key.
#[utoipa::path(post, path = "/api/v1/jobs/{id}/replay", operation_id = "replay_job", tag = "jobs",
    params(("id" = i64, Path, minimum = 1)),
    responses((status = 202, description = "The job", body = Job),
        (status = 409, description = "The job is not dead", content_type = "application/problem+json")))]
pub(crate) async fn replay(
    state: web::Data<ApiState>,
    caller: Caller,
    id: IdGuard<JobId>,
) -> Result<HttpResponse, ApiError> {
    let key_id = caller.identity().key_id.as_deref();
    let limits = state.jobs.settings.limits();
    match state.store.replay_job(id.0, caller.visibility(), key_id, limits).await? {
        JobChange::Done(job) => Ok(HttpResponse::Accepted().json(job)),
        JobChange::WrongState(job) if job.is_dead => Err(import::too_many()),
        JobChange::WrongState(job) => Err(wrong_state(&job, "only a dead job can be replayed")),
        JobChange::NotFound => Err(absent()),
    }
}

/// Deletes a job with its bad rows. A queued or running job is cancelled first.
#[utoipa::path(delete, path = "/api/v1/jobs/{id}", operation_id = "delete_job", tag = "jobs",
    params(("id" = i64, Path, minimum = 1)),
    responses((status = 204, description = "Deleted")))]
pub(crate) async fn delete(
    state: web::Data<ApiState>,
    caller: Caller,
    id: IdGuard<JobId>,
) -> Result<HttpResponse, ApiError> {
    if let JobChange::NotFound = state.store.cancel_job(id.0, caller.visibility()).await? {
        return Err(absent());
    }
    match state.store.discard_job(id.0, caller.visibility()).await? {
        JobChange::Done(name) => {
            remove_upload(&state, &name).await;
            Ok(HttpResponse::NoContent().finish())
        }
        // A concurrent request replayed it.
        JobChange::WrongState(job) => {
            Err(wrong_state(&job, "a concurrent request returned it to the queue"))
        }
        JobChange::NotFound => Err(absent()),
    }
}

/// A worker that still reads the file stops at the next chunk, when it finds that the job was deleted.
async fn remove_upload(state: &ApiState, name: &UploadName) {
    state.jobs.uploads(&state.store).discard(name).await;
}
