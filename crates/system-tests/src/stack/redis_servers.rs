//! The choice of several Redis servers in a stack's configuration.

use super::{Builder, layout::RedisServers};

impl Builder {
    /// Starts two replicas of Redis and three sentinels, which name the master to every process. Proxies are then between
    /// the processes and the sentinels, three for each process.
    #[must_use]
    pub fn sentinels(mut self) -> Self {
        self.redis = RedisServers::Sentinels;
        self
    }

    /// Starts a Redis Cluster of three masters with a replica each, and names all nodes to every process.
    #[must_use]
    pub fn redis_cluster(mut self) -> Self {
        self.redis = RedisServers::Cluster;
        self
    }
}
