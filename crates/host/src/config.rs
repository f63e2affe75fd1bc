//! `/etc/linnet/host.json`: what this server is for.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{error::HostError, files, paths};

/// The settings of the server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct HostConfig {
    /// The public name.
    pub domain: String,
    /// The address that the certificate authority notifies.
    pub email: String,
    /// The prefix of images that are pulled, such as `ghcr.io/linnet-url/linnet`.
    pub registry: String,
    /// The CA of the certificate: `production` or `staging` of Let's Encrypt, or the URL of a directory.
    pub acme_directory: String,
    /// Whether nginx terminates TLS; otherwise a proxy in front does.
    pub tls: bool,
    /// The repository of the backups, in the form of `LINNET_BACKUP_REPOSITORY`. Without one, no backup sidecar runs.
    pub backup: Option<String>,
    /// The folder of a second disk, for the repository `file:///repository`.
    pub backup_disk: Option<String>,
    /// Profiles of Compose, such as `monitoring`.
    pub profiles: Vec<String>,
    /// The shortest duration of a canary step, in seconds.
    pub bake_seconds: u64,
    /// The longest duration of a canary step, in seconds. Without enough requests by then, synthetic ones decide.
    pub longest_bake_seconds: u64,
    /// How long the old color keeps running, in seconds.
    pub warm_seconds: u64,
    /// Memory that stays free beside a second color, in MiB.
    pub memory_reserve_mib: u64,
    /// Disk space that stays free, in MiB.
    pub disk_reserve_mib: u64,
    /// Settings of a newer release, which an older one must be able to ignore after a rollback. `check` reports them.
    #[serde(flatten)]
    pub unknown: BTreeMap<String, Value>,
}

impl Default for HostConfig {
    fn default() -> Self {
        Self {
            domain: "localhost".to_owned(),
            email: String::new(),
            registry: "ghcr.io/linnet-url/linnet".to_owned(),
            acme_directory: "production".to_owned(),
            tls: true,
            backup: None,
            backup_disk: None,
            profiles: Vec::new(),
            bake_seconds: 20,
            longest_bake_seconds: 60,
            warm_seconds: 600,
            memory_reserve_mib: 96,
            disk_reserve_mib: 1024,
            unknown: BTreeMap::new(),
        }
    }
}

impl HostConfig {
    /// Reads the file.
    pub fn read() -> Result<Self, HostError> {
        let text = files::read(paths::CONFIG)?.ok_or(HostError::NotPrepared)?;
        Self::parse(&text)
    }

    fn parse(text: &str) -> Result<Self, HostError> {
        serde_json::from_str(text).map_err(|error| HostError::Settings(paths::CONFIG.into(), error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn typing_error_is_named_by_its_line() {
        let texts = [
            "{\n  \"acme_directory\": \"staging\"\n  \"domain\": \"go.example.com\"\n}",
            "{\n  \"tls\": true,\n  \"warm_seconds\": \"600\"\n}",
        ];
        for text in texts {
            let error = HostConfig::parse(text).unwrap_err();
            let message = error.to_string();
            assert!(
                message.contains("host.json is not valid") && message.contains("line 3"),
                "{message}"
            );
            assert_eq!(error.exit_code(), 69);
        }
    }

    #[test]
    fn settings_of_a_newer_release_are_kept_apart() {
        let text =
            r#"{"domain": "go.example.com", "tls": false, "profiles": ["monitoring"], "later": 3}"#;
        let config: HostConfig = serde_json::from_str(text).unwrap();
        assert_eq!(
            (config.domain.as_str(), config.tls, config.warm_seconds),
            ("go.example.com", false, 600)
        );
        assert_eq!(config.unknown.keys().collect::<Vec<_>>(), ["later"]);
    }
}
