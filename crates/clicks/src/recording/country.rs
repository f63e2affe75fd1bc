//! Countries of addresses, from a `MaxMind` database when one is configured.

use std::{
    net::IpAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use arc_swap::ArcSwapOption;
use maxminddb::{Reader, path};

/// How often the file is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// The database in use; clones share it.
#[derive(Clone, Default)]
pub struct Countries(Arc<ArcSwapOption<Reader<Vec<u8>>>>);

impl Countries {
    /// ISO 3166-1 alpha-2, or nothing.
    pub fn country(&self, address: IpAddr) -> Option<String> {
        let reader = self.0.load();
        let found = reader.as_ref()?.lookup(address).ok()?;
        let code: Option<&str> = found.decode_path(&path!["country", "iso_code"]).ok()?;
        code.map(ToOwned::to_owned)
    }

    /// Loads the file, and again whenever it changes. Never ends. A file that cannot be read leaves
    /// the last good one in use.
    pub async fn follow(self, file: PathBuf) {
        let mut loaded: Option<SystemTime> = None;
        let mut refused: Option<SystemTime> = None;
        loop {
            let changed = modified(&file).await;
            if changed.is_some() && changed != loaded && changed != refused {
                match self.load(&file).await {
                    Ok(()) => {
                        tracing::info!(file = %file.display(), "countries are known from now on");
                        loaded = changed;
                    }
                    Err(error) => {
                        tracing::error!(file = %file.display(), error, "no file of countries");
                        refused = changed;
                    }
                }
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    async fn load(&self, file: &Path) -> Result<(), String> {
        // Read, not mapped: a file that shrinks under a mapping would kill the process.
        let bytes = tokio::fs::read(file).await.map_err(|error| error.to_string())?;
        let reader = Reader::from_source(bytes).map_err(|error| error.to_string())?;
        self.0.store(Some(Arc::new(reader)));
        Ok(())
    }
}

async fn modified(file: &Path) -> Option<SystemTime> {
    tokio::fs::metadata(file).await.ok()?.modified().ok()
}
