//! Looks codes up in L1, L2 and PostgreSQL, in this order.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use linnet_platform::{
    client_network::ClientNetwork,
    redis_client::{RedisClient, RedisUnavailable},
};

use linnet_store::{Store, StoreError};

use super::{
    Absence, CacheEntry, CacheMetrics, HotLinks, InFlightLookups, L1Cache, L2Cache, LookupError,
    Resolution,
    l1::{L1Entry, Ticket},
};

/// The resolver of one server thread. L1, the in-flight lookups and the metrics belong to the process;
/// the Redis client and the database pool to the server thread.
#[derive(Clone)]
pub struct Resolver {
    /// L1.
    pub l1: Arc<L1Cache>,
    /// Lookups that concurrent misses share.
    pub in_flight: InFlightLookups,
    /// TTLs and keys of L2.
    pub l2: L2Cache,
    /// The server thread's Redis client.
    pub redis: RedisClient,
    /// The server thread's database pool.
    pub store: Store,
    /// Lookups by tier.
    pub metrics: Arc<CacheMetrics>,
    /// Longest database lookup, including the wait for a connection.
    pub database_timeout: Duration,
}

/// The [`Ticket`] for caching that a link has ended.
#[derive(Debug, Clone, Copy)]
pub struct EndTicket(Ticket);

/// An entry of L1, shared by reference count.
#[derive(Debug, Clone)]
pub struct Resolved(Arc<L1Entry>);

impl Resolved {
    /// The entry.
    #[inline]
    pub fn entry(&self) -> &CacheEntry {
        &self.0.entry
    }
}

impl Resolver {
    /// Reads the server thread's hot links and L1, without an await and without an allocation.
    #[inline]
    pub fn resolve_local(&self, hot: &mut HotLinks, code: &str, now: Instant) -> Option<Resolved> {
        let entry = hot.get(&self.l1, code, now)?;
        self.metrics.local.add(1);
        Some(Resolved(entry))
    }

    /// Looks the code up in L2, then in PostgreSQL, or joins the in-flight lookup of the code. Until a lookup ends, it
    /// counts against the share of the `client` that started it.
    ///
    /// A joined lookup may have read the row before a change that this request must see. In that case its result is not
    /// used.
    pub async fn resolve(
        &self,
        code: &str,
        client: Option<ClientNetwork>,
    ) -> Result<Resolved, LookupError> {
        let arrival = self.l1.ticket(code);
        let look_up = || {
            let (resolver, code) = (self.clone(), Box::<str>::from(code));
            async move { resolver.look_up(&code).await }
        };
        let answers = |entry: &L1Entry| self.l1.answers(entry, arrival);
        let (result, joined) = self.in_flight.run_for_arrival(code, client, look_up, answers).await;
        if joined {
            self.metrics.coalesced.add(1);
        }
        result.map(Resolved)
    }

    /// Takes a ticket for [`Resolver::remember_end`], before the link is found to have ended.
    pub fn ticket_of(&self, code: &str) -> EndTicket {
        EndTicket(self.l1.ticket(code))
    }

    /// Caches that the link of a cached entry has ended. Its next visitors then get the response of a code without a
    /// link on the same path, and so after the same time. An edit raises the version and replaces this entry.
    pub async fn remember_end(
        &self,
        code: &str,
        version: i64,
        absence: Absence,
        EndTicket(ticket): EndTicket,
    ) {
        let cached = self.l1.get(code, Instant::now());
        let is_same = cached.is_some_and(|cached| {
            cached.entry.version == version
                && !matches!(cached.entry.resolution, Resolution::Negative(_))
        });
        // Another visitor has cached it, or an edit has replaced the entry.
        if !is_same {
            return;
        }
        let entry = CacheEntry { version, resolution: Resolution::Negative(absence) };
        self.l1.fill(code, entry.clone(), ticket);
        self.fill_l2(code, &entry, ticket).await;
    }

    /// Writes the result of a lookup to L2.
    ///
    /// - After an invalidation it does not: Redis may have evicted the entry with the higher version that would reject
    ///   this one.
    /// - While the bus is stale it does not: the lookup may have begun before a change that was published at a master
    ///   that has been replaced since, and the new one has no entry that would reject this one. The bus voids the
    ///   tickets when it becomes live, so its state is read first.
    async fn fill_l2(&self, code: &str, entry: &CacheEntry, ticket: Ticket) {
        if self.l1.bus_is_live()
            && self.l1.is_current(ticket)
            && let Err(error) = self.l2.fill(&self.redis, code, entry).await
        {
            self.record_redis_error(&error);
        }
    }

    async fn look_up(&self, code: &str) -> Result<Arc<L1Entry>, LookupError> {
        // Another lookup may have ended between the caller's miss and the start of this one.
        if let Some(entry) = self.l1.get(code, Instant::now()) {
            return Ok(entry);
        }
        let ticket = self.l1.ticket(code);
        // While the bus is stale, L2 may lack changes that could not be published.
        if self.l1.bus_is_live() {
            match self.l2.get(&self.redis, code).await {
                Ok(Some(entry)) if self.is_credible(code, &entry).await => {
                    self.metrics.shared.add(1);
                    return Ok(self.l1.fill_from_l2(code, entry, ticket));
                }
                Ok(_) => {}
                Err(error) => self.record_redis_error(&error),
            }
        }
        self.look_up_in_database(code, ticket).await
    }

    /// Whether an entry of L2 has a version that the sequence in PostgreSQL has reached. Otherwise another program has
    /// written it, and no change by Linnet would replace it, because a lower version never replaces a higher one. Such
    /// an entry is removed. While PostgreSQL is unavailable, every entry is used, because L2 is the only source.
    async fn is_credible(&self, code: &str, entry: &CacheEntry) -> bool {
        if self.l1.has_reached(entry.version) {
            return true;
        }
        let last = tokio::time::timeout(self.database_timeout, self.store.last_version());
        let Ok(Ok(last)) = last.await else { return true };
        self.l1.record_reached(last);
        if entry.version <= last {
            return true;
        }
        tracing::error!(
            version = entry.version,
            last,
            "L2 entry with an impossible version removed"
        );
        if let Err(error) = self.l2.remove(&self.redis, code, entry.version).await {
            self.record_redis_error(&error);
        }
        false
    }

    async fn look_up_in_database(
        &self,
        code: &str,
        ticket: Ticket,
    ) -> Result<Arc<L1Entry>, LookupError> {
        self.metrics.database.add(1);
        let row = tokio::time::timeout(self.database_timeout, self.store.find_for_resolve(code));
        let entry = match row.await {
            Ok(Ok(Some(row))) => CacheEntry::from_row(&row),
            Ok(Ok(None)) => CacheEntry::NEGATIVE,
            Ok(Err(error)) => {
                log_database(&error);
                return Err(LookupError::Unavailable);
            }
            Err(_) => {
                tracing::warn!("database lookup timed out");
                return Err(LookupError::Unavailable);
            }
        };
        // L2 is written before the callers get the result, so that the next process finds the entry
        // there instead of querying PostgreSQL.
        self.fill_l2(code, &entry, ticket).await;
        Ok(self.l1.fill(code, entry, ticket))
    }

    fn record_redis_error(&self, error: &RedisUnavailable) {
        self.metrics.l2_errors.add(1);
        if let RedisUnavailable::CommandFailed(error) = error {
            tracing::warn!(%error, "L2 lookup failed; using PostgreSQL");
        }
    }
}

fn log_database(error: &StoreError) {
    match error {
        StoreError::Unavailable(source) => {
            tracing::warn!(error = %source, "database lookup failed: PostgreSQL cannot be reached");
        }
        StoreError::Locked(source) => {
            tracing::warn!(error = %source, "database lookup failed: the link is locked");
        }
        StoreError::Conflict(_) | StoreError::Failed(_) => {
            let error: &dyn std::error::Error = error;
            tracing::error!(error, "database lookup failed");
        }
    }
}
