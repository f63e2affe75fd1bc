//! The settings of the process: section `acme`, and the sections that all processes share.

use std::{path::PathBuf, time::Duration};

use linnet_platform::{
    listener::Address,
    settings::{Problems, ShutdownSettings, comma_list, optional_path},
};
use linnet_telemetry::{TelemetrySettings, error_chain};
use linnet_tls::CaFile;
use serde::{Deserialize, Serialize};

use crate::names::{self, DnsName, MAX_NAMES, Names, NamesFileError};

/// Let's Encrypt's directory.
const PRODUCTION: &str = "https://acme-v02.api.letsencrypt.org/directory";
/// Its directory for trials, with high limits. Browsers do not trust its certificates.
const STAGING: &str = "https://acme-staging-v02.api.letsencrypt.org/directory";
/// Longest interval at which the names file and the schedule are read.
const LONGEST_TICK: Duration = Duration::from_mins(1);

/// All settings of `linnet-acme`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// The certificate, the CA and the files.
    pub acme: AcmeSettings,
    /// Drain and grace period.
    pub shutdown: ShutdownSettings,
    /// Logs, metrics, traces.
    pub telemetry: TelemetrySettings,
}

impl linnet_platform::settings::Settings for Settings {
    fn validate(&self, problems: &mut Problems) {
        self.acme.validate(problems);
        self.shutdown.validate(problems);
        for (key, message) in self.telemetry.validate() {
            problems.add(format!("telemetry.{key}"), message);
        }
    }
}

/// Section `acme`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AcmeSettings {
    /// Address of `/metrics`, `/livez` and `/readyz`; keep it private.
    pub admin_listen: Address,
    /// The names that the certificate is for. Using a CA's directory accepts its terms of service.
    #[serde(deserialize_with = "comma_list")]
    pub names: Vec<String>,
    /// A file with more names, one a line. It is read again every minute.
    #[serde(deserialize_with = "optional_path")]
    pub names_file: Option<PathBuf>,
    /// The CA: `production` or `staging` (Let's Encrypt), or the URL of another directory.
    pub directory: String,
    /// The CAs to trust with the directory's server, in PEM format. Without a file, the public CAs that browsers trust.
    #[serde(deserialize_with = "optional_path")]
    pub ca_file: Option<PathBuf>,
    /// An address for the CA's account; empty for none.
    pub email: String,
    /// The certificate profile, where the CA offers it; empty for the CA's default.
    pub profile: String,
    /// The folder of certificates and of the account's key.
    pub certificates: PathBuf,
    /// The folder that nginx serves as `/.well-known/acme-challenge/`'s root.
    pub challenges: PathBuf,
    /// Whether each name is requested over HTTP before an order, to detect DNS that does not point here.
    pub probe: bool,
    /// Where these requests are sent instead of port 80 of the name's address: `host:port`; empty for the name.
    pub probe_address: String,
    /// Interval of the requests for the CA's suggested renewal time, in seconds.
    pub renewal_info_s: u64,
    /// Wait after a failed order, in seconds; the next waits are 10, 100 and 1,440 times as long.
    pub retry_s: u64,
    /// Longest time of an order, in seconds.
    pub order_timeout_s: u64,
}

impl Default for AcmeSettings {
    fn default() -> Self {
        Self {
            admin_listen: Address::Tcp("127.0.0.1:9084".into()),
            names: Vec::new(),
            names_file: None,
            directory: "production".into(),
            ca_file: None,
            email: String::new(),
            profile: "tlsserver".into(),
            certificates: "/var/lib/linnet/certificates".into(),
            challenges: "/var/lib/linnet/challenges".into(),
            probe: true,
            probe_address: String::new(),
            renewal_info_s: 43_200,
            retry_s: 60,
            order_timeout_s: 300,
        }
    }
}

impl AcmeSettings {
    fn validate(&self, problems: &mut Problems) {
        for name in &self.names {
            if let Err(error) = name.parse::<DnsName>() {
                problems.add("acme.names", error.to_string());
            }
        }
        match self.wanted_names() {
            Err(error) => problems.add("acme.names_file", error_chain(&error)),
            Ok(names) if names.is_empty() => {
                problems.add("acme.names", "must have a name, or acme.names_file must");
            }
            Ok(names) => problems.require(
                names.len() <= MAX_NAMES,
                "acme.names",
                &format!("must be at most {MAX_NAMES} names, with those of acme.names_file"),
            ),
        }
        let url = self.directory_url();
        let is_https = url.parse::<http::Uri>().is_ok_and(|uri| {
            uri.scheme_str() == Some("https") && uri.host().is_some_and(|host| !host.is_empty())
        });
        let message = "must be production, staging or the https:// URL of a directory";
        problems.require(is_https, "acme.directory", message);
        if let Some(Err(error)) = self.ca_file.as_deref().map(CaFile::read) {
            problems.add("acme.ca_file", error.to_string());
        }
        let is_email = self.email.is_empty()
            || (self.email.contains('@') && self.email.bytes().all(|byte| byte.is_ascii_graphic()));
        problems.require(is_email, "acme.email", "must be an e-mail address, or empty");
        let is_word =
            self.profile.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b));
        problems.require(is_word, "acme.profile", "must be letters, digits, `-`, `_` and `.`");
        for (key, path) in
            [("acme.certificates", &self.certificates), ("acme.challenges", &self.challenges)]
        {
            problems.require(path.is_absolute(), key, "must be an absolute path");
        }
        let is_tcp = self.probe_address.is_empty()
            || matches!(self.probe_address.parse(), Ok(Address::Tcp(_)));
        problems.require(is_tcp, "acme.probe_address", "must be host:port, or empty");
        problems.require_within("acme.renewal_info_s", self.renewal_info_s, 1..=86_400);
        problems.require_within("acme.retry_s", self.retry_s, 1..=3_600);
        problems.require_within("acme.order_timeout_s", self.order_timeout_s, 10..=3_600);
    }

    /// The names of the setting and of the file.
    pub(crate) fn wanted_names(&self) -> Result<Names, NamesFileError> {
        let mut all = match &self.names_file {
            Some(path) => names::read_file(path)?,
            None => Names::new(),
        };
        // Validation has reported the others.
        all.extend(self.names.iter().filter_map(|name| name.parse().ok()));
        Ok(all)
    }

    /// The URL of the directory.
    pub(crate) fn directory_url(&self) -> &str {
        match self.directory.as_str() {
            "production" => PRODUCTION,
            "staging" => STAGING,
            url => url,
        }
    }

    /// Whether browsers cannot trust the directory's certificates.
    pub(crate) fn is_staging(&self) -> bool {
        self.directory_url() == STAGING
    }

    /// [`Self::retry_s`] as a duration.
    pub(crate) fn retry(&self) -> Duration {
        Duration::from_secs(self.retry_s)
    }

    /// [`Self::renewal_info_s`] as a duration.
    pub(crate) fn renewal_info(&self) -> Duration {
        Duration::from_secs(self.renewal_info_s)
    }

    /// [`Self::order_timeout_s`] as a duration.
    pub(crate) fn order_timeout(&self) -> Duration {
        Duration::from_secs(self.order_timeout_s)
    }

    /// The interval at which the names and the schedule are read again.
    pub(crate) fn tick(&self) -> Duration {
        self.retry().min(self.renewal_info()).min(LONGEST_TICK)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use linnet_platform::settings::load_from;

    use super::*;

    fn load(pairs: &[(&str, &str)]) -> Result<Settings, Vec<String>> {
        let env: BTreeMap<String, String> =
            pairs.iter().map(|(k, v)| (format!("LINNET__{k}"), (*v).to_owned())).collect();
        load_from(None, &env).map_err(|error| error.keys().map(str::to_owned).collect())
    }

    #[test]
    fn a_name_is_all_that_is_required() {
        let settings = load(&[("ACME__NAMES", "go.example.com, www.example.com")]).unwrap();
        assert_eq!(settings.acme.wanted_names().unwrap().len(), 2);
        assert_eq!(settings.acme.directory_url(), PRODUCTION);
        assert_eq!(settings.acme.tick(), LONGEST_TICK);
        assert_eq!(load(&[]).unwrap_err(), ["acme.names"]);
    }

    #[test]
    fn every_problem_is_reported_at_once() {
        let keys = load(&[
            ("ACME__ADMIN_LISTEN", "nowhere"),
            ("ACME__NAMES", "*.example.com"),
            ("ACME__DIRECTORY", "http://ca.example/directory"),
            ("ACME__CA_FILE", "/nonexistent/ca.pem"),
            ("ACME__EMAIL", "no address"),
            ("ACME__PROFILE", "a b"),
            ("ACME__CERTIFICATES", "certificates"),
            ("ACME__CHALLENGES", ""),
            ("ACME__PROBE_ADDRESS", "unix:/run/x.sock"),
            ("ACME__RENEWAL_INFO_S", "0"),
            ("ACME__RETRY_S", "0"),
            ("ACME__ORDER_TIMEOUT_S", "1"),
            ("TELEMETRY__LOG_LEVEL", "infoo"),
        ]);
        let mut keys = keys.unwrap_err();
        keys.sort_unstable();
        let expected = [
            "acme.admin_listen",
            "acme.ca_file",
            "acme.certificates",
            "acme.challenges",
            "acme.directory",
            "acme.email",
            // The name, and that no name is left.
            "acme.names",
            "acme.names",
            "acme.order_timeout_s",
            "acme.probe_address",
            "acme.profile",
            "acme.renewal_info_s",
            "acme.retry_s",
            "telemetry.log_level",
        ];
        assert_eq!(keys, expected);
    }

    #[test]
    fn more_names_than_a_certificate_can_have_are_refused() {
        let names: Vec<String> = (0..=MAX_NAMES).map(|n| format!("n{n}.example.com")).collect();
        assert_eq!(load(&[("ACME__NAMES", &names.join(","))]).unwrap_err(), ["acme.names"]);
        let fewer = names.split_last().unwrap().1.join(",");
        assert!(load(&[("ACME__NAMES", &fewer)]).is_ok());
    }

    #[test]
    fn a_names_file_adds_names_and_is_checked() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "b.example.com\n").unwrap();
        let path = file.path().to_str().unwrap();
        let settings =
            load(&[("ACME__NAMES", "a.example.com"), ("ACME__NAMES_FILE", path)]).unwrap();
        assert_eq!(
            names::listed(&settings.acme.wanted_names().unwrap()),
            "a.example.com, b.example.com"
        );
        std::fs::write(file.path(), "b example\n").unwrap();
        assert_eq!(load(&[("ACME__NAMES_FILE", path)]).unwrap_err(), ["acme.names_file"]);
    }
}
