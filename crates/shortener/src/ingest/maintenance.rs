//! Partitions made ahead and dropped in time, and other things that have their time.

use std::{collections::HashSet, time::Duration};

use chrono::{Days, NaiveDate};
use linnet_platform::redis_link::jittered;

use crate::store::{Store, StoreError};

const EVERY: Duration = Duration::from_hours(1);
const RETRY_EVERY: Duration = Duration::from_secs(10);
/// Partitions made ahead, in days.
const AHEAD: u64 = 3;

/// Makes the partitions of these days, unless this worker has seen them.
pub(super) async fn ensure_partitions(
    store: &Store,
    seen: &mut HashSet<NaiveDate>,
    days: impl IntoIterator<Item = NaiveDate>,
) -> Result<(), StoreError> {
    for day in days {
        if !seen.contains(&day) {
            store.ensure_partition(day).await?;
            seen.insert(day);
        }
    }
    Ok(())
}

/// The tasks of every worker. Each may run anywhere and at any time: what another one has done is
/// found done.
pub struct Maintenance {
    /// The database.
    pub store: Store,
    /// How long raw clicks are kept, in days.
    pub retention_days: u32,
}

impl Maintenance {
    /// Runs the tasks now and every hour. Never ends.
    pub async fn run(self) {
        loop {
            let wait = match self.once().await {
                Ok(()) => EVERY,
                Err(error) => {
                    tracing::warn!(%error, "the upkeep of clicks failed: trying on");
                    RETRY_EVERY
                }
            };
            tokio::time::sleep(jittered(wait)).await;
        }
    }

    /// Runs the tasks once.
    pub async fn once(&self) -> Result<(), StoreError> {
        // The server's clock: workers on several machines must agree on what is old.
        let today = self.store.server_time().await?.date_naive();
        let ahead = (0..=AHEAD).filter_map(|days| today.checked_add_days(Days::new(days)));
        ensure_partitions(&self.store, &mut HashSet::new(), ahead).await?;
        if let Some(first) = today.checked_sub_days(Days::new(self.retention_days.into())) {
            for name in self.store.drop_partitions_before(first).await? {
                tracing::info!(name, "raw clicks of a day have had their time");
            }
        }
        if let Some(yesterday) = today.checked_sub_days(Days::new(1)) {
            self.store.forget_visitor_keys_before(yesterday).await?;
        }
        while self.store.forget_batches().await? > 0 {}
        while let Some(month) = self.store.fold_click_month().await? {
            tracing::info!(%month, "a month of clicks is added up");
        }
        Ok(())
    }
}
