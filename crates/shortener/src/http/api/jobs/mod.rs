//! `/api/v1/jobs`: bulk jobs as they go on, and the dead-letter queue.

pub(crate) mod errors;
pub(crate) mod events;

use actix_web::{HttpResponse, web};
use linnet_protocol::{problem::Problem, problem_code::ProblemCode};

use linnet_domain::{Job, JobFilter, JobId, JobKind, JobState};
use linnet_jobs::{publish_notice, upload};
use linnet_store::JobChange;

use super::{
    super::error::ApiError,
    ApiState, Caller, IdGuard,
    fields::{Bad, Fields, QueryFields, string},
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
    Problem::of(ProblemCode::WrongState).detail(format!("the job is {state}: {detail}")).into()
}

fn filter(fields: &mut Fields, only_dead: bool) -> JobFilter {
    JobFilter {
        state: fields.optional("state", state),
        kind: fields.optional("kind", kind),
        only_dead,
    }
}

fn state(value: serde_json::Value) -> Result<JobState, Bad> {
    let message = "must be queued, running, succeeded, failed or cancelled";
    JobState::parse(&string(value)?).ok_or_else(|| ("invalid", message.to_owned()))
}

fn kind(value: serde_json::Value) -> Result<JobKind, Bad> {
    let message = "must be import_users or import_urls";
    JobKind::parse(&string(value)?).ok_or_else(|| ("invalid", message.to_owned()))
}

/// Lists jobs, by id.
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

/// Lists the dead-letter queue: jobs that failed as often as they may.
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

/// Shows a job.
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

/// Cancels a job that waits or runs. What was written until then stays.
#[utoipa::path(post, path = "/api/v1/jobs/{id}/cancel", operation_id = "cancel_job", tag = "jobs",
    params(("id" = i64, Path, minimum = 1)),
    responses((status = 200, description = "The job", body = Job),
        (status = 409, description = "It has come to its end", content_type = "application/problem+json")))]
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
            Err(wrong_state(&job, "only one that waits or runs can be cancelled"))
        }
        JobChange::NotFound => Err(absent()),
    }
}

/// Puts a dead job back into the queue. It goes on where it had come to.
#[utoipa::path(post, path = "/api/v1/jobs/{id}/replay", operation_id = "replay_job", tag = "jobs",
    params(("id" = i64, Path, minimum = 1)),
    responses((status = 202, description = "The job", body = Job),
        (status = 409, description = "It is not dead", content_type = "application/problem+json")))]
pub(crate) async fn replay(
    state: web::Data<ApiState>,
    caller: Caller,
    id: IdGuard<JobId>,
) -> Result<HttpResponse, ApiError> {
    match state.store.replay_job(id.0, caller.visibility()).await? {
        JobChange::Done((job, lane)) => {
            if let Err(error) = publish_notice(&state.announcer.redis, lane, job.id).await {
                tracing::debug!(%error, "a job is announced later");
            }
            Ok(HttpResponse::Accepted().json(job))
        }
        JobChange::WrongState(job) => Err(wrong_state(&job, "only a dead one can be replayed")),
        JobChange::NotFound => Err(absent()),
    }
}

/// Discards a job with its reports. One that waits or runs is cancelled first.
#[utoipa::path(delete, path = "/api/v1/jobs/{id}", operation_id = "delete_job", tag = "jobs",
    params(("id" = i64, Path, minimum = 1)),
    responses((status = 204, description = "Gone")))]
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
        // Somebody replayed it meanwhile.
        JobChange::WrongState(job) => Err(wrong_state(&job, "it was put back into the queue")),
        JobChange::NotFound => Err(absent()),
    }
}

/// A worker that reads it still goes on reading, and finds its job gone at the next chunk.
async fn remove_upload(state: &ApiState, name: &str) {
    let path = state.jobs.settings.upload_dir.join(name);
    let _ = web::block(move || upload::remove(&path)).await;
}
