//! The settings section `telemetry`.

use std::path::PathBuf;

use linnet_tls::CaFile;
use serde::{Deserialize, Serialize};
use tracing_subscriber::{EnvFilter, filter::LevelFilter};

/// The OpenTelemetry specification's variable for the collector's address.
pub const OTLP_ENDPOINT_VARIABLE: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";

/// The OpenTelemetry specification's variable for the collector's CA file.
pub const OTLP_CERTIFICATE_VARIABLE: &str = "OTEL_EXPORTER_OTLP_CERTIFICATE";

/// The format of log lines.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// One JSON object per line, for a log shipper.
    #[default]
    Json,
    /// Plain text, for a terminal.
    Text,
}

/// Settings of logs and traces.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct TelemetrySettings {
    /// A filter such as `info` or `info,sqlx=warn`.
    pub log_level: String,
    /// The format of log lines.
    pub log_format: LogFormat,
    /// One in this many successful redirects is logged; 0 logs none. Errors are always logged.
    pub redirect_log_sample: u32,
    /// Queries in one request above which a warning is logged; 0 disables the warning.
    pub query_warn_count: u32,
    /// Whether the product's metrics are recorded. If not, `/metrics` has those of the process only.
    pub metrics: bool,
    /// Base address of an OTLP/HTTP collector, `http://` or `https://`. The default is `OTEL_EXPORTER_OTLP_ENDPOINT`.
    /// If neither is set, no spans are created.
    pub otlp_endpoint: Option<String>,
    /// The CAs to trust with `https://`, in PEM format. The default is `OTEL_EXPORTER_OTLP_CERTIFICATE`, else the
    /// public CAs that browsers trust.
    pub otlp_ca_file: Option<PathBuf>,
}

impl Default for TelemetrySettings {
    fn default() -> Self {
        Self {
            log_level: "info".to_owned(),
            log_format: LogFormat::default(),
            redirect_log_sample: 1000,
            query_warn_count: 20,
            metrics: true,
            otlp_endpoint: None,
            otlp_ca_file: None,
        }
    }
}

impl TelemetrySettings {
    /// Every problem as (key within the section, message); empty when the section is valid.
    pub fn validate(&self) -> Vec<(&'static str, String)> {
        let mut problems = Vec::new();
        if let Err(message) = parse_filter(&self.log_level) {
            problems.push(("log_level", message));
        }
        if let Some(endpoint) = self.effective_otlp_endpoint()
            && let Err(message) = check_endpoint(&endpoint)
        {
            problems.push(("otlp_endpoint", message));
        }
        self.check_ca_file(&mut problems);
        problems
    }

    /// Whether spans are exported.
    pub fn exports_spans(&self) -> bool {
        self.effective_otlp_endpoint().is_some()
    }

    fn check_ca_file(&self, problems: &mut Vec<(&'static str, String)>) {
        let Some(path) = self.effective_otlp_ca_file() else { return };
        if self.effective_otlp_endpoint().is_some_and(|endpoint| !endpoint.starts_with("https:")) {
            let message = "must be empty unless otlp_endpoint begins with https://";
            problems.push(("otlp_ca_file", message.to_owned()));
        }
        if let Err(error) = CaFile::read(&path) {
            problems.push(("otlp_ca_file", error.to_string()));
        }
    }

    /// The CA file for the collector: the setting, or else the environment variable.
    pub fn effective_otlp_ca_file(&self) -> Option<PathBuf> {
        let path = self.otlp_ca_file.clone();
        path.or_else(|| std::env::var_os(OTLP_CERTIFICATE_VARIABLE).map(PathBuf::from))
            .filter(|path| !path.as_os_str().is_empty())
    }

    /// The collector's base address: the setting, or else the environment variable.
    pub fn effective_otlp_endpoint(&self) -> Option<String> {
        self.otlp_endpoint
            .clone()
            .or_else(|| std::env::var(OTLP_ENDPOINT_VARIABLE).ok())
            .filter(|endpoint| !endpoint.trim().is_empty())
    }
}

/// Parses a filter, more strictly than `EnvFilter`, which reads a misspelled level as the name of a target and then logs
/// nothing.
pub(crate) fn parse_filter(directives: &str) -> Result<EnvFilter, String> {
    if directives.trim().is_empty() {
        return Err("must not be empty; use `off` to log nothing".to_owned());
    }
    for directive in directives.split(',') {
        if !directive.contains('=') && directive.trim().parse::<LevelFilter>().is_err() {
            return Err(format!(
                "must be levels (error, warn, info, debug, trace, off) or target=level, not `{directive}`"
            ));
        }
    }
    EnvFilter::try_new(directives).map_err(|error| error.to_string())
}

fn check_endpoint(endpoint: &str) -> Result<(), String> {
    let uri: http::Uri = endpoint.parse().map_err(|error| format!("must be a URL: {error}"))?;
    let has_scheme = matches!(uri.scheme_str(), Some("http" | "https"));
    if !has_scheme || uri.host().is_none_or(str::is_empty) {
        return Err("must be http://host:port or https://host:port".to_owned());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(settings: &TelemetrySettings) -> Vec<&'static str> {
        settings.validate().into_iter().map(|(key, _)| key).collect()
    }

    #[test]
    fn every_problem_is_reported_at_once() {
        let settings = TelemetrySettings {
            log_level: "infoo".to_owned(),
            otlp_endpoint: Some("grpc://collector:4317".to_owned()),
            otlp_ca_file: Some("/nonexistent/ca.pem".into()),
            ..TelemetrySettings::default()
        };
        assert_eq!(keys(&settings), ["log_level", "otlp_endpoint", "otlp_ca_file", "otlp_ca_file"]);
    }

    #[test]
    fn a_ca_file_needs_an_encrypted_endpoint() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let pem = rcgen::generate_simple_self_signed(["collector".to_owned()]).unwrap().cert.pem();
        std::fs::write(file.path(), pem).unwrap();
        let mut settings = TelemetrySettings {
            otlp_endpoint: Some("https://collector:4318".to_owned()),
            otlp_ca_file: Some(file.path().to_owned()),
            ..TelemetrySettings::default()
        };
        assert_eq!(keys(&settings), [] as [&str; 0]);
        settings.otlp_endpoint = Some("http://collector:4318".to_owned());
        assert_eq!(keys(&settings), ["otlp_ca_file"]);
        // Compose passes an unset variable as an empty one.
        settings.otlp_ca_file = Some("".into());
        assert_eq!(keys(&settings), [] as [&str; 0]);
    }

    #[test]
    fn the_default_and_targets_are_valid() {
        let mut settings = TelemetrySettings {
            otlp_endpoint: Some("http://127.0.0.1:4318".to_owned()),
            ..TelemetrySettings::default()
        };
        assert_eq!(keys(&settings), [] as [&str; 0]);
        settings.log_level = "warn,sqlx::query=debug".to_owned();
        assert_eq!(keys(&settings), [] as [&str; 0]);
    }

    #[test]
    fn an_unknown_key_is_rejected() {
        let parsed = serde_json::from_str::<TelemetrySettings>(r#"{"log_levle": "info"}"#);
        assert!(parsed.is_err());
    }
}
