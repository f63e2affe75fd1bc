//! The certificate that nginx presents, which may be another one than the ACME client has.

use crate::{command::run, error::HostError};

/// The life of a certificate, in seconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Life {
    /// Its begin.
    pub not_before: u64,
    /// Its end.
    pub not_after: u64,
}

/// Asks nginx at an address of this server for the certificate of the domain.
pub fn served(address: &str, domain: &str) -> Result<Life, HostError> {
    let script = "timeout 10 openssl s_client -connect \"$1\":443 -servername \"$0\" </dev/null 2>/dev/null \
                  | openssl x509 -noout -startdate -enddate";
    // The error of the command would show the script.
    let text = run("sh", &["-c", script, domain, address], 20).map_err(|_| {
        HostError::Unhealthy(format!(
            "nginx presents no certificate of {domain} at {address}:443; `deploy.sh apply` starts it if it does not run"
        ))
    })?;
    life_of(&text).ok_or_else(|| {
        HostError::Unhealthy(format!("the certificate of {domain} cannot be read: {text}"))
    })
}

fn life_of(text: &str) -> Option<Life> {
    let time = |name: &str| {
        let date = text.lines().find_map(|line| line.strip_prefix(name))?;
        run("date", &["--utc", &format!("--date={date}"), "+%s"], 5).ok()?.parse().ok()
    };
    Some(Life { not_before: time("notBefore=")?, not_after: time("notAfter=")? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn life_is_read_from_both_dates() {
        let text = "notBefore=Nov 27 12:00:00 2026 GMT\nnotAfter=Feb 25 12:00:00 2027 GMT\n";
        let life = Life { not_before: 1_795_780_800, not_after: 1_803_556_800 };
        assert_eq!(life_of(text), Some(life));
        assert_eq!(life_of("notBefore=Nov 27 12:00:00 2026 GMT\n"), None);
    }
}
