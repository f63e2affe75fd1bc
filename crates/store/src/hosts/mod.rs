//! Several PostgreSQL servers, of which one is the primary.
//!
//! * A process observes every host of `postgres.url` through a connection of its own. Which host is the primary, and
//!   since when, is a term ([`election`]).
//! * Each pool belongs to one term. With a new term, its users get a new pool, and what runs on the old one fails.
//! * Each new connection is verified to accept writes. A server cannot become a standby without ending its connections,
//!   so no connection of a pool ever reads from a standby.
//! * With one host and no `target_session_attrs`, nothing is observed or verified.

mod connect;
mod election;
mod observer;
mod url;

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

use linnet_telemetry::metrics::{KeyValue, Meter};
use sqlx::postgres::PgConnectOptions;
use tokio::sync::{Notify, watch};

pub(crate) use connect::verify_accepts_writes;
pub use connect::{HostFailure, NoPrimary};
pub(crate) use election::Term;
pub(crate) use url::{HostUrls, split};

use super::{PostgresSettings, StoreError};
use election::{Election, Observation};

/// The hosts of `postgres.url`. Clones share the observations.
#[derive(Debug, Clone)]
pub struct PostgresHosts {
    observed: Option<Arc<ObservedHosts>>,
}

/// Several hosts, or one of which a primary is required.
#[derive(Debug)]
pub(crate) struct ObservedHosts {
    names: Vec<String>,
    election: Mutex<Election>,
    terms: watch::Sender<Option<Term>>,
    /// Observes all hosts at once instead of at the next interval.
    hurry: Notify,
}

impl PostgresHosts {
    /// The hosts of these settings, and the task that observes them. With one host, the task has nothing to do and does
    /// not end.
    ///
    /// # Errors
    /// The URL is invalid, or its CA file cannot be read.
    pub fn new(
        settings: &PostgresSettings,
    ) -> Result<(Self, impl Future<Output = ()> + Send + use<>), StoreError> {
        let options = settings.connect_options()?;
        let observed = settings.follows_primary().then(|| {
            Arc::new(ObservedHosts {
                names: options.iter().map(name_of).collect(),
                election: Mutex::new(Election::new(options.len())),
                terms: watch::Sender::new(None),
                hurry: Notify::new(),
            })
        });
        let hosts = Self { observed };
        let task = {
            let observed = hosts.observed.clone();
            async move {
                match observed {
                    Some(hosts) => observer::observe_all(&hosts, &options).await,
                    None => std::future::pending().await,
                }
            }
        };
        Ok((hosts, task))
    }

    pub(crate) fn observed(&self) -> Option<&Arc<ObservedHosts>> {
        self.observed.as_ref()
    }

    /// Registers the metric of the hosts. Call it once. A process with one host has none.
    pub fn register(&self, meter: &Meter) {
        let Some(hosts) = &self.observed else { return };
        let hosts = Arc::clone(hosts);
        meter
            .u64_observable_gauge("linnet_db_host_up")
            .with_description(
                "Whether a host of postgres.url responds, as 0 or 1, by host and role.",
            )
            .with_callback(move |observer| {
                let election = hosts.election();
                let primary = hosts.terms.borrow().map(|term| term.host);
                for (host, name) in hosts.names.iter().enumerate() {
                    let is_up = election.observed(host).is_some();
                    let role = if primary == Some(host) { "primary" } else { "standby" };
                    let labels = [KeyValue::new("host", name.clone()), KeyValue::new("role", role)];
                    observer.observe(u64::from(is_up), &labels);
                }
            })
            .build();
    }
}

impl ObservedHosts {
    /// The current term, and later ones.
    pub(crate) fn terms(&self) -> watch::Receiver<Option<Term>> {
        self.terms.subscribe()
    }

    /// A host turned out not to accept writes. Observes all hosts at once.
    pub(crate) fn suspect(&self) {
        self.hurry.notify_waiters();
    }

    fn election(&self) -> std::sync::MutexGuard<'_, Election> {
        self.election.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes an observation of a host; `Err` says why it did not respond.
    fn observe(&self, host: usize, observation: Result<Observation, &sqlx::Error>) {
        let name = self.names.get(host).map_or("", String::as_str);
        let (before, term) = {
            let mut election = self.election();
            let before = election.observed(host);
            (before, election.observe(host, observation.ok(), Instant::now()))
        };
        match (before, observation) {
            (Some(_), Err(error)) => {
                let error: &dyn std::error::Error = error;
                tracing::warn!(host = name, error, "PostgreSQL host does not respond");
            }
            (None, Ok(observation)) => {
                let accepts_writes = observation.accepts_writes;
                tracing::info!(host = name, accepts_writes, "PostgreSQL host responds");
            }
            _ => {}
        }
        self.terms.send_if_modified(|current| {
            if *current == term {
                return false;
            }
            match term {
                Some(term) => {
                    let primary = self.names.get(term.host).map_or("", String::as_str);
                    let timeline = term.timeline;
                    tracing::info!(host = primary, timeline, "PostgreSQL primary found");
                }
                None => tracing::warn!(host = name, "PostgreSQL primary refuses writes"),
            }
            *current = term;
            true
        });
    }
}

/// The name of a host in logs, metrics and errors.
pub(crate) fn name_of(options: &PgConnectOptions) -> String {
    match options.get_socket() {
        Some(folder) => folder.display().to_string(),
        None => format!("{}:{}", options.get_host(), options.get_port()),
    }
}
