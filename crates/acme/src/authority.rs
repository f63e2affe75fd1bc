//! The CA: its HTTP client and the account.

use std::{future::Future, pin::Pin, time::Duration};

use bytes::Bytes;
use http::Request;
use http_body_util::Limited;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use instant_acme::{
    Account, AccountCredentials, BodyWrapper, BytesResponse, CertificateIdentifier, Error,
    HttpClient, NewAccount,
};
use linnet_tls::{CaFile, CaFileError};

use crate::{
    certificate::Certificate,
    failure::AttemptError,
    settings::AcmeSettings,
    state::RenewalWindow,
    store::{Store, StoreError},
};

/// Timeout for the head of a response.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(30);
/// Timeout for opening a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Largest response. A chain of certificates has about 6 kB.
const MAX_RESPONSE_BYTES: usize = 256 * 1024;

/// An HTTP client for the CA's server, with HTTP/1.1 and a bound on time and size.
#[derive(Clone)]
pub(crate) struct CaClient {
    client: Client<HttpsConnector<HttpConnector>, BodyWrapper<Bytes>>,
}

impl CaClient {
    /// A client that trusts the CAs of the settings.
    pub(crate) fn new(settings: &AcmeSettings) -> Result<Self, CaFileError> {
        let mut http = HttpConnector::new();
        http.enforce_http(false);
        http.set_connect_timeout(Some(CONNECT_TIMEOUT));
        let builder = HttpsConnectorBuilder::new();
        let builder = match &settings.ca_file {
            None => builder.with_webpki_roots(),
            Some(path) => builder.with_tls_config(CaFile::read(path)?.client_config()),
        };
        let connector = builder.https_only().enable_http1().wrap_connector(http);
        // Months pass between two orders, so no connection is kept.
        let client =
            Client::builder(TokioExecutor::new()).pool_max_idle_per_host(1).build(connector);
        Ok(Self { client })
    }
}

impl HttpClient for CaClient {
    fn request(
        &self,
        request: Request<BodyWrapper<Bytes>>,
    ) -> Pin<Box<dyn Future<Output = Result<BytesResponse, Error>> + Send>> {
        let response = self.client.request(request);
        Box::pin(async move {
            match tokio::time::timeout(RESPONSE_TIMEOUT, response).await {
                Ok(Ok(response)) => {
                    let response = response.map(|body| Limited::new(body, MAX_RESPONSE_BYTES));
                    Ok(BytesResponse::from(response))
                }
                Ok(Err(error)) => Err(Error::Other(Box::new(error))),
                Err(_) => {
                    let message = "the CA's server did not respond in time";
                    Err(Error::Other(std::io::Error::other(message).into()))
                }
            }
        })
    }
}

/// The account at one CA.
pub(crate) struct Authority {
    client: CaClient,
    directory: String,
    email: String,
    file: String,
}

impl Authority {
    pub(crate) fn new(settings: &AcmeSettings) -> Result<Self, CaFileError> {
        let directory = settings.directory_url().to_owned();
        Ok(Self {
            client: CaClient::new(settings)?,
            email: settings.email.clone(),
            file: account_file(&directory),
            directory,
        })
    }

    /// The stored account, if there is one. Requests the directory.
    pub(crate) async fn stored_account(
        &self,
        store: &Store,
    ) -> Result<Option<Account>, AttemptError> {
        let Some(credentials) = store.read_private::<AccountCredentials>(&self.file)? else {
            return Ok(None);
        };
        let builder = Account::builder_with_http(Box::new(self.client.clone()));
        Ok(Some(builder.from_credentials(credentials).await?))
    }

    /// The stored account, or else a new one, which is stored.
    pub(crate) async fn account(&self, store: &Store) -> Result<Account, AttemptError> {
        if let Some(account) = self.stored_account(store).await? {
            return Ok(account);
        }
        let mail = format!("mailto:{}", self.email);
        let contact: &[&str] = if self.email.is_empty() { &[] } else { &[&mail] };
        let account =
            NewAccount { contact, terms_of_service_agreed: true, only_return_existing: false };
        let builder = Account::builder_with_http(Box::new(self.client.clone()));
        let (account, credentials) = builder.create(&account, self.directory.clone(), None).await?;
        store.write_private(&self.file, &credentials)?;
        tracing::info!(account = account.id(), "account created");
        Ok(account)
    }

    /// Forgets the stored account, which the CA does not know.
    pub(crate) fn forget_account(&self, store: &Store) -> Result<(), StoreError> {
        store.remove_private(&self.file)
    }
}

/// One file for each directory, so that trials with another CA do not lose the account.
fn account_file(directory: &str) -> String {
    let plain = directory.trim_start_matches("https://");
    let name: String =
        plain.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).take(100).collect();
    format!("account-{name}.json")
}

/// The suggestion of the CA, or `None` if it makes none.
pub(crate) async fn renewal_window(
    account: &Account,
    certificate: &Certificate,
    version: u64,
) -> Result<Option<RenewalWindow>, AttemptError> {
    let Some(id) = identifier(certificate) else { return Ok(None) };
    let info = match account.renewal_info(&id).await {
        Ok((info, _retry_after)) => info,
        Err(Error::Unsupported(_)) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let time = |seconds| chrono::DateTime::from_timestamp(seconds, 0);
    let start = time(info.suggested_window.start.unix_timestamp());
    let end = time(info.suggested_window.end.unix_timestamp());
    Ok(start.zip(end).map(|(start, end)| RenewalWindow { version, start, end }))
}

/// The certificate's identifier for renewal information. A certificate without the id of its issuer's key has none.
pub(crate) fn identifier(certificate: &Certificate) -> Option<CertificateIdentifier<'static>> {
    CertificateIdentifier::try_from(certificate.der()).ok().map(CertificateIdentifier::into_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_directory_has_its_own_account() {
        let file = account_file("https://acme-v02.api.letsencrypt.org/directory");
        assert_eq!(file, "account-acme-v02-api-letsencrypt-org-directory.json");
        assert_ne!(file, account_file("https://acme-staging-v02.api.letsencrypt.org/directory"));
        assert!(account_file(&format!("https://ca/{}", "x/".repeat(200))).len() < 120);
    }
}
