//! Why a certificate could not be ordered.

use std::{error::Error, fmt};

use chrono::{DateTime, Utc};
use linnet_telemetry::error_chain;
use linnet_tls::TlsFault;
use serde::{Deserialize, Serialize};

use crate::{certificate::CertificateError, names::Names, store::StoreError};

/// The kind of a failure, a label of metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Reason {
    /// A name does not lead to this installation.
    Dns,
    /// The CA's server cannot be reached, or its certificate cannot be verified.
    Unreachable,
    /// The CA refused the order or the proof of control.
    Refused,
    /// The CA has received too many requests of this account or for these names.
    RateLimited,
    /// The CA responded with an error of its own, or with something that is no response.
    Authority,
    /// A file cannot be read or written.
    Storage,
    /// The order took longer than the setting allows.
    TimedOut,
}

impl Reason {
    /// Every reason.
    pub(crate) const ALL: [Self; 7] = [
        Self::Dns,
        Self::Unreachable,
        Self::Refused,
        Self::RateLimited,
        Self::Authority,
        Self::Storage,
        Self::TimedOut,
    ];

    /// The name, as in metrics and logs.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Dns => "dns",
            Self::Unreachable => "unreachable",
            Self::Refused => "refused",
            Self::RateLimited => "rate_limited",
            Self::Authority => "authority",
            Self::Storage => "storage",
            Self::TimedOut => "timed_out",
        }
    }
}

/// A failed attempt, as it is logged, stored and shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Failure {
    /// When it failed.
    pub(crate) at: DateTime<Utc>,
    /// The kind.
    pub(crate) reason: Reason,
    /// One sentence with the specifics.
    pub(crate) detail: String,
    /// The names that were wanted.
    pub(crate) names: Names,
}

/// Why an attempt failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AttemptError {
    /// Some names do not lead here.
    #[error("{0}")]
    Dns(String),
    /// A request to the CA failed, or the CA refused it.
    #[error(transparent)]
    Acme(#[from] instant_acme::Error),
    /// The CA found no proof of control.
    #[error("the CA refused to validate {name}: {detail}")]
    Validation {
        /// The name.
        name: String,
        /// The CA's reason.
        detail: String,
    },
    /// The CA offers no HTTP-01 challenge.
    #[error("the CA offers no HTTP-01 challenge for {0}")]
    NoChallenge(String),
    /// The order has a state that leads to no certificate.
    #[error("the CA left the order in the state {0}")]
    State(String),
    /// The CA's certificate cannot be used.
    #[error("the CA returned a certificate that cannot be used")]
    Certificate(#[from] CertificateError),
    /// The request for the certificate cannot be built.
    #[error("the request for the certificate cannot be built")]
    Request(#[from] rcgen::Error),
    /// A file cannot be read or written.
    #[error("a file cannot be read or written")]
    Store(#[from] StoreError),
    /// A challenge cannot be written.
    #[error("the challenge cannot be written to {0}")]
    Challenge(std::path::PathBuf, #[source] std::io::Error),
    /// The time of the setting is over.
    #[error("the order was not finished within {0:?}")]
    TimedOut(std::time::Duration),
}

impl AttemptError {
    pub(crate) fn reason(&self) -> Reason {
        match self {
            Self::Dns(_) => Reason::Dns,
            Self::Acme(instant_acme::Error::Api(problem)) => {
                reason_of(problem.r#type.as_deref(), problem.status)
            }
            Self::Acme(instant_acme::Error::Timeout(_)) | Self::TimedOut(_) => Reason::TimedOut,
            Self::Acme(instant_acme::Error::Other(_)) => Reason::Unreachable,
            Self::Validation { .. } => Reason::Refused,
            Self::Acme(_)
            | Self::NoChallenge(_)
            | Self::State(_)
            | Self::Certificate(_)
            | Self::Request(_) => Reason::Authority,
            Self::Store(_) | Self::Challenge(..) => Reason::Storage,
        }
    }

    /// Whether the CA does not know the account, for example because the stored one is of a CA that lost its data.
    pub(crate) fn is_unknown_account(&self) -> bool {
        self.problem_type().is_some_and(|kind| kind.ends_with(":accountDoesNotExist"))
    }

    /// Whether the CA has already replaced the certificate that the order names.
    pub(crate) fn is_already_replaced(&self) -> bool {
        self.problem_type().is_some_and(|kind| kind.ends_with(":alreadyReplaced"))
    }

    fn problem_type(&self) -> Option<&str> {
        match self {
            Self::Acme(instant_acme::Error::Api(problem)) => problem.r#type.as_deref(),
            _ => None,
        }
    }

    /// The failure, for the log and the state.
    pub(crate) fn into_failure(self, at: DateTime<Utc>, names: &Names) -> Failure {
        Failure { at, reason: self.reason(), detail: describe(&self), names: names.clone() }
    }
}

fn reason_of(kind: Option<&str>, status: Option<u16>) -> Reason {
    match kind.and_then(|kind| kind.rsplit(':').next()) {
        Some("rateLimited") => Reason::RateLimited,
        Some("serverInternal" | "badNonce") => Reason::Authority,
        _ if status.is_some_and(|status| status >= 500) => Reason::Authority,
        _ => Reason::Refused,
    }
}

/// The reason in words if TLS failed, and otherwise the error with its causes.
fn describe(error: &(dyn Error + 'static)) -> String {
    match TlsFault::find(error) {
        Some(TlsFault::Expired) => format!("{}; check this machine's clock", TlsFault::Expired),
        Some(fault) => fault.to_string(),
        None => error_chain(error),
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn problems_of_the_ca_have_their_reason() {
        let reason = |kind: &str, status| {
            reason_of(Some(&format!("urn:ietf:params:acme:error:{kind}")), Some(status))
        };
        assert_eq!(reason("rateLimited", 429), Reason::RateLimited);
        assert_eq!(reason("serverInternal", 500), Reason::Authority);
        assert_eq!(reason("badNonce", 400), Reason::Authority);
        assert_eq!(reason("rejectedIdentifier", 403), Reason::Refused);
        assert_eq!(reason_of(None, Some(503)), Reason::Authority);
    }

    #[test]
    fn every_reason_is_written_as_its_name() {
        for reason in Reason::ALL {
            let json = serde_json::to_string(&reason).unwrap();
            assert_eq!(json, format!("\"{}\"", reason.name()));
        }
    }
}
