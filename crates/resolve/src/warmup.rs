//! Loads the most clicked links into L1, so that a restart does not send their traffic to the
//! tiers below all at once.

use std::time::Duration;

use linnet_store::{Store, StoreError};

use super::{CacheMetrics, Entry, L1Cache};

/// Loads up to `limit` links within `time`. Returns how many; a database that is away loads none.
pub async fn warm_up(
    local: &L1Cache,
    store: &Store,
    metrics: &CacheMetrics,
    limit: u32,
    time: Duration,
) -> u64 {
    if limit == 0 {
        return 0;
    }
    let mut loaded = 0_u64;
    // Taken before the query reads anything: a change that comes while it runs is noticed.
    let tickets = local.tickets();
    let load = store.most_clicked(i64::from(limit), |row| {
        let ticket = tickets.of(&row.short_code);
        local.fill(&row.short_code, Entry::from_row(&row), ticket);
        loaded += 1;
    });
    match tokio::time::timeout(time, load).await {
        Ok(Ok(())) => {}
        Ok(Err(StoreError::Away(error))) => tracing::warn!(%error, "no warm-up: no database"),
        Ok(Err(error)) => tracing::error!(%error, "the warm-up failed"),
        Err(_) => tracing::info!("the warm-up ran out of time"),
    }
    metrics.warmed.add(loaded);
    tracing::info!(links = loaded, "the local cache is warm");
    loaded
}
