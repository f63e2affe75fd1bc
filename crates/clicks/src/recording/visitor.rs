//! Telling visitors apart without knowing them.
//!
//! A visitor is 64 bits of SHA-256 over a key, the address and the user agent. The key is random, is
//! the same for all processes, changes with the UTC day, and is deleted a day later; from then on
//! nobody can find out which address a hash came from by trying all of them. Two visitors share a
//! hash with a probability of 1 in 10⁷ among a million.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, RwLock},
    time::Duration,
};

use chrono::{DateTime, Days, NaiveDate, Utc};
use linnet_platform::{clock::Clock, redis_client::jittered};
use sha2::{Digest, Sha256};

use linnet_store::Store;

/// A day's key.
type Key = [u8; 16];

const LOOK_EVERY: Duration = Duration::from_mins(10);
const RETRY_EVERY: Duration = Duration::from_secs(2);

/// The keys that this process knows; clones share them.
#[derive(Clone, Default)]
pub struct VisitorKeys(Arc<RwLock<HashMap<NaiveDate, Key>>>);

impl VisitorKeys {
    /// The visitor's hash on the day of `at`.
    pub fn visitor(&self, at: DateTime<Utc>, client: IpAddr, agent: &[u8]) -> u64 {
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

    /// The day's key. One that the database has not given yet is made up: visitors of that day may
    /// then be counted once for each process.
    fn key(&self, day: NaiveDate) -> Key {
        let known = self.0.read().ok().and_then(|keys| keys.get(&day).copied());
        known.unwrap_or_else(|| {
            let made = rand::random();
            match self.0.write() {
                Ok(mut keys) => *keys.entry(day).or_insert(made),
                Err(_) => made,
            }
        })
    }

    fn replace(&self, known: &[(NaiveDate, Key)]) {
        if let Ok(mut keys) = self.0.write() {
            *keys = known.iter().copied().collect();
        }
    }
}

/// Fetches the keys of yesterday, today and tomorrow, again and again; the first process of a day
/// makes tomorrow's. Never ends.
pub async fn keep_visitor_keys(keys: VisitorKeys, store: Store, clock: Clock) {
    let mut failing = false;
    loop {
        let today = clock.now().date_naive();
        let around = [today - Days::new(1), today, today + Days::new(1)];
        let made = around.map(|day| (day, rand::random()));
        match store.visitor_keys(&made).await {
            Ok(known) => {
                keys.replace(&known);
                failing = false;
                tokio::time::sleep(jittered(LOOK_EVERY)).await;
            }
            Err(error) => {
                if !failing {
                    tracing::warn!(%error, "the visitors' keys cannot be fetched: trying on");
                    failing = true;
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
    fn a_visitor_is_the_same_on_one_day_and_another_on_the_next() {
        let keys = VisitorKeys::default();
        let today: DateTime<Utc> = "2026-11-21T23:59:59Z".parse().unwrap();
        let later = today + Duration::from_secs(1);
        let client: IpAddr = "192.0.2.1".parse().unwrap();
        let one = keys.visitor(today, client, b"agent");
        assert_eq!(keys.visitor(today, client, b"agent"), one);
        assert_ne!(keys.visitor(later, client, b"agent"), one);
        assert_ne!(keys.visitor(today, client, b"another"), one);
        assert_ne!(keys.visitor(today, "192.0.2.2".parse().unwrap(), b"agent"), one);
        assert_ne!(VisitorKeys::default().visitor(today, client, b"agent"), one, "the key matters");
    }
}
