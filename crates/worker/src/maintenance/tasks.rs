//! The maintenance tasks.

use std::time::{Duration, Instant};

use chrono::{Days, NaiveDate};
use futures::FutureExt;

use super::{
    MaintenanceContext, Report, RunError, Task, batches::in_batches, uploads::remove_orphans,
};

/// All tasks, in the order in which due ones run. Dashboards and `maintenance_runs` contain their names.
pub static TASKS: [Task; 11] = [
    Task {
        name: "click-partitions",
        about: "Creates partitions of clicks for today and the next three days",
        every: Duration::from_hours(1),
        timeout: Duration::from_mins(1),
        work: |context| create_partitions(context).boxed(),
    },
    Task {
        name: "click-retention",
        about: "Drops partitions of clicks older than clicks.retention_days",
        every: Duration::from_hours(1),
        timeout: Duration::from_mins(5),
        work: |context| drop_partitions(context).boxed(),
    },
    Task {
        name: "visitor-keys",
        about: "Deletes keys of visitor hashes one day after their day",
        every: Duration::from_hours(1),
        timeout: Duration::from_mins(1),
        work: |context| delete_visitor_keys(context).boxed(),
    },
    Task {
        name: "click-batches",
        about: "Deletes batch ids after 7 days",
        every: Duration::from_hours(1),
        timeout: Duration::from_mins(10),
        work: |context| delete_batch_ids(context).boxed(),
    },
    Task {
        name: "click-months",
        about: "Folds months that ended more than 7 days ago",
        every: Duration::from_hours(1),
        // Folding a month is one statement of up to 10 min.
        timeout: Duration::from_mins(15),
        work: |context| fold_months(context).boxed(),
    },
    Task {
        name: "expired-links",
        about: "Deletes links that expired more than links.delete_expired_after_days ago, and records of codes \
                that are no longer held",
        every: Duration::from_hours(1),
        timeout: Duration::from_mins(10),
        work: |context| delete_expired_links(context).boxed(),
    },
    Task {
        name: "idempotency-keys",
        about: "Deletes stored responses to requests with an Idempotency-Key after 24 h",
        every: Duration::from_mins(10),
        timeout: Duration::from_mins(5),
        work: |context| delete_idempotency_keys(context).boxed(),
    },
    Task {
        name: "row-quotas",
        about: "Counts links, events and idempotency keys for the quotas of their owners",
        every: Duration::from_mins(5),
        timeout: Duration::from_mins(10),
        work: |context| count_rows(context).boxed(),
    },
    Task {
        name: "ended-jobs",
        about: "Deletes jobs that ended more than jobs.retention_days ago, with their row errors",
        every: Duration::from_hours(1),
        timeout: Duration::from_mins(10),
        work: |context| delete_ended_jobs(context).boxed(),
    },
    Task {
        name: "ended-keys",
        about: "Deletes API keys that were revoked or expired more than 90 days ago",
        every: Duration::from_hours(1),
        timeout: Duration::from_mins(5),
        work: |context| delete_ended_keys(context).boxed(),
    },
    Task {
        name: "uploads",
        about: "Removes uploads that no job needs",
        every: Duration::from_mins(5),
        timeout: Duration::from_mins(10),
        work: |context| remove_orphans(context).boxed(),
    },
];

impl Task {
    /// The task of this name.
    pub fn find(name: &str) -> Option<&'static Self> {
        TASKS.iter().find(|task| task.name == name)
    }
}

/// Days for which partitions are created in advance.
const DAYS_AHEAD: u64 = 3;
/// Jobs of one transaction; each may have many row errors.
const JOBS_PER_BATCH: i64 = 10;
/// Users whose rows one statement counts, unless that takes too long.
const USERS_PER_BATCH: i64 = 100;
/// Days for which ended keys are kept as an audit record.
const ENDED_KEY_DAYS: u32 = 90;
/// Keys of one transaction.
const KEYS_PER_BATCH: i64 = 1_000;
/// Links of one transaction; edits of these links wait for it.
const LINKS_PER_BATCH: i64 = 1_000;

impl MaintenanceContext {
    /// The day by PostgreSQL's clock, which all workers share.
    async fn today(&self) -> Result<NaiveDate, RunError> {
        Ok(self.store.server_time().await?.date_naive())
    }
}

async fn create_partitions(context: &MaintenanceContext) -> Result<Report, RunError> {
    let today = context.today().await?;
    let mut created = 0;
    for day in (0..=DAYS_AHEAD).filter_map(|days| today.checked_add_days(Days::new(days))) {
        created += u64::from(context.store.ensure_partition(day).await?);
    }
    Ok(Report::of(created, "partition(s) created"))
}

async fn drop_partitions(context: &MaintenanceContext) -> Result<Report, RunError> {
    let kept = Days::new(context.settings.click_retention_days.into());
    let mut dropped = Vec::new();
    if let Some(first) = context.today().await?.checked_sub_days(kept) {
        dropped = context.store.drop_partitions_before(first).await?;
    }
    for name in &dropped {
        tracing::info!(name, "partition of clicks dropped");
    }
    Ok(Report::of(dropped.len() as u64, "partition(s) dropped"))
}

async fn delete_visitor_keys(context: &MaintenanceContext) -> Result<Report, RunError> {
    let mut deleted = 0;
    if let Some(yesterday) = context.today().await?.checked_sub_days(Days::new(1)) {
        deleted = context.store.delete_visitor_keys_before(yesterday).await?;
    }
    Ok(Report::of(deleted, "key(s) deleted"))
}

async fn delete_batch_ids(context: &MaintenanceContext) -> Result<Report, RunError> {
    let deleted = in_batches(|| context.store.delete_old_click_batches()).await?;
    Ok(Report::of(deleted, "batch id(s) deleted"))
}

async fn fold_months(context: &MaintenanceContext) -> Result<Report, RunError> {
    let mut folded = 0;
    while let Some(month) = context.store.fold_click_month().await? {
        tracing::info!(%month, "month of clicks folded");
        folded += 1;
    }
    Ok(Report::of(folded, "month(s) folded"))
}

async fn delete_expired_links(context: &MaintenanceContext) -> Result<Report, RunError> {
    let settings = &context.settings.links;
    let held = settings.hold_codes_days;
    in_batches(|| context.store.delete_released_codes(held, LINKS_PER_BATCH)).await?;
    let days = settings.delete_expired_after_days;
    if days == 0 {
        return Ok(Report::default());
    }
    let batch = || context.store.delete_expired_links(days, LINKS_PER_BATCH);
    Ok(Report::of(in_batches(batch).await?, "link(s) deleted"))
}

async fn delete_idempotency_keys(context: &MaintenanceContext) -> Result<Report, RunError> {
    let deleted = in_batches(|| context.store.delete_expired_idempotency_keys()).await?;
    Ok(Report::of(deleted, "response(s) deleted"))
}

async fn count_rows(context: &MaintenanceContext) -> Result<Report, RunError> {
    let began_at = context.store.server_time().await?;
    let links = &context.settings.links;
    let has_quota = links.per_user > 0
        || links.events_per_user > 0
        || links.bytes_per_user > 0
        || links.event_bytes_per_user > 0;
    let mut failure = Ok(());
    if has_quota {
        let (mut last, mut users) = (None, USERS_PER_BATCH);
        loop {
            let began = Instant::now();
            match context.store.count_rows_of_users(last, users).await {
                Ok(None) => break,
                Ok(counted) => (last, users) = (counted, USERS_PER_BATCH),
                // Users with very many rows are counted alone, and one that takes too long does not stop the others.
                Err(error) if users > 1 => {
                    tracing::debug!(%error, "batch of users not counted; counting one user");
                    users = 1;
                }
                Err(error) => {
                    let Some(uncounted) = context.store.user_after(last).await? else { break };
                    last = Some(uncounted);
                    failure = Err(error);
                }
            }
            // Maintenance uses at most half of the database's time.
            tokio::time::sleep(began.elapsed()).await;
        }
    }
    context.store.count_idempotency_keys().await?;
    failure?;
    let full = context.store.delete_row_counts_before(began_at).await?;
    Ok(Report::of(full, "owner(s) at a quota"))
}

async fn delete_ended_jobs(context: &MaintenanceContext) -> Result<Report, RunError> {
    let days = context.settings.jobs.retention_days;
    let deleted = in_batches(|| context.store.delete_ended_jobs(days, JOBS_PER_BATCH)).await?;
    Ok(Report::of(deleted, "job(s) deleted"))
}

async fn delete_ended_keys(context: &MaintenanceContext) -> Result<Report, RunError> {
    let store = &context.store;
    let deleted = in_batches(|| store.delete_ended_keys(ENDED_KEY_DAYS, KEYS_PER_BATCH)).await?;
    Ok(Report::of(deleted, "key(s) deleted"))
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn task_names_are_distinct_and_in_kebab_case() {
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
