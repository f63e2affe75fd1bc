//! The dependencies of maintenance tasks.

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
    /// Determines the age of files.
    pub clock: Clock,
}
