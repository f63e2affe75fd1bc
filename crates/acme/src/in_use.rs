//! The certificate in use, reduced to what the schedule needs.

use std::time::Duration;

use chrono::{DateTime, Utc};
use instant_acme::{Account, CertificateIdentifier};

use crate::{
    authority::identifier, certificate::Certificate, names::Names, schedule::Situation,
    state::State, store::Installed,
};

/// The certificate in use.
pub(crate) struct InUse {
    /// Whether nginx has a certificate, if only a placeholder.
    pub(crate) is_installed: bool,
    /// The number of its folder.
    pub(crate) version: u64,
    /// The certificate, if a CA issued it and it can be parsed.
    pub(crate) certificate: Option<Certificate>,
    /// Whether it is of the CA of the settings.
    pub(crate) is_of_this_ca: bool,
}

impl InUse {
    /// Judges what is installed. `directory` is the URL of the settings.
    pub(crate) fn new(installed: Option<Installed>, directory: &str) -> Self {
        let Some(installed) = installed else {
            return Self {
                is_installed: false,
                version: 0,
                certificate: None,
                is_of_this_ca: false,
            };
        };
        if let Err(error) = &installed.certificate {
            tracing::error!(%error, version = installed.version, "certificate in use is damaged");
        }
        let is_issued = installed.directory.is_some();
        Self {
            is_installed: installed.certificate.is_ok(),
            version: installed.version,
            is_of_this_ca: installed.directory.as_deref() == Some(directory),
            certificate: installed.certificate.ok().filter(|_| is_issued),
        }
    }

    /// The input of the schedule.
    pub(crate) fn situation<'a>(
        &'a self,
        now: DateTime<Utc>,
        wanted: &'a Names,
        state: &'a State,
        retry: Duration,
    ) -> Situation<'a> {
        Situation {
            now,
            wanted,
            certificate: self.certificate.as_ref(),
            version: self.version,
            is_of_this_ca: self.is_of_this_ca,
            state,
            retry,
        }
    }

    /// The certificate that an order for `names` replaces. A CA does not count such orders.
    ///
    /// `None` if the CA would refuse an order that names it: without renewal information, without a name in common, or
    /// if it does not know the certificate.
    pub(crate) async fn replaced(
        &self,
        account: &Account,
        names: &Names,
    ) -> Option<CertificateIdentifier<'static>> {
        let certificate = self.certificate.as_ref().filter(|_| self.is_of_this_ca)?;
        names.intersection(&certificate.names).next()?;
        let id = identifier(certificate)?;
        account.renewal_info(&id).await.is_ok().then_some(id)
    }
}
