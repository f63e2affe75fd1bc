//! Distinguishes visitors without storing their addresses.
//!
//! - A visitor is 64 bits of SHA-256 over a key, the address and the user agent. Among a million visitors, two share a hash
//!   with a probability of 1 in 10⁷.
//! - The key is random, common to all processes, and changes with the UTC day. It is deleted a day later; from then on, no
//!   search over all addresses can reverse a hash.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, RwLock},
    time::Duration,
};

use chrono::{DateTime, Days, NaiveDate, Utc};
use linnet_platform::{backoff::jittered, clock::Clock};
use sha2::{Digest, Sha256};

use linnet_store::Store;

/// The key of a day's visitor hashes.
type VisitorKey = [u8; 16];

const REFRESH_EVERY: Duration = Duration::from_mins(10);
const RETRY_EVERY: Duration = Duration::from_secs(2);

/// The keys that this process has; clones share them.
#[derive(Clone, Default)]
pub(super) struct VisitorKeys(Arc<RwLock<HashMap<NaiveDate, VisitorKey>>>);

impl VisitorKeys {
    /// The visitor's hash on the day of `at`.
    pub(super) fn visitor_hash(&self, at: DateTime<Utc>, client: IpAddr, agent: &[u8]) -> u64 {
        let key = self.key(at.date_naive());
        let mut hash = Sha256::new();
        hash.update(key);
        match client {
            IpAddr::V4(v4) => hash.update(v4.octets()),
            IpAddr::V6(v6) => hash.update(v6.octets()),
        }
        hash.update(agent);
        let digest = hash.finalize();
        digest.first_chunk().map_or(0, |first| u64::from_le_bytes(*first))
    }

    /// The day's key. Until the database returns it, the process uses a random key of its own, so a visitor may be counted
    /// once for each process.
    fn key(&self, day: NaiveDate) -> VisitorKey {
        let known = self.0.read().ok().and_then(|keys| keys.get(&day).copied());
        known.unwrap_or_else(|| {
            let generated = rand::random();
            match self.0.write() {
                Ok(mut keys) => *keys.entry(day).or_insert(generated),
                Err(_) => generated,
            }
        })
    }

    fn replace(&self, fetched: &[(NaiveDate, VisitorKey)]) {
        if let Ok(mut keys) = self.0.write() {
            *keys = fetched.iter().copied().collect();
        }
    }
}

/// Fetches the keys of yesterday, today and tomorrow periodically, and creates missing ones. Never returns.
pub(super) async fn refresh_visitor_keys(keys: VisitorKeys, store: Store, clock: Clock) {
    let mut is_failing = false;
    loop {
        let today = clock.now().date_naive();
        let days = [today - Days::new(1), today, today + Days::new(1)];
        let generated = days.map(|day| (day, rand::random()));
        match store.ensure_visitor_keys(&generated).await {
            Ok(fetched) => {
                keys.replace(&fetched);
                is_failing = false;
                tokio::time::sleep(jittered(REFRESH_EVERY)).await;
            }
            Err(error) => {
                if !is_failing {
                    tracing::warn!(%error, "visitor keys not fetched; retrying");
                    is_failing = true;
                }
                tokio::time::sleep(jittered(RETRY_EVERY)).await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn visitor_hash_depends_on_day_key_address_and_user_agent() {
        let keys = VisitorKeys::default();
        let today: DateTime<Utc> = "2026-11-21T23:59:59Z".parse().unwrap();
        let tomorrow = today + Duration::from_secs(1);
        let client: IpAddr = "192.0.2.1".parse().unwrap();
        let other_client: IpAddr = "192.0.2.2".parse().unwrap();
        let hash = keys.visitor_hash(today, client, b"agent");
        assert_eq!(keys.visitor_hash(today, client, b"agent"), hash);
        assert_ne!(keys.visitor_hash(tomorrow, client, b"agent"), hash);
        assert_ne!(keys.visitor_hash(today, client, b"another"), hash);
        assert_ne!(keys.visitor_hash(today, other_client, b"agent"), hash);
        assert_ne!(VisitorKeys::default().visitor_hash(today, client, b"agent"), hash);
    }
}
