//! The settings section `telemetry`.

use serde::{Deserialize, Serialize};
use tracing_subscriber::{EnvFilter, filter::LevelFilter};

/// The OpenTelemetry specification's variable for the collector's address.
pub const OTLP_ENDPOINT_VARIABLE: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";

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
    /// Base address of an OTLP/HTTP collector, `http://` only: for TLS, run a collector beside the process. The default is
    /// `OTEL_EXPORTER_OTLP_ENDPOINT`; without either no spans are created.
    pub otlp_endpoint: Option<String>,
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
        problems
    }

    /// Whether spans are exported.
    pub fn exports_spans(&self) -> bool {
        self.effective_otlp_endpoint().is_some()
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
    if uri.scheme_str() != Some("http") || uri.host().is_none_or(str::is_empty) {
        return Err("must be http://host:port".to_owned());
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
            otlp_endpoint: Some("https://collector:4318".to_owned()),
            ..TelemetrySettings::default()
        };
        assert_eq!(keys(&settings), ["log_level", "otlp_endpoint"]);
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
