//! The choice of sentinels in a stack's configuration.

use super::Builder;

impl Builder {
    /// Starts two replicas of Redis and three sentinels, which name the master to every process. Proxies are then between
    /// the processes and the sentinels, three for each process.
    #[must_use]
    pub fn sentinels(mut self) -> Self {
        self.sentinels = true;
        self
    }
}
