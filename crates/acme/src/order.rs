//! One order: proves control of the names by HTTP-01, and returns the certificate.

use std::{path::Path, time::Duration};

use instant_acme::{
    Account, AuthorizationStatus, CertificateIdentifier, ChallengeType, Identifier, NewOrder,
    Order, OrderStatus, RetryPolicy,
};
use rcgen::{KeyPair, PublicKeyData as _};

use crate::{
    certificate::Certificate, failure::AttemptError, names::Names, placeholder,
    probe::ChallengeFile, store::Issued,
};

/// The content of an order.
pub(crate) struct Wish<'a> {
    pub(crate) names: &'a Names,
    /// The certificate profile, if the CA offers it; empty for none.
    pub(crate) profile: &'a str,
    /// The certificate that the new one replaces.
    pub(crate) replaces: Option<CertificateIdentifier<'static>>,
    /// The folder of challenges.
    pub(crate) challenges: &'a Path,
    /// The URL of the directory, to be stored.
    pub(crate) directory: &'a str,
    /// Whether browsers trust the CA.
    pub(crate) is_trusted: bool,
    /// Longest time for the CA's validation, and for its signature.
    pub(crate) timeout: Duration,
}

/// Orders a certificate. The caller limits the time of the whole.
pub(crate) async fn order(account: &Account, wish: &Wish<'_>) -> Result<Issued, AttemptError> {
    let identifiers: Vec<_> =
        wish.names.iter().map(|name| Identifier::Dns(name.to_string())).collect();
    let mut new_order = NewOrder::new(&identifiers);
    if account.profiles().any(|offered| offered.name == wish.profile) {
        new_order = new_order.profile(wish.profile);
    }
    if let Some(replaced) = &wish.replaces {
        new_order = new_order.replaces(replaced.clone());
    }
    let mut order = account.new_order(&new_order).await?;
    let retries = RetryPolicy::new()
        .initial_delay(Duration::from_millis(500))
        .backoff(1.5)
        .timeout(wish.timeout);
    // The files are removed at the end of this function.
    let files = answer_challenges(&mut order, wish.challenges).await?;
    if order.state().status == OrderStatus::Pending {
        let status = order.poll_ready(&retries).await;
        if !matches!(status, Ok(OrderStatus::Ready)) {
            let refusal = refusal(&mut order).await;
            let state = status.map(|status| AttemptError::State(format!("{status:?}")));
            return Err(refusal.unwrap_or_else(|| state.unwrap_or_else(AttemptError::from)));
        }
    }
    drop(files);
    let key = KeyPair::generate()?;
    let request = placeholder::params(wish.names)?.serialize_request(&key)?;
    order.finalize_csr(request.der()).await?;
    let chain = order.poll_certificate(&retries).await?;
    let public_key = key.subject_public_key_info();
    Certificate::parse(chain.as_bytes())?.check(&public_key, wish.names)?;
    Ok(Issued {
        chain,
        key: key.serialize_pem(),
        public_key,
        directory: Some(wish.directory.to_owned()),
        is_trusted: wish.is_trusted,
    })
}

/// Writes the responses of all challenges, and then asks the CA to request them.
async fn answer_challenges(
    order: &mut Order,
    folder: &Path,
) -> Result<Vec<ChallengeFile>, AttemptError> {
    let mut files = Vec::new();
    let mut authorizations = order.authorizations();
    while let Some(authorization) = authorizations.next().await {
        let mut authorization = authorization?;
        // The CA remembers a recent proof.
        if authorization.status == AuthorizationStatus::Valid {
            continue;
        }
        let name = authorization.identifier().to_string();
        let challenge = authorization.challenge(ChallengeType::Http01);
        let mut challenge = challenge.ok_or(AttemptError::NoChallenge(name))?;
        let content = challenge.key_authorization();
        let file = ChallengeFile::write(folder, &challenge.token, content.as_str());
        files.push(file.map_err(|error| AttemptError::Challenge(folder.to_owned(), error))?);
        challenge.set_ready().await?;
    }
    Ok(files)
}

/// The CA's reason for a failed validation, which is in the challenge, not in the order.
async fn refusal(order: &mut Order) -> Option<AttemptError> {
    let mut authorizations = order.authorizations();
    while let Some(Ok(mut authorization)) = authorizations.next().await {
        let name = authorization.identifier().to_string();
        let state = authorization.refresh().await.ok()?;
        let errors = state.challenges.iter().filter_map(|challenge| challenge.error.as_ref());
        if let Some(problem) = errors.into_iter().next() {
            let detail = problem.detail.clone().unwrap_or_else(|| problem.to_string());
            return Some(AttemptError::Validation { name, detail });
        }
    }
    None
}
