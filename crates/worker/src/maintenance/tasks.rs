//! The tasks: what they are called, how often they run, and what they do.

use std::time::Duration;

use chrono::{Days, NaiveDate};
use futures::{FutureExt, future::BoxFuture};

use super::{MaintenanceContext, Report, RunError, batches::in_batches, uploads::remove_orphans};

/// A task.
#[derive(Debug, Clone)]
pub struct Task {
    /// What it is called in the table, in metrics and on the command line.
    pub name: &'static str,
    /// What it does, in a few words.
    pub about: &'static str,
    /// Time from the beginning of one run to that of the next.
    pub every: Duration,
    /// Longest run.
    pub timeout: Duration,
    pub(super) work: Work,
}

type Work = for<'a> fn(&'a MaintenanceContext) -> BoxFuture<'a, Result<Report, RunError>>;

/// All tasks, in the order in which they run when several are due. Their names are bound: dashboards
/// and the table know them.
pub static TASKS: [Task; 9] = [
    Task {
        name: "click-partitions",
        about: "Makes the partitions of clicks for today and the days to come",
        every: Duration::from_hours(1),
        timeout: Duration::from_mins(1),
        work: |upkeep| make_partitions(upkeep).boxed(),
    },
    Task {
        name: "click-retention",
        about: "Drops the partitions of clicks that are older than clicks.retention_days",
        every: Duration::from_hours(1),
        timeout: Duration::from_mins(5),
        work: |upkeep| drop_partitions(upkeep).boxed(),
    },
    Task {
        name: "visitor-keys",
        about: "Forgets the keys of visitors' numbers, a day after theirs",
        every: Duration::from_hours(1),
        timeout: Duration::from_mins(1),
        work: |upkeep| forget_visitor_keys(upkeep).boxed(),
    },
    Task {
        name: "click-batches",
        about: "Forgets the ids of batches of clicks that cannot come again",
        every: Duration::from_hours(1),
        timeout: Duration::from_mins(10),
        work: |upkeep| forget_batches(upkeep).boxed(),
    },
    Task {
        name: "click-months",
        about: "Adds up the statistics of months that are over",
        every: Duration::from_hours(1),
        // One month is one statement of up to 10 min.
        timeout: Duration::from_mins(15),
        work: |upkeep| fold_months(upkeep).boxed(),
    },
    Task {
        name: "expired-links",
        about: "Deletes links that expired more than links.delete_expired_after_days ago",
        every: Duration::from_hours(1),
        timeout: Duration::from_mins(10),
        work: |upkeep| delete_expired_links(upkeep).boxed(),
    },
    Task {
        name: "idempotency-keys",
        about: "Forgets answers to requests with an Idempotency-Key after 24 h",
        every: Duration::from_mins(10),
        timeout: Duration::from_mins(5),
        work: |upkeep| forget_idempotency_keys(upkeep).boxed(),
    },
    Task {
        name: "ended-jobs",
        about: "Deletes jobs that ended more than jobs.retention_days ago, with their reports",
        every: Duration::from_hours(1),
        timeout: Duration::from_mins(10),
        work: |upkeep| delete_ended_jobs(upkeep).boxed(),
    },
    Task {
        name: "uploads",
        about: "Removes uploads that no job needs",
        every: Duration::from_hours(1),
        timeout: Duration::from_mins(10),
        work: |upkeep| remove_orphans(upkeep).boxed(),
    },
];

impl Task {
    /// The task of this name.
    pub fn find(name: &str) -> Option<&'static Self> {
        TASKS.iter().find(|task| task.name == name)
    }
}

/// Partitions made ahead, in days.
const AHEAD: u64 = 3;
/// Jobs of one transaction; each may have many reports.
const JOBS_AT_ONCE: i64 = 10;
/// Links of one transaction; edits of them wait until its end.
const LINKS_AT_ONCE: i64 = 1_000;

impl MaintenanceContext {
    /// The server's day: workers on several machines must agree on what is old.
    async fn today(&self) -> Result<NaiveDate, RunError> {
        Ok(self.store.server_time().await?.date_naive())
    }
}

async fn make_partitions(upkeep: &MaintenanceContext) -> Result<Report, RunError> {
    let today = upkeep.today().await?;
    let mut made = 0;
    for day in (0..=AHEAD).filter_map(|days| today.checked_add_days(Days::new(days))) {
        made += u64::from(upkeep.store.ensure_partition(day).await?);
    }
    Ok(Report::of(made, "partition(s) made"))
}

async fn drop_partitions(upkeep: &MaintenanceContext) -> Result<Report, RunError> {
    let kept = Days::new(upkeep.settings.click_retention_days.into());
    let mut dropped = Vec::new();
    if let Some(first) = upkeep.today().await?.checked_sub_days(kept) {
        dropped = upkeep.store.drop_partitions_before(first).await?;
    }
    for name in &dropped {
        tracing::info!(name, "raw clicks of a day have had their time");
    }
    Ok(Report::of(dropped.len() as u64, "partition(s) dropped"))
}

async fn forget_visitor_keys(upkeep: &MaintenanceContext) -> Result<Report, RunError> {
    let mut forgotten = 0;
    if let Some(yesterday) = upkeep.today().await?.checked_sub_days(Days::new(1)) {
        forgotten = upkeep.store.forget_visitor_keys_before(yesterday).await?;
    }
    Ok(Report::of(forgotten, "key(s) forgotten"))
}

async fn forget_batches(upkeep: &MaintenanceContext) -> Result<Report, RunError> {
    let forgotten = in_batches(|| upkeep.store.forget_batches()).await?;
    Ok(Report::of(forgotten, "batch(es) forgotten"))
}

async fn fold_months(upkeep: &MaintenanceContext) -> Result<Report, RunError> {
    let mut folded = 0;
    while let Some(month) = upkeep.store.fold_click_month().await? {
        tracing::info!(%month, "a month of clicks is added up");
        folded += 1;
    }
    Ok(Report::of(folded, "month(s) added up"))
}

async fn delete_expired_links(upkeep: &MaintenanceContext) -> Result<Report, RunError> {
    let days = upkeep.settings.links.delete_expired_after_days;
    if days == 0 {
        return Ok(Report::default());
    }
    let batch = || upkeep.store.delete_expired_links(days, LINKS_AT_ONCE);
    Ok(Report::of(in_batches(batch).await?, "link(s) deleted"))
}

async fn forget_idempotency_keys(upkeep: &MaintenanceContext) -> Result<Report, RunError> {
    let forgotten = in_batches(|| upkeep.store.expire_idempotency_keys()).await?;
    Ok(Report::of(forgotten, "answer(s) forgotten"))
}

async fn delete_ended_jobs(upkeep: &MaintenanceContext) -> Result<Report, RunError> {
    let days = upkeep.settings.jobs.retention_days;
    let deleted = in_batches(|| upkeep.store.delete_ended_jobs(days, JOBS_AT_ONCE)).await?;
    Ok(Report::of(deleted, "job(s) deleted"))
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn names_are_different_and_in_kebab_case() {
        let names: HashSet<_> = TASKS.iter().map(|task| task.name).collect();
        assert_eq!(names.len(), TASKS.len());
        for name in names {
            let is_kebab = name.chars().all(|c| c.is_ascii_lowercase() || c == '-');
            assert!(is_kebab && !name.starts_with('-') && !name.ends_with('-'), "{name}");
            assert_eq!(Task::find(name).unwrap().name, name);
        }
        assert!(Task::find("nonsense").is_none());
    }
}
