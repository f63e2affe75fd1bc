//! `GET /api/v1/jobs/{id}/events`: streams a job's events.
//!
//! * The events of a job are numbered: each bad row has a number, and so has each change of the job.
//! * The number is the event's id. A client that resumes at any process receives the events after it, in order and
//!   once.
//! * Of several changes of the job, a client receives the latest.

use std::sync::Arc;

use actix_web::{HttpRequest, HttpResponse, web};
use linnet_platform::{lifecycle::Lifecycle, slot_pool::Slot};
use linnet_protocol::problem::Problem;
use serde::Serialize;
use std::time::Duration;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use linnet_domain::{Job, JobId, RowProblem};
use linnet_jobs::JobSubscription;
use linnet_store::{RowErrors, Store};

use super::{
    super::{
        super::error::{ApiError, RETRY_AFTER_UNAVAILABLE},
        ApiState, Caller, IdGuard,
        slots::{Owner, refused},
        sse::{self, ALIVE, HEARTBEAT, RECONNECT, RETRY},
    },
    absent,
};

/// Time between two `progress` events: at most five a second.
const PROGRESS_EVERY: Duration = Duration::from_millis(200);
/// The maximum number of bad rows of one read from the database.
const PAGE: i64 = 50;
/// The maximum size of these rows' errors, in bytes of JSON. The memory budget has a term for each stream.
const PAGE_BYTES: i64 = 2 * 1024;
/// Backoff after a failed read.
const RETRY_AFTER: Duration = Duration::from_secs(1);

pub(super) fn routes(cfg: &mut web::ServiceConfig) {
    cfg.service(web::resource("/jobs/{id}/events").route(web::get().to(watch)));
}

/// Streams a job's events.
///
/// `row_error` has a bad row's line and errors; `progress` has the job, at most five times a second; `done` has the
/// finished job and ends the stream. A comment is sent after 15 s without events. `Last-Event-ID` resumes after an event,
/// at any process; the response is 204 when no event is left. `reconnect` is sent before the server stops.
#[utoipa::path(get, path = "/api/v1/jobs/{id}/events", operation_id = "watch_job", tag = "jobs",
    params(("id" = i64, Path, minimum = 1),
        ("Last-Event-ID" = Option<String>, Header, description = "The id of the last event that the client received",
            pattern = r"^[0-9]{1,15}$")),
    responses((status = 200, description = "The stream", content_type = "text/event-stream", body = String),
        (status = 204, description = "The job has finished, and the client has received all events")))]
pub(crate) async fn watch(
    request: HttpRequest,
    state: web::Data<ApiState>,
    lifecycle: web::Data<Lifecycle>,
    caller: Caller,
    id: IdGuard<JobId>,
) -> Result<HttpResponse, ApiError> {
    let seen = sse::last_event_id::<u64>(&request)?;
    let job = state.store.find_job(id.0, caller.visibility()).await?.ok_or_else(absent)?;
    // No client can have received a later event.
    let seen = seen.map_or(0, |seen| i64::try_from(seen).unwrap_or(i64::MAX)).min(job.last_event);
    if !job.state.is_active() && seen == job.last_event {
        return Ok(HttpResponse::NoContent().finish());
    }
    let slot = state.slots.job_streams.take(caller.user_id());
    let slot = slot.map_err(|refusal| refused(refusal, "streams of jobs"))?;
    let watched = state.jobs.updates.subscribe(job).ok_or_else(|| {
        Problem::unavailable("Too many streams are open. Retry later.", RETRY_AFTER_UNAVAILABLE)
    })?;
    Ok(sse::respond(Events {
        store: state.store.clone(),
        job_id: id.0,
        watched,
        stopping: lifecycle.stopping(),
        seen,
        next_job: None,
        reports: Vec::new().into_iter(),
        progress_at: Instant::now(),
        phase: Phase::First,
        _slot: slot,
    }))
}

enum Phase {
    First,
    Streaming,
    Ended,
}

/// The data of a `row_error` event. The list of bad rows also has the cells.
#[derive(Serialize)]
struct RowErrorData<'a> {
    line: i64,
    errors: &'a [RowProblem],
}

struct Events {
    store: Store,
    job_id: JobId,
    watched: JobSubscription,
    stopping: CancellationToken,
    /// Number of the last event that was sent.
    seen: i64,
    /// The next state of the job to send, after its bad rows.
    next_job: Option<Arc<Job>>,
    reports: std::vec::IntoIter<RowErrors>,
    /// The earliest time of the next `progress` event.
    progress_at: Instant,
    phase: Phase,
    _slot: Slot<Owner>,
}

impl sse::Events for Events {
    async fn next(&mut self) -> Option<String> {
        match self.phase {
            Phase::First => {
                self.phase = Phase::Streaming;
                Some(RETRY.to_owned())
            }
            Phase::Ended => None,
            Phase::Streaming => {
                let stopping = self.stopping.clone();
                let text = tokio::select! {
                    () = stopping.cancelled() => None,
                    text = self.next_event() => Some(text),
                };
                Some(text.unwrap_or_else(|| {
                    self.phase = Phase::Ended;
                    RECONNECT.to_owned()
                }))
            }
        }
    }
}

impl Events {
    async fn next_event(&mut self) -> String {
        loop {
            if let Some(report) = self.reports.next() {
                self.seen = report.event;
                let data = RowErrorData { line: report.line, errors: &report.errors };
                return sse::event(report.event, "row_error", &data);
            }
            if let Some(job) = self.next_job.clone() {
                match self.read_reports(&job).await {
                    Ok(true) => continue,
                    Ok(false) => return self.job_event(&job),
                    Err(()) => {
                        tokio::time::sleep(RETRY_AFTER).await;
                        continue;
                    }
                }
            }
            tokio::time::sleep_until(self.progress_at).await;
            // Waiting fails only without a sender, which lives as long as its watchers.
            let changed = tokio::time::timeout(HEARTBEAT, self.watched.job.changed());
            if changed.await.is_err() {
                return ALIVE.to_owned();
            }
            let job = self.watched.job.borrow_and_update().clone();
            match job {
                Some(job) if job.last_event > self.seen => self.next_job = Some(job),
                Some(_) => {}
                None => {
                    self.phase = Phase::Ended;
                    return "event: gone\ndata: {}\n\n".to_owned();
                }
            }
        }
    }

    /// Reads the bad rows before this state of the job. Returns whether there are any.
    async fn read_reports(&mut self, job: &Job) -> Result<bool, ()> {
        let mut reports =
            self.store.job_row_errors(self.job_id, self.seen, PAGE, PAGE_BYTES).await.map_err(
                |error| {
                    tracing::debug!(%error, "bad rows of a watched job not read");
                },
            )?;
        // Later reports belong to the next state of the job.
        reports.retain(|report| report.event < job.last_event);
        let is_any = !reports.is_empty();
        self.reports = reports.into_iter();
        Ok(is_any)
    }

    fn job_event(&mut self, job: &Job) -> String {
        self.next_job = None;
        self.seen = job.last_event;
        self.progress_at = Instant::now() + PROGRESS_EVERY;
        let name = if job.state.is_active() {
            "progress"
        } else {
            self.phase = Phase::Ended;
            "done"
        };
        sse::event(job.last_event, name, job)
    }
}
