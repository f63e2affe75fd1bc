//! Who is calling.
//!
//! A key that this process has not heard of lately is asked about once, however many requests
//! carry it at that moment. The look-up is a task of its own: that the client who caused it leaves
//! does not take the answer away from the others.

mod cache;
mod credentials;
mod identity;
mod lookup;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use linnet_protocol::settings::ServiceSettings;
use secrecy::SecretString;
use tokio::sync::watch;

use crate::{metrics::Counters, upstream::UpstreamClient};

pub(crate) use cache::{KeyCache, Known};
pub(crate) use credentials::{CredentialError, PresentedKey, find};
pub(crate) use identity::Caller;
pub(crate) use lookup::LookupError;

use cache::Begun;
use credentials::KeyHash;
use lookup::Found;

/// The answer that several requests wait for.
type Outcome = Option<Result<Found, Arc<LookupError>>>;
type FlightName = (KeyHash, u64);

/// The process's knowledge of keys and the look-ups under way.
pub(crate) struct Authority {
    cache: Arc<KeyCache>,
    flights: Mutex<HashMap<FlightName, watch::Receiver<Outcome>>>,
    service: ServiceSettings,
    counters: Arc<Counters>,
}

impl Authority {
    pub(crate) fn new(
        cache: Arc<KeyCache>,
        service: ServiceSettings,
        counters: Arc<Counters>,
    ) -> Arc<Self> {
        Arc::new(Self { cache, flights: Mutex::default(), service, counters })
    }

    /// What is known about the key without asking.
    pub(crate) fn recall(&self, hash: &KeyHash) -> Option<Known> {
        let known = self.cache.get(hash);
        Counters::count(match known {
            Some(_) => &self.counters.auth_hits,
            None => &self.counters.auth_misses,
        });
        known
    }

    /// Asks about the key, or waits for the answer that another request is asking for.
    pub(crate) async fn look_up(
        self: &Arc<Self>,
        client: &UpstreamClient,
        key: PresentedKey<'_>,
        hash: KeyHash,
    ) -> Result<Known, Arc<LookupError>> {
        let mut flight = self.join(client, key, hash);
        let outcome = flight.wait_for(Option::is_some).await;
        match outcome.ok().as_deref() {
            Some(Some(Ok(found))) => Ok(found.known.clone()),
            Some(Some(Err(error))) => Err(Arc::clone(error)),
            // The worker that asked is being stopped.
            Some(None) | None => Err(Arc::new(LookupError::GivenUp)),
        }
    }

    fn join(
        self: &Arc<Self>,
        client: &UpstreamClient,
        key: PresentedKey<'_>,
        hash: KeyHash,
    ) -> watch::Receiver<Outcome> {
        let begun = self.cache.begin();
        let name = (hash, begun.epoch);
        let mut flights = self.flights();
        if let Some(flight) = flights.get(&name) {
            return flight.clone();
        }
        let (sender, receiver) = watch::channel(None);
        flights.insert(name, receiver.clone());
        drop(flights);

        Counters::count(&self.counters.auth_lookups);
        let landing = Landing { authority: Arc::clone(self), name };
        let client = client.clone();
        let key_id: Box<str> = key.id().into();
        let key = SecretString::from(key.expose());
        let traceparent = linnet_telemetry::context::traceparent();
        tokio::spawn(async move {
            let authority = &landing.authority;
            let answer =
                lookup::ask(&client, &authority.service, traceparent.as_deref(), &key).await;
            authority.remember(begun, hash, &key_id, &answer);
            sender.send_replace(Some(answer.map_err(Arc::new)));
        });
        receiver
    }

    fn remember(
        &self,
        begun: Begun,
        hash: KeyHash,
        key_id: &str,
        answer: &Result<Found, LookupError>,
    ) {
        match answer {
            Ok(found) => {
                self.cache.put(begun, hash, key_id, found.known.clone(), found.expires_in);
            }
            Err(error) => tracing::warn!(
                error = error as &dyn std::error::Error,
                "a key could not be looked up"
            ),
        }
    }

    fn flights(&self) -> MutexGuard<'_, HashMap<FlightName, watch::Receiver<Outcome>>> {
        self.flights.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Takes a flight off the list, also when its task is dropped.
struct Landing {
    authority: Arc<Authority>,
    name: FlightName,
}

impl Drop for Landing {
    fn drop(&mut self) {
        self.authority.flights().remove(&self.name);
    }
}
