//! Several PostgreSQL servers, of which one is the primary, and a replica for reads.
//!
//! * A process observes every host of `postgres.url` through a connection of its own. Which host is the primary, and
//!   since when, is a term ([`election`]).
//! * Each pool belongs to one term. With a new term, its users get a new pool, and what runs on the old one fails.
//! * Each new connection is verified to accept writes. A server cannot become a standby without ending its connections,
//!   so no connection of a pool ever reads from a standby.
//! * A replica is used while it is a standby of the current primary and lags behind by at most a bound
//!   ([`replica`]).
//! * With one host, no `target_session_attrs` and no replica, nothing is observed or verified.

mod connect;
mod election;
mod observer;
mod pool;
mod replica;

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Instant,
};

use linnet_telemetry::metrics::{KeyValue, Meter};
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use tokio::sync::{Notify, watch};

pub use connect::{HostFailure, NoPrimary};
pub use pool::HostPool;
pub use replica::ReplicaReads;

use crate::PostgresSettings;
use election::{Election, Observation, Term};
use replica::{Positions, ReplicaRole};

/// The hosts of `postgres.url` and `postgres.replica_url`. Clones share the observations.
#[derive(Debug, Clone)]
pub struct PostgresHosts {
    primary: Option<Arc<ObservedHosts>>,
    replica: Option<Arc<ObservedHosts>>,
}

/// Hosts that are observed, because one of them is chosen.
#[derive(Debug)]
pub(crate) struct ObservedHosts {
    names: Vec<String>,
    role: Role,
    election: Mutex<Election>,
    terms: watch::Sender<Option<Term>>,
    /// Whether each host has responded to the last attempt to observe it.
    responds: Vec<AtomicBool>,
    /// Whether it was logged that a host does not respond.
    is_silence_logged: Vec<AtomicBool>,
    /// Positions in the WAL of the current primary, for the lag of a replica.
    positions: Mutex<Positions>,
    /// Observes all hosts at once instead of at the next interval.
    hurry: Notify,
}

/// The use of the chosen host.
#[derive(Debug)]
pub(crate) enum Role {
    /// It accepts writes.
    Primary,
    /// It is a standby that lags behind this primary by at most a bound.
    Replica(ReplicaRole),
}

impl PostgresHosts {
    /// The hosts of these settings, and the task that observes them. With one host and no replica, the task has nothing
    /// to do and does not end.
    ///
    /// # Errors
    /// A URL is invalid, or the CA file cannot be read.
    pub fn new(
        settings: &PostgresSettings,
    ) -> Result<(Self, impl Future<Output = ()> + Send + use<>), sqlx::Error> {
        let options = settings.connect_options()?;
        let replica_options = settings.replica_options()?;
        let is_observed = settings.follows_primary() || replica_options.is_some();
        let primary = is_observed.then(|| Arc::new(ObservedHosts::new(Role::Primary, &options)));
        let replica = primary.as_ref().zip(replica_options.as_ref()).map(|(primary, options)| {
            let role = ReplicaRole::new(Arc::clone(primary), settings.replica_max_lag());
            Arc::new(ObservedHosts::new(Role::Replica(role), std::slice::from_ref(options)))
        });
        let hosts = Self { primary, replica };
        let observed = hosts.clone();
        let task = async move {
            let Some(primary) = observed.primary else { return std::future::pending().await };
            let observe_primary = observer::observe_all(&primary, &options);
            match observed.replica.zip(replica_options) {
                Some((replica, options)) => {
                    let options = [options];
                    let observe_replica = observer::observe_all(&replica, &options);
                    futures::join!(observe_primary, observe_replica);
                }
                None => observe_primary.await,
            }
        };
        Ok((hosts, task))
    }

    /// A pool of connections to the primary, which connects on first use. `connect` has the options of each host, in
    /// the order of the URL.
    pub fn pool(&self, options: PgPoolOptions, connect: Vec<PgConnectOptions>) -> HostPool {
        match &self.primary {
            Some(hosts) => HostPool::following(options, connect, Arc::clone(hosts)),
            None => {
                let only = connect.into_iter().next().unwrap_or_default();
                HostPool::Fixed(options.connect_lazy_with(only))
            }
        }
    }

    /// The same for the replica, if there is one.
    pub fn replica_reads(
        &self,
        options: PgPoolOptions,
        connect: PgConnectOptions,
    ) -> Option<ReplicaReads> {
        let hosts = self.replica.as_ref()?;
        let pool = HostPool::following(options, vec![connect], Arc::clone(hosts));
        Some(ReplicaReads::new(pool, Arc::clone(hosts)))
    }

    /// Registers the metrics of the hosts. Call it once. A process with one host and no replica has none.
    pub fn register(&self, meter: &Meter) {
        let Some(primary) = &self.primary else { return };
        let (primary, replica) = (Arc::clone(primary), self.replica.clone());
        meter
            .u64_observable_gauge("linnet_db_host_up")
            .with_description("Whether a host of PostgreSQL responds, as 0 or 1, by host and role.")
            .with_callback(move |observer| {
                for hosts in std::iter::once(&primary).chain(&replica) {
                    hosts.report_hosts(|host, role, is_up| {
                        let host = KeyValue::new("host", host.to_owned());
                        observer.observe(u64::from(is_up), &[host, KeyValue::new("role", role)]);
                    });
                }
            })
            .build();
        if let Some(replica) = &self.replica {
            replica::register(replica, meter);
        }
    }
}

impl ObservedHosts {
    fn new(role: Role, options: &[PgConnectOptions]) -> Self {
        Self {
            names: options.iter().map(name_of).collect(),
            role,
            election: Mutex::new(Election::new(options.len())),
            terms: watch::Sender::new(None),
            responds: options.iter().map(|_| AtomicBool::new(false)).collect(),
            is_silence_logged: options.iter().map(|_| AtomicBool::new(false)).collect(),
            positions: Mutex::default(),
            hurry: Notify::new(),
        }
    }

    /// The current term, and later ones.
    pub(crate) fn terms(&self) -> watch::Receiver<Option<Term>> {
        self.terms.subscribe()
    }

    pub(crate) fn role(&self) -> &Role {
        &self.role
    }

    /// A host turned out to have another role. Observes all hosts at once.
    pub(crate) fn suspect(&self) {
        self.hurry.notify_waiters();
    }

    fn report_hosts(&self, mut report: impl FnMut(&str, &'static str, bool)) {
        let chosen = self.terms.borrow().map(|term| term.host);
        for (host, (name, responds)) in self.names.iter().zip(&self.responds).enumerate() {
            let role = match &self.role {
                Role::Replica(_) => "replica",
                Role::Primary if chosen == Some(host) => "primary",
                Role::Primary => "standby",
            };
            report(name, role, responds.load(Ordering::Relaxed));
        }
    }

    /// Takes an observation of a host; `Err` has the reason why it did not respond.
    fn observe(&self, host: usize, observed: Result<Observation, &sqlx::Error>) {
        let now = Instant::now();
        self.log_response(host, observed.as_ref().err().copied());
        let candidate = match &self.role {
            Role::Primary => observed.ok(),
            Role::Replica(role) => Some(role.candidate(observed.ok(), now)),
        };
        let term = lock(&self.election).observe(host, candidate, now);
        self.begin_term(host, term);
        if let (Role::Primary, Some(term), Ok(observation)) = (&self.role, term, observed)
            && term.host == host
        {
            lock(&self.positions).add(term.number, now, observation.position);
        }
    }

    fn log_response(&self, host: usize, error: Option<&sqlx::Error>) {
        let name = self.names.get(host).map_or("", String::as_str);
        if let Some(responds) = self.responds.get(host) {
            responds.store(error.is_none(), Ordering::Relaxed);
        }
        let Some(is_logged) = self.is_silence_logged.get(host) else { return };
        match (is_logged.swap(error.is_some(), Ordering::Relaxed), error) {
            (false, Some(error)) => {
                let error: &dyn std::error::Error = error;
                tracing::warn!(host = name, error, "PostgreSQL host does not respond");
            }
            (true, None) => tracing::info!(host = name, "PostgreSQL host responds again"),
            _ => {}
        }
    }

    fn begin_term(&self, host: usize, term: Option<Term>) {
        let name = |host: usize| self.names.get(host).map_or("", String::as_str);
        self.terms.send_if_modified(|current| {
            if *current == term {
                return false;
            }
            match (&self.role, term) {
                (Role::Primary, Some(term)) => {
                    let timeline = term.timeline;
                    tracing::info!(host = name(term.host), timeline, "PostgreSQL primary found");
                }
                (Role::Primary, None) => {
                    tracing::warn!(host = name(host), "PostgreSQL primary refuses writes");
                }
                (Role::Replica(_), Some(_)) => {
                    tracing::info!(host = name(host), "PostgreSQL replica is used");
                }
                (Role::Replica(_), None) => {
                    tracing::warn!(host = name(host), "PostgreSQL replica is not used");
                }
            }
            *current = term;
            true
        });
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The name of a host in logs, metrics and errors.
pub(crate) fn name_of(options: &PgConnectOptions) -> String {
    match options.get_socket() {
        Some(folder) => folder.display().to_string(),
        None => format!("{}:{}", options.get_host(), options.get_port()),
    }
}
