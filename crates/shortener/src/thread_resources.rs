//! The database pools and Redis clients of all server threads, for metrics, readiness and shutdown.

use std::sync::{Arc, Mutex, MutexGuard};

use linnet_platform::{
    lock::MutexExt as _,
    redis_client::{RedisClient, RedisFault},
};
use linnet_store::Store;

/// The listener that a thread serves, or the background.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// The resolve listener.
    Resolve,
    /// The API listener.
    Api,
    /// Background tasks.
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

/// The pools and clients that were opened. Clones share the list.
#[derive(Clone, Default)]
pub(crate) struct ThreadResources(Arc<Mutex<Vec<OpenResources>>>);

struct OpenResources {
    role: Role,
    store: Store,
    redis: Option<RedisClient>,
}

impl ThreadResources {
    pub(crate) fn add(&self, role: Role, store: &Store, redis: Option<&RedisClient>) {
        self.lock().push(OpenResources { role, store: store.clone(), redis: redis.cloned() });
    }

    /// The numbers of database connections of a role: connections in use, and open connections.
    pub(crate) fn pool_use(&self, role: Role) -> (u64, u64) {
        let open = self.lock();
        let stores = open.iter().filter(|resources| resources.role == role);
        stores
            .map(|resources| resources.store.pool_use())
            .fold((0, 0), |(used, all), (u, a)| (used + u as u64, all + u64::from(a)))
    }

    /// The maximum number of database connections of a role.
    pub(crate) fn pool_limit(&self, role: Role) -> u64 {
        let open = self.lock();
        let stores = open.iter().filter(|resources| resources.role == role);
        stores.map(|resources| u64::from(resources.store.max_connections())).sum()
    }

    /// The numbers of Redis clients: connected clients, and all clients.
    pub(crate) fn redis_clients(&self) -> (usize, usize) {
        let open = self.lock();
        let clients = || open.iter().filter_map(|resources| resources.redis.as_ref());
        (clients().filter(|client| client.is_up()).count(), clients().count())
    }

    /// Why a Redis client is not connected; `None` if all are.
    pub(crate) fn redis_fault(&self) -> Option<RedisFault> {
        self.lock().iter().find_map(|resources| resources.redis.as_ref()?.fault())
    }

    /// Closes all database pools.
    pub(crate) async fn close(&self) {
        let stores: Vec<Store> =
            self.lock().iter().map(|resources| resources.store.clone()).collect();
        futures::future::join_all(stores.iter().map(Store::close)).await;
    }

    fn lock(&self) -> MutexGuard<'_, Vec<OpenResources>> {
        self.0.lock_ignoring_poison()
    }
}
