//! A look-up through the tiers.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use linnet_platform::redis_client::{RedisAway, RedisClient};

use linnet_store::{Store, StoreError};

use super::{
    CacheMetrics, Entry, HotLinks, InFlightLookups, L1Cache, L2Cache, LookupError,
    l1::{CachedEntry, Ticket},
};

/// One worker's way through the tiers. L1, the flights and the metrics belong to the process; the
/// Redis link and the database pool to the worker.
#[derive(Clone)]
pub struct Resolver {
    /// L1.
    pub local: Arc<L1Cache>,
    /// Look-ups under way.
    pub flights: Arc<InFlightLookups>,
    /// L2's rules.
    pub shared: L2Cache,
    /// L2's connection.
    pub redis: RedisClient,
    /// L3.
    pub store: Store,
    /// What is counted.
    pub metrics: Arc<CacheMetrics>,
    /// Longest look-up in the database, waiting for a connection included.
    pub database_timeout: Duration,
}

/// What a code leads to, kept alive by a reference count.
#[derive(Debug, Clone)]
pub struct Resolved(Arc<CachedEntry>);

impl Resolved {
    /// The entry.
    #[inline]
    pub fn entry(&self) -> &Entry {
        &self.0.entry
    }
}

impl Resolver {
    /// What L1 knows, or the worker's own hot links: no await, no allocation.
    #[inline]
    pub fn resolve_local(&self, hot: &mut HotLinks, code: &str, now: Instant) -> Option<Resolved> {
        let held = hot.get(&self.local, code, now)?;
        self.metrics.local.add(1);
        Some(Resolved(held))
    }

    /// Asks L2, then L3, once for all who ask at the same time.
    pub async fn resolve(&self, code: &str) -> Result<Resolved, LookupError> {
        let mut began = false;
        let look_up = || {
            began = true;
            let (resolver, code) = (self.clone(), Box::<str>::from(code));
            async move { resolver.look_up(&code).await }
        };
        let outcome = self.flights.join(code, look_up).await;
        if !began {
            self.metrics.coalesced.add(1);
        }
        outcome.map(Resolved)
    }

    async fn look_up(&self, code: &str) -> Result<Arc<CachedEntry>, LookupError> {
        // Between the caller's miss and this flight another one may have landed.
        if let Some(held) = self.local.get(code, Instant::now()) {
            return Ok(held);
        }
        let ticket = self.local.ticket(code);
        // While the feed is cut, Redis may hold what it could not be told about.
        if self.local.bus_is_live() {
            match self.shared.get(&self.redis, code).await {
                Ok(Some(entry)) => {
                    self.metrics.shared.add(1);
                    return Ok(self.local.fill(code, entry, ticket));
                }
                Ok(None) => {}
                Err(error) => self.note_redis(&error),
            }
        }
        self.look_up_in_database(code, ticket).await
    }

    async fn look_up_in_database(
        &self,
        code: &str,
        ticket: Ticket,
    ) -> Result<Arc<CachedEntry>, LookupError> {
        self.metrics.database.add(1);
        let row = tokio::time::timeout(self.database_timeout, self.store.find_for_resolve(code));
        let entry = match row.await {
            Ok(Ok(Some(row))) => Entry::from_row(&row),
            Ok(Ok(None)) => Entry::ABSENT,
            Ok(Err(error)) => {
                log_database(&error);
                return Err(LookupError::Away);
            }
            Err(_) => {
                tracing::warn!("the database did not answer a look-up in time");
                return Err(LookupError::Away);
            }
        };
        // Written before anybody is answered: another process that asks next finds it there, and
        // PostgreSQL is asked for each code once. Not when a change came meanwhile: Redis may have
        // lost the entry that would refuse this one.
        if self.local.is_current(ticket)
            && let Err(error) = self.shared.fill(&self.redis, code, &entry).await
        {
            self.note_redis(&error);
        }
        Ok(self.local.fill(code, entry, ticket))
    }

    fn note_redis(&self, error: &RedisAway) {
        self.metrics.shared_errors.add(1);
        if let RedisAway::Failed(error) = error {
            tracing::warn!(%error, "a look-up goes on without Redis");
        }
    }
}

fn log_database(error: &StoreError) {
    match error {
        StoreError::Away(source) => {
            tracing::warn!(error = %source, "a look-up failed: the database is away");
        }
        StoreError::Conflict(_) | StoreError::Failed(_) => {
            let error: &dyn std::error::Error = error;
            tracing::error!(error, "a look-up failed");
        }
    }
}
