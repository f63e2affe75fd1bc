//! A URL of PostgreSQL in the settings.

use std::{
    path::{Path, PathBuf},
    str::FromStr,
};

use linnet_platform::{
    postgres_url::{HostUrls, HostsError, split},
    settings::Problems,
};
use linnet_tls::CaFile;
use sqlx::postgres::{PgConnectOptions, PgSslMode};
use url::Url;

/// A URL of the settings, with the CA file for it.
pub(crate) struct ServerUrl<'a> {
    /// The key of the setting.
    pub(crate) key: &'static str,
    pub(crate) url: &'a str,
    pub(crate) ca_file: Option<&'a Path>,
}

impl ServerUrl<'_> {
    pub(crate) fn hosts(&self) -> Result<HostUrls, Vec<HostsError>> {
        split(self.url)
    }

    /// Whether the URL names one host, whatever that is. A URL with problems is reported by [`Self::validate`].
    pub(crate) fn names_one_host(&self) -> bool {
        self.hosts().map_or(true, |hosts| hosts.urls.len() == 1 && !hosts.is_primary_required)
    }

    /// Checks hosts, options and TLS.
    pub(crate) fn validate(&self, problems: &mut Problems) {
        match self.hosts() {
            Ok(HostUrls { urls, .. }) => {
                // The hosts differ only in their names and ports, which are checked.
                match urls.iter().try_for_each(|url| PgConnectOptions::from_str(url).map(drop)) {
                    Err(error) => problems.add(self.key, error.to_string()),
                    Ok(()) => self.validate_tls(problems),
                }
            }
            Err(reasons) => {
                for reason in reasons {
                    problems.add(self.key, reason.to_string());
                }
            }
        }
    }

    fn validate_tls(&self, problems: &mut Problems) {
        let mode = self.parameter(&["sslmode", "ssl-mode"]);
        problems.require(
            // sqlx never encrypts with `allow`.
            mode.as_deref() != Some("allow"),
            self.key,
            "sslmode must be disable, prefer, require, verify-ca or verify-full",
        );
        let is_verified = mode.as_deref().is_none_or(|mode| mode.starts_with("verify-"));
        problems.require(
            self.ca_file.is_none() || is_verified,
            "postgres.ca_file",
            "must be empty unless sslmode is verify-ca or verify-full, because no certificate is verified otherwise",
        );
        if let Some(Err(error)) = self.url_ca_file().as_deref().map(CaFile::read) {
            problems.add(self.key, format!("sslrootcert {error}"));
        }
        problems.require(
            self.ca_file.is_none() || self.parameter(&ROOT_CERTIFICATE).is_none(),
            "postgres.ca_file",
            &format!("must be empty if {} has sslrootcert", self.key),
        );
    }

    /// A parameter of the URL by any of its names.
    fn parameter(&self, names: &[&str]) -> Option<String> {
        let hosts = self.hosts().ok()?;
        let url = Url::parse(hosts.urls.first()?).ok()?;
        let found = url.query_pairs().filter(|(name, _)| names.contains(&name.as_ref())).last();
        found.map(|(_, value)| value.into_owned())
    }

    /// The file of `sslrootcert`. As in libpq, `system` stands for the CAs of browsers, without a file.
    fn url_ca_file(&self) -> Option<PathBuf> {
        let path = self.parameter(&ROOT_CERTIFICATE)?;
        (path != SYSTEM_ROOTS).then(|| Path::new(&path).to_owned())
    }

    /// The options of a connection to each host, from the URL and the CA file. The environment variables of libpq do
    /// not affect the TLS mode.
    pub(crate) fn connect_options(&self) -> Result<Vec<PgConnectOptions>, sqlx::Error> {
        let HostUrls { urls, .. } = self.hosts().map_err(|reasons| {
            // One reason is enough here: `validate` reports all of them.
            let reason = reasons.into_iter().next().unwrap_or(HostsError::Scheme);
            sqlx::Error::Configuration(reason.into())
        })?;
        let default_mode = match self.ca_file {
            Some(_) => PgSslMode::VerifyFull,
            None => PgSslMode::Prefer,
        };
        let has_mode = self.parameter(&["sslmode", "ssl-mode"]).is_some();
        // The file is read now, so that a later change of it does not affect this process.
        let ca_file = self.ca_file.map(Path::to_owned).or_else(|| self.url_ca_file());
        let roots = match ca_file.as_deref().map(CaFile::read).transpose() {
            Ok(roots) => roots.map(|roots| roots.pem().to_vec()).unwrap_or_default(),
            Err(error) => return Err(sqlx::Error::Configuration(error.into())),
        };
        let of_host = |url: &String| {
            let options = PgConnectOptions::from_str(url)?;
            let options = if has_mode { options } else { options.ssl_mode(default_mode) };
            Ok(options.ssl_root_cert_from_pem(roots.clone()))
        };
        urls.iter().map(of_host).collect()
    }
}

/// The names of the parameter for a CA file.
const ROOT_CERTIFICATE: [&str; 3] = ["sslrootcert", "ssl-root-cert", "ssl-ca"];
const SYSTEM_ROOTS: &str = "system";
