//! Settings of both programs.

use std::collections::BTreeMap;

use linnet_platform::settings::{Settings, SettingsError, load_from};
use linnet_shortener::release::WORKER;

use crate::memory::bounded;

/// A secret that no message may contain.
const SECRET: &str = "s3cr3t-s3cr3t-s3cr3t-s3cr3t-s3cr3t";

/// The settings that are secret.
const SECRETS: [&str; 3] = ["SERVICE__TOKEN", "REDIS__URL", "POSTGRES__URL"];

/// Lines of `SECTION__KEY=value`, as in the environment: each problem names its key, no message contains a secret, and
/// accepted settings can be used. `{}` in a secret value stands for the secret.
pub(super) fn settings(input: &[u8]) {
    let Ok(lines) = std::str::from_utf8(input) else { return };
    let variable = |line: &str| {
        let (key, value) = line.split_once('=')?;
        // The content of a file is not part of the input.
        let is_file = key.to_ascii_uppercase().ends_with("_FILE");
        let is_secret = SECRETS.iter().any(|secret| key.eq_ignore_ascii_case(secret));
        let value = value.replace("{}", if is_secret { SECRET } else { "" });
        (!is_file && !value.contains('\0')).then(|| (format!("LINNET__{key}"), value))
    };
    let mut environment: BTreeMap<String, String> =
        lines.split('\n').filter_map(variable).collect();
    environment.entry("LINNET__SERVICE__TOKEN".to_owned()).or_insert_with(|| SECRET.to_owned());
    if let Ok(settings) = checked::<linnet_shortener::config::Settings>(&environment) {
        assert!(settings.server_threads() >= 1);
        settings.target_policy().expect("a valid policy");
        settings.worker_config(WORKER).expect("valid settings of a worker");
        drop((settings.shortener.body_budget(), settings.maintenance()));
    }
    drop(checked::<linnet_gateway::config::Settings>(&environment));
}

fn checked<T: Settings + std::fmt::Debug>(
    environment: &BTreeMap<String, String>,
) -> Result<T, SettingsError> {
    let result = bounded(&[], 1024 * 1024, 0, || load_from::<T>(None, environment));
    match &result {
        Ok(settings) => {
            assert!(!format!("{settings:?}").contains(SECRET));
            let printed = serde_json::to_string(settings).expect("JSON");
            assert!(!printed.contains(SECRET), "{printed}");
        }
        Err(error) => {
            let message = error.to_string();
            assert!(error.keys().count() > 0 && !message.contains(SECRET), "{message}");
            for key in error.keys() {
                assert!(message.contains(key), "{message}");
            }
        }
    }
    result
}
