//! Looks up the country of an address in a `MaxMind` database.

use std::{
    net::IpAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use arc_swap::ArcSwapOption;
use maxminddb::{Reader, path};

/// Time between two checks of the file.
const CHECK_EVERY: Duration = Duration::from_secs(2);

/// The loaded database; clones share it. Empty until a file is loaded.
#[derive(Clone, Default)]
pub(super) struct CountryDatabase(Arc<ArcSwapOption<Reader<Vec<u8>>>>);

impl CountryDatabase {
    /// The ISO 3166-1 alpha-2 code of an address's country.
    pub(super) fn country_of(&self, address: IpAddr) -> Option<String> {
        let reader = self.0.load();
        let found = reader.as_ref()?.lookup(address).ok()?;
        let code: Option<&str> = found.decode_path(&path!["country", "iso_code"]).ok()?;
        code.map(ToOwned::to_owned)
    }

    /// Loads the file, and reloads it whenever it changes. While the file is unreadable, the last version that loaded stays
    /// in use. Never returns.
    pub(super) async fn keep_loaded(self, file: PathBuf) {
        let mut loaded: Option<SystemTime> = None;
        let mut rejected: Option<SystemTime> = None;
        loop {
            let modified = modified_at(&file).await;
            if modified.is_some() && modified != loaded && modified != rejected {
                match self.load(&file).await {
                    Ok(()) => {
                        tracing::info!(file = %file.display(), "country file loaded");
                        loaded = modified;
                    }
                    Err(error) => {
                        tracing::error!(file = %file.display(), error, "country file unreadable");
                        rejected = modified;
                    }
                }
            }
            tokio::time::sleep(CHECK_EVERY).await;
        }
    }

    async fn load(&self, file: &Path) -> Result<(), String> {
        // Read, not mapped: truncating a mapped file would kill the process.
        let bytes = tokio::fs::read(file).await.map_err(|error| error.to_string())?;
        let reader = Reader::from_source(bytes).map_err(|error| error.to_string())?;
        self.0.store(Some(Arc::new(reader)));
        Ok(())
    }
}

async fn modified_at(file: &Path) -> Option<SystemTime> {
    tokio::fs::metadata(file).await.ok()?.modified().ok()
}
