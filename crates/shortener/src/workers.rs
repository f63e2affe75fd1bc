//! What the actix workers opened, for those who must see all of it: metrics, readiness, the stop.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use linnet_platform::redis_client::RedisClient;

use linnet_store::Store;

/// Which listener a worker serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    Resolve,
    Api,
    Background,
}

impl Role {
    pub(crate) const ALL: [Self; 3] = [Self::Resolve, Self::Api, Self::Background];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Resolve => "resolve",
            Self::Api => "api",
            Self::Background => "background",
        }
    }
}

/// The workers' pools and links; clones share the list.
#[derive(Clone, Default)]
pub(crate) struct Workers(Arc<Mutex<Vec<Worker>>>);

struct Worker {
    role: Role,
    store: Store,
    redis: Option<RedisClient>,
}

impl Workers {
    pub(crate) fn add(&self, role: Role, store: &Store, redis: Option<&RedisClient>) {
        self.lock().push(Worker { role, store: store.clone(), redis: redis.cloned() });
    }

    /// Database connections in use and in all, of one role.
    pub(crate) fn pool_use(&self, role: Role) -> (u64, u64) {
        let workers = self.lock();
        let pools = workers.iter().filter(|worker| worker.role == role);
        pools
            .map(|worker| worker.store.pool_use())
            .fold((0, 0), |(used, all), (u, a)| (used + u as u64, all + u64::from(a)))
    }

    /// Most database connections of one role.
    pub(crate) fn pool_limit(&self, role: Role) -> u64 {
        let workers = self.lock();
        let pools = workers.iter().filter(|worker| worker.role == role);
        pools.map(|worker| u64::from(worker.store.max_connections())).sum()
    }

    /// Redis links that are up, and all.
    pub(crate) fn redis_links(&self) -> (usize, usize) {
        let workers = self.lock();
        let links = || workers.iter().filter_map(|worker| worker.redis.as_ref());
        (links().filter(|link| link.is_up()).count(), links().count())
    }

    /// Closes all pools.
    pub(crate) async fn close(&self) {
        let stores: Vec<Store> = self.lock().iter().map(|worker| worker.store.clone()).collect();
        futures::future::join_all(stores.iter().map(Store::close)).await;
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Worker>> {
        // The list is whole whatever panicked while it was held.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
