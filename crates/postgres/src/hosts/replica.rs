//! Reads from a replica that contain every acknowledged write.
//!
//! Before a read, the process reads the primary's position in the WAL, and waits until the replica has replayed
//! it. Every write that was acknowledged before the read began, by any process, is before this position. Positions of
//! different timelines are not comparable, so replica and primary must be on the same one.

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use linnet_telemetry::metrics::{KeyValue, Meter};
use tokio::time::{sleep, timeout};

use super::{ObservedHosts, Role, election::Observation, lock, pool::HostPool};

/// Longest wait until a replica has replayed the position of the primary. After it, the read goes to the primary.
const LONGEST_WAIT: Duration = Duration::from_millis(100);
/// Interval between two checks of the position.
const CHECK_EVERY: Duration = Duration::from_millis(3);
/// Positions that are kept, one for each observation of the primary: at least a minute.
const MOST_POSITIONS: usize = 240;

/// With `synchronous_commit=off`, a write is acknowledged before it is flushed. Otherwise the end of the flushed WAL is
/// enough, and more than that is not sent to a replica.
const POSITION: &str = "SELECT (CASE WHEN current_setting('synchronous_commit') = 'off' THEN pg_current_wal_insert_lsn()
                                     ELSE pg_current_wal_flush_lsn() END)::text";
const HAS_REPLAYED: &str =
    "SELECT pg_is_in_recovery() AND COALESCE(pg_last_wal_replay_lsn() >= $1::text::pg_lsn, false)";

/// Positions of the primary in the WAL, and when they were observed.
#[derive(Debug, Default)]
pub(crate) struct Positions {
    term: u64,
    observed: VecDeque<(Instant, i64)>,
}

impl Positions {
    pub(super) fn add(&mut self, term: u64, now: Instant, position: i64) {
        if self.term != term {
            self.term = term;
            self.observed.clear();
        }
        if self.observed.len() >= MOST_POSITIONS {
            self.observed.pop_front();
        }
        self.observed.push_back((now, position));
    }

    /// For how long the primary has been past this position.
    fn lag(&self, position: i64, now: Instant) -> Duration {
        let passed = self.observed.iter().find(|(_, observed)| *observed > position);
        passed.map_or(Duration::ZERO, |(at, _)| now.saturating_duration_since(*at))
    }
}

/// The conditions under which a standby is used for reads.
#[derive(Debug)]
pub(crate) struct ReplicaRole {
    primary: Arc<ObservedHosts>,
    max_lag: Duration,
    /// The last lag in microseconds.
    lag_us: AtomicU64,
    reads: AtomicU64,
    reads_of_primary: AtomicU64,
}

impl ReplicaRole {
    pub(super) fn new(primary: Arc<ObservedHosts>, max_lag: Duration) -> Self {
        Self {
            primary,
            max_lag,
            lag_us: AtomicU64::new(0),
            reads: AtomicU64::new(0),
            reads_of_primary: AtomicU64::new(0),
        }
    }

    /// The observation for the election, in which a host that is not usable accepts no reads. Unlike a primary, a
    /// replica that does not respond is left at once, because the primary can take its place.
    pub(super) fn candidate(&self, observed: Option<Observation>, now: Instant) -> Observation {
        let observed = observed.unwrap_or(Observation {
            accepts_writes: true,
            timeline: 0,
            position: 0,
            started_us: 0,
        });
        let lag = lock(&self.primary.positions).lag(observed.position, now);
        self.lag_us.store(u64::try_from(lag.as_micros()).unwrap_or(u64::MAX), Ordering::Relaxed);
        let timeline = self.primary.terms.borrow().map(|term| term.timeline);
        let is_usable =
            !observed.accepts_writes && timeline == Some(observed.timeline) && lag <= self.max_lag;
        Observation { accepts_writes: is_usable, ..observed }
    }
}

/// Sends reads to the replica.
#[derive(Debug)]
pub struct ReplicaReads {
    pool: HostPool,
    hosts: Arc<ObservedHosts>,
}

impl ReplicaReads {
    /// Reads through this pool of connections to the replica.
    pub(crate) fn new(pool: HostPool, hosts: Arc<ObservedHosts>) -> Self {
        Self { pool, hosts }
    }

    /// Connections to the replica, if it contains every write that the primary has acknowledged. They end with the
    /// replica's term.
    pub async fn replayed_all(&self, primary: &HostPool) -> Option<HostPool> {
        let replica = self.pool.pinned()?;
        timeout(LONGEST_WAIT, wait_until_replayed(primary, &replica)).await.ok()??;
        Some(replica)
    }

    /// Counts a read by the server that answered it.
    pub fn count(&self, is_from_replica: bool) {
        if let Role::Replica(role) = self.hosts.role() {
            let count = if is_from_replica { &role.reads } else { &role.reads_of_primary };
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Closes the connections to the replica.
    pub async fn close(&self) {
        self.pool.close().await;
    }
}

/// `None` if this is not possible, because a server fails or the two are on different timelines.
async fn wait_until_replayed(primary: &HostPool, replica: &HostPool) -> Option<()> {
    let primary = primary.pinned()?;
    if primary.timeline() != replica.timeline() {
        return None;
    }
    let position: String = sqlx::query_scalar(POSITION).fetch_one(&primary).await.ok()?;
    loop {
        let replayed = sqlx::query_scalar(HAS_REPLAYED).bind(&position).fetch_one(replica);
        if replayed.await.ok()? {
            return Some(());
        }
        sleep(CHECK_EVERY).await;
    }
}

/// Registers the metrics of the replica.
pub(super) fn register(hosts: &Arc<ObservedHosts>, meter: &Meter) {
    let (lags, reads) = (Arc::clone(hosts), Arc::clone(hosts));
    meter
        .f64_observable_gauge("linnet_db_replica_lag_seconds")
        .with_description("Time for which the primary has been past the replica's position.")
        .with_callback(move |observer| {
            if let Role::Replica(role) = lags.role() {
                let lag = Duration::from_micros(role.lag_us.load(Ordering::Relaxed));
                observer.observe(lag.as_secs_f64(), &[]);
            }
        })
        .build();
    meter
        .u64_observable_counter("linnet_db_replica_reads")
        .with_description("Reads that may use the replica, by the server that answered.")
        .with_callback(move |observer| {
            if let Role::Replica(role) = reads.role() {
                for (target, count) in
                    [("replica", &role.reads), ("primary", &role.reads_of_primary)]
                {
                    let count = count.load(Ordering::Relaxed);
                    observer.observe(count, &[KeyValue::new("target", target)]);
                }
            }
        })
        .build();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lag_is_the_time_since_the_primary_passed_the_position() {
        let (mut positions, start) = (Positions::default(), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        for (second, position) in [(0, 100), (1, 100), (2, 250), (3, 300)] {
            positions.add(1, at(second), position);
        }
        assert_eq!(positions.lag(300, at(4)), Duration::ZERO);
        assert_eq!(positions.lag(299, at(4)), Duration::from_secs(1));
        assert_eq!(positions.lag(200, at(4)), Duration::from_secs(2));
        assert_eq!(positions.lag(99, at(4)), Duration::from_secs(4));
        positions.add(2, at(5), 50);
        assert_eq!(positions.lag(99, at(6)), Duration::ZERO);
    }

    #[test]
    fn positions_are_bounded() {
        let (mut positions, now) = (Positions::default(), Instant::now());
        for position in 0..1_000 {
            positions.add(1, now, position);
        }
        assert_eq!(positions.observed.len(), MOST_POSITIONS);
    }
}
