//! Passes the database, settings and clock to maintenance tasks.

use linnet_platform::clock::Clock;
use linnet_store::Store;

use super::MaintenanceSettings;

/// The dependencies of maintenance tasks.
#[derive(Debug, Clone)]
pub struct MaintenanceContext {
    /// The database, with the statement timeout of a worker.
    pub store: Store,
    /// Retention times.
    pub settings: MaintenanceSettings,
    /// The clock that file ages are measured with. Rows use PostgreSQL's clock.
    pub clock: Clock,
}
