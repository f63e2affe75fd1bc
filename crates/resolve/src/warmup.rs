//! Warm-up: loads the most clicked links into L1, so that a restart does not send their traffic to the
//! tiers below all at once.

use std::time::Duration;

use linnet_store::{Store, StoreError};

use super::{CacheEntry, CacheMetrics, L1Cache};

/// Loads up to `limit` links within `time`. Returns their number, 0 if PostgreSQL cannot be reached.
pub async fn warm_up(
    l1: &L1Cache,
    store: &Store,
    metrics: &CacheMetrics,
    limit: u32,
    time: Duration,
) -> u64 {
    if limit == 0 {
        return 0;
    }
    let mut loaded = 0_u64;
    // Take the tickets before the query: a link that changes during the query is then not cached.
    let tickets = l1.tickets();
    let load = store.most_clicked(i64::from(limit), |row| {
        let ticket = tickets.of(&row.short_code);
        l1.fill(&row.short_code, CacheEntry::from_row(&row), ticket);
        loaded += 1;
    });
    match tokio::time::timeout(time, load).await {
        Ok(Ok(())) => {}
        Ok(Err(StoreError::Unavailable(error))) => {
            tracing::warn!(%error, "warm-up skipped: PostgreSQL cannot be reached");
        }
        Ok(Err(error)) => tracing::error!(%error, "warm-up failed"),
        Err(_) => tracing::info!("warm-up timed out"),
    }
    metrics.warmup_links.add(loaded);
    tracing::info!(links = loaded, "warm-up finished");
    loaded
}
