//! `linnet-acme status`: the certificate, its renewal and the last failure, for people.

use std::fmt::Write as _;

use chrono::{DateTime, Utc};

use crate::{
    in_use::InUse,
    names::listed,
    settings::AcmeSettings,
    state::{self, State},
    store::{Store, StoreError},
};

/// The text, and whether nginx serves a valid certificate with all names.
pub(crate) fn status(
    settings: &AcmeSettings,
    now: DateTime<Utc>,
) -> Result<(String, bool), StoreError> {
    let store = Store::open(&settings.certificates)?;
    let in_use = InUse::new(store.current()?, settings.directory_url());
    let state: State = store.read_private(state::FILE)?.unwrap_or_default();
    // A names file that became invalid is reported by the process.
    let wanted = settings.wanted_names().unwrap_or_default();
    let mut text = String::new();
    let mut line = |title: &str, value: &str| {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{title:<14}{value}");
    };
    let mut is_good = false;
    match &in_use.certificate {
        None if in_use.is_installed => line("certificate", "placeholder (self-signed)"),
        None => line("certificate", "none"),
        Some(certificate) => {
            let left = certificate.fraction_left(now);
            line("certificate", &format!("v-{}: {}", in_use.version, listed(&certificate.names)));
            line("issuer", &certificate.issuer);
            line(
                "valid",
                &format!("{} to {}", shown(certificate.not_before), shown(certificate.not_after)),
            );
            let days = (certificate.not_after - now).num_days();
            line("left", &format!("{days} days, {:.0} % of its life", left * 100.0));
            if !in_use.is_of_this_ca {
                line("note", "it is of another CA than the settings name");
            }
            let missing: Vec<_> = wanted.difference(&certificate.names).collect();
            if !missing.is_empty() {
                line("missing", &listed(missing.iter().copied()));
            }
            is_good = left > 0.0 && missing.is_empty() && in_use.is_of_this_ca;
        }
    }
    if let Some(renewal) = in_use.situation(now, &wanted, &state, settings.retry()).renewal() {
        let source = match state.window.filter(|window| window.version == in_use.version) {
            Some(window) => {
                format!("the CA suggests {} to {}", shown(window.start), shown(window.end))
            }
            None => "the CA makes no suggestion".to_owned(),
        };
        line("renewal", &format!("{}; {source}", shown(renewal)));
    }
    if let Some(success) = state.last_success {
        line("last success", &shown(success));
    }
    if let Some(failure) = &state.last_failure {
        let detail = format!("{}, {}: {}", shown(failure.at), failure.reason, failure.detail);
        line("last failure", &detail);
        let next = state.next_attempt.map_or_else(|| "now".to_owned(), shown);
        line("next attempt", &format!("{next} ({} failed)", state.failures));
    }
    line("directory", settings.directory_url());
    Ok((text, is_good))
}

fn shown(time: DateTime<Utc>) -> String {
    time.format("%Y-%m-%d %H:%M:%S UTC").to_string()
}
