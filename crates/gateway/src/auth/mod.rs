//! Authentication of API requests: finds the key, verifies it at a shortener, caches the result.
//!
//! Invariants:
//! - Concurrent requests with one uncached key share a single lookup.
//! - A client that disconnects does not cancel a lookup that other requests wait for.

mod cache;
mod credentials;
mod identity;
mod lease;
mod lease_verification;
mod lookup;

use std::{sync::Arc, time::Instant};

use actix_web::HttpRequest;
use linnet_platform::{clock::Clock, single_flight::SingleFlight};
use linnet_protocol::{issued_keys::IssuedKeys, settings::ServiceSettings};
use secrecy::SecretString;

use crate::{counters::Counters, upstream::UpstreamClient};

pub(crate) use cache::{KeyCache, KeyStatus};
pub(crate) use credentials::{CredentialError, PresentedKey, find_key};
pub(crate) use identity::{Caller, KeyIdentity};
pub(crate) use lease::{Lease, LeaseEnd};
pub(crate) use lease_verification::keep;
pub(crate) use lookup::LookupError;

pub(crate) use credentials::KeyHash;
use lookup::VerifiedKey;

/// Key and epoch: a request after an invalidation starts a new lookup.
type LookupId = (KeyHash, u64);
type LookupResult = Result<KeyStatus, Arc<LookupError>>;

/// Verifies API keys; one for the process.
pub(crate) struct KeyAuthenticator {
    cache: Arc<KeyCache>,
    in_flight: Arc<SingleFlight<LookupId, LookupResult>>,
    service: ServiceSettings,
    issued: IssuedKeys,
    counters: Arc<Counters>,
    clock: Clock,
}

impl KeyAuthenticator {
    /// `clock` decides whether a key has expired.
    pub(crate) fn new(
        cache: Arc<KeyCache>,
        service: ServiceSettings,
        counters: Arc<Counters>,
        clock: Clock,
    ) -> Arc<Self> {
        // Without a limit of its own: requests are bounded by `gateway.max_connections`.
        let in_flight = SingleFlight::new(usize::MAX);
        let issued = IssuedKeys::new(&service);
        Arc::new(Self { cache, in_flight, service, issued, counters, clock })
    }

    /// The key's status from the cache.
    pub(crate) fn cached(&self, hash: &KeyHash) -> Option<KeyStatus> {
        let status = self.cache.get(hash, Instant::now()).map(|cached| cached.status);
        Counters::increment(match status {
            Some(_) => &self.counters.auth_hits,
            None => &self.counters.auth_misses,
        });
        status
    }

    /// Whether the key, or stream token, may open the request's path now.
    pub(crate) fn opens(&self, key: PresentedKey<'_>, request: &HttpRequest) -> bool {
        key.opens(request, &self.service, self.clock.now())
    }

    /// Whether no stranger can have made the key: its latest lookup found it valid, it has the mark of this installation,
    /// or it is a stream token, which [`Self::opens`] has accepted.
    pub(crate) fn is_own(&self, key: PresentedKey<'_>, hash: &KeyHash) -> bool {
        self.cache.is_known_good(hash)
            || key.is_stream_token()
            || self.issued.have_issued(key.expose())
    }

    /// The status that a lookup of another request finds, or has found; `None` if there is none.
    pub(crate) async fn joined(&self, hash: &KeyHash) -> Option<KeyStatus> {
        let id = (*hash, self.cache.start_lookup(Instant::now()).epoch);
        match self.in_flight.wait_for(&id).await {
            Some(Ok(result)) => result.ok(),
            _ => self.cache.get(hash, Instant::now()).map(|cached| cached.status),
        }
    }

    /// Whether the request still has a valid key, or needed none. The key can end while the gateway waits for the body.
    pub(crate) async fn is_still_valid(
        self: &Arc<Self>,
        client: &UpstreamClient,
        request: &HttpRequest,
    ) -> Result<bool, Arc<LookupError>> {
        let Ok(Some(key)) = find_key(request.headers(), request.query_string()) else {
            return Ok(true);
        };
        let status = match self.cache.get(&key.hash(), Instant::now()) {
            Some(cached) => cached.status,
            None => self.look_up(client, key, key.hash()).await?,
        };
        Ok(matches!(status, KeyStatus::Valid(_)))
    }

    /// The key's status from a shortener. Joins an in-flight lookup of the same key.
    pub(crate) async fn look_up(
        self: &Arc<Self>,
        client: &UpstreamClient,
        key: PresentedKey<'_>,
        hash: KeyHash,
    ) -> LookupResult {
        let start = self.cache.start_lookup(Instant::now());
        let lookup = || {
            Counters::increment(&self.counters.auth_lookups);
            let (authenticator, client) = (Arc::clone(self), client.clone());
            let key_id: Box<str> = key.id().into();
            let key = SecretString::from(key.expose());
            let traceparent = linnet_telemetry::context::traceparent();
            async move {
                let Self { cache, service, clock, .. } = &*authenticator;
                match lookup::look_up(&client, service, traceparent.as_deref(), &key, *clock).await
                {
                    Ok(VerifiedKey { status, expires_in }) => {
                        cache.insert(start, hash, &key_id, status.clone(), expires_in);
                        Ok(status)
                    }
                    Err(error) => {
                        let source = &error as &dyn std::error::Error;
                        tracing::warn!(error = source, "key lookup failed");
                        Err(Arc::new(error))
                    }
                }
            }
        };
        self.in_flight
            .run((hash, start.epoch), lookup)
            .await
            .unwrap_or_else(|error| Err(Arc::new(error.into())))
    }
}
