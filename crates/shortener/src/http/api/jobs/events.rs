//! A job's events as they come.
//!
//! Events are numbered within their job: each bad row has a number, and so has each step that the job
//! makes. A client is told its place in that order by the event's id, so it may come back to any
//! process and gets what it has not seen, in order, and nothing twice. Of steps it gets the latest one.

use std::sync::Arc;

use actix_web::{HttpRequest, HttpResponse, web};
use linnet_platform::lifecycle::Lifecycle;
use linnet_protocol::problem::Problem;
use serde::Serialize;
use std::time::Duration;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use linnet_domain::{Job, JobId, RowProblem, RowReport};
use linnet_jobs::JobSubscription;
use linnet_store::Store;

use super::{
    super::{
        super::error::{ApiError, RETRY_AFTER_AWAY},
        ApiState, Caller, IdGuard,
        sse::{self, ALIVE, HEARTBEAT, RECONNECT, RETRY},
    },
    absent,
};

/// Time between two `progress` events: at most five a second.
const PROGRESS_EVERY: Duration = Duration::from_millis(200);
/// Reports that are read at a time.
const PAGE: i64 = 200;
/// Wait before the database is asked again.
const RETRY_AFTER: Duration = Duration::from_secs(1);

pub(super) fn routes(cfg: &mut web::ServiceConfig) {
    cfg.service(web::resource("/jobs/{id}/events").route(web::get().to(watch)));
}

/// Streams a job's events as they come.
///
/// `row_error` for every bad row, with its line; `progress`, at most five a second, with the job; `done`
/// with the job when it has come to its end, and then the stream ends. A comment every 15 s when there
/// is nothing else. `Last-Event-ID` goes on where a client was, at any process; 204 says that there is
/// nothing left to tell. `reconnect` comes when the server stops.
#[utoipa::path(get, path = "/api/v1/jobs/{id}/events", operation_id = "watch_job", tag = "jobs",
    params(("id" = i64, Path, minimum = 1),
        ("Last-Event-ID" = Option<String>, Header, description = "The id of the last event that the client has",
            pattern = r"^[0-9]{1,15}$")),
    responses((status = 200, description = "The stream", content_type = "text/event-stream", body = String),
        (status = 204, description = "The job has come to its end, and the client knows")))]
pub(crate) async fn watch(
    request: HttpRequest,
    state: web::Data<ApiState>,
    lifecycle: web::Data<Lifecycle>,
    caller: Caller,
    id: IdGuard<JobId>,
) -> Result<HttpResponse, ApiError> {
    let seen = sse::last_event_id::<u64>(&request)?;
    let job = state.store.find_job(id.0, caller.visibility()).await?.ok_or_else(absent)?;
    // Nobody was told of an event to come.
    let seen = seen.map_or(0, |seen| i64::try_from(seen).unwrap_or(i64::MAX)).min(job.last_event);
    if !job.state.is_active() && seen == job.last_event {
        return Ok(HttpResponse::NoContent().finish());
    }
    let watched = state
        .jobs
        .updates
        .subscribe(job)
        .ok_or_else(|| Problem::unavailable("too many watch already", RETRY_AFTER_AWAY))?;
    Ok(sse::respond(Events {
        store: state.store.clone(),
        job_id: id.0,
        watched,
        stopping: lifecycle.stopping(),
        seen,
        goal: None,
        reports: Vec::new().into_iter(),
        progress_at: Instant::now(),
        phase: Phase::First,
    }))
}

enum Phase {
    First,
    Going,
    Over,
}

/// A bad row, as it is told while the job runs. The list of errors has the row itself.
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
    /// The job as it is told once its bad rows are.
    goal: Option<Arc<Job>>,
    reports: std::vec::IntoIter<RowReport>,
    /// Not before then.
    progress_at: Instant,
    phase: Phase,
}

impl sse::Events for Events {
    async fn next(&mut self) -> Option<String> {
        match self.phase {
            Phase::First => {
                self.phase = Phase::Going;
                Some(RETRY.to_owned())
            }
            Phase::Over => None,
            Phase::Going => {
                let stopping = self.stopping.clone();
                let text = tokio::select! {
                    () = stopping.cancelled() => None,
                    text = self.go_on() => Some(text),
                };
                Some(text.unwrap_or_else(|| {
                    self.phase = Phase::Over;
                    RECONNECT.to_owned()
                }))
            }
        }
    }
}

impl Events {
    async fn go_on(&mut self) -> String {
        loop {
            if let Some(report) = self.reports.next() {
                self.seen = report.event;
                let data = RowErrorData { line: report.line, errors: &report.errors };
                return sse::event(report.event, "row_error", &data);
            }
            if let Some(goal) = self.goal.clone() {
                match self.read_reports(&goal).await {
                    Ok(true) => continue,
                    Ok(false) => return self.tell(&goal),
                    Err(()) => {
                        tokio::time::sleep(RETRY_AFTER).await;
                        continue;
                    }
                }
            }
            tokio::time::sleep_until(self.progress_at).await;
            // The hub lives as long as its watchers.
            let changed = tokio::time::timeout(HEARTBEAT, self.watched.job.changed());
            if changed.await.is_err() {
                return ALIVE.to_owned();
            }
            let job = self.watched.job.borrow_and_update().clone();
            match job {
                Some(job) if job.last_event > self.seen => self.goal = Some(job),
                Some(_) => {}
                None => {
                    self.phase = Phase::Over;
                    return "event: gone\ndata: {}\n\n".to_owned();
                }
            }
        }
    }

    /// Whether there are bad rows to tell before the job itself.
    async fn read_reports(&mut self, goal: &Job) -> Result<bool, ()> {
        let mut reports =
            self.store.job_reports(self.job_id, self.seen, PAGE, 0).await.map_err(|error| {
                tracing::debug!(%error, "a watched job waits for the database");
            })?;
        // Younger ones belong to the next step.
        reports.retain(|report| report.event < goal.last_event);
        let is_any = !reports.is_empty();
        self.reports = reports.into_iter();
        Ok(is_any)
    }

    fn tell(&mut self, job: &Job) -> String {
        self.goal = None;
        self.seen = job.last_event;
        self.progress_at = Instant::now() + PROGRESS_EVERY;
        let name = if job.state.is_active() {
            "progress"
        } else {
            self.phase = Phase::Over;
            "done"
        };
        sse::event(job.last_event, name, job)
    }
}
