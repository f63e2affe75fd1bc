//! `admin jobs`: lists, shows, cancels and replays bulk jobs.

use std::sync::Arc;

use linnet_domain::{Job, JobFilter, JobId, Page, PageStart, SortKey, Visibility};
use linnet_jobs::upload::UploadArea;
use linnet_settings::Settings;
use linnet_store::{JobChange, Store};

use crate::{AdminError, Jobs, ListJobs};

/// Runs a subcommand.
pub(super) async fn run(
    settings: &Settings,
    store: &Store,
    command: &Jobs,
) -> Result<(), AdminError> {
    let job = match command {
        Jobs::List(arguments) => return list(store, arguments).await,
        Jobs::Show { id } => {
            store.find_job(*id, Visibility::All).await?.ok_or(AdminError::NoJob(*id))?
        }
        Jobs::Cancel { id } => {
            let (job, name) = done(*id, store.cancel_job(*id, Visibility::All).await?)?;
            let jobs = Arc::new(settings.jobs.clone());
            UploadArea::new(jobs, store.clone()).remove(&name).await;
            job
        }
        Jobs::Replay { id } => {
            let limits = settings.jobs.limits();
            done(*id, store.replay_job(*id, Visibility::All, None, limits).await?)?
        }
    };
    show(&job);
    Ok(())
}

#[expect(clippy::print_stdout, reason = "the list is this command's output")]
async fn list(store: &Store, arguments: &ListJobs) -> Result<(), AdminError> {
    let filter = JobFilter { state: arguments.state, kind: None, only_dead: arguments.dead };
    let mut after = i64::START;
    let mut left = arguments.limit;
    println!(
        "{:>8}  {:<12}  {:<9}  {:>10}  {:>10}  {:>8}  created",
        "id", "kind", "state", "user", "written", "bad"
    );
    while left > 0 {
        let size = left.min(linnet_domain::MAX_PAGE_SIZE);
        let page = Page { position: PageStart::After(after), size };
        let jobs = store.list_jobs(&filter, Visibility::All, page).await?;
        for job in &jobs {
            let state = if job.is_dead { "dead" } else { job.state.as_str() };
            let user = job.user_id.map_or_else(|| "-".to_owned(), |id| id.to_string());
            println!(
                "{:>8}  {:<12}  {state:<9}  {user:>10}  {:>10}  {:>8}  {}",
                job.id,
                job.kind.as_str(),
                job.rows_written,
                job.rows_failed,
                job.created_at.format("%Y-%m-%dT%H:%M:%SZ")
            );
            after = job.id.get();
        }
        if i64::try_from(jobs.len()).is_ok_and(|count| count < size) {
            break;
        }
        left -= size;
    }
    Ok(())
}

#[expect(clippy::print_stdout, reason = "the job is this command's output")]
fn show(job: &Job) {
    println!("{}", serde_json::to_string_pretty(job).unwrap_or_default());
}

fn done<T>(id: JobId, change: JobChange<T>) -> Result<T, AdminError> {
    match change {
        JobChange::Done(done) => Ok(done),
        JobChange::NotFound => Err(AdminError::NoJob(id)),
        JobChange::WrongState(job) => {
            let state = if job.is_dead { "dead" } else { job.state.as_str() };
            Err(AdminError::JobState { id, state })
        }
    }
}
