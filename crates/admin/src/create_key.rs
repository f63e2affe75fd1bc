//! `admin create-key`: creates an API key, such as the first one of an installation.

use linnet_domain::Scope;

use linnet_domain::{ApiKey, Email, NewUser, User, bounded_text};
use linnet_protocol::issued_keys::IssuedKeys;
use linnet_settings::Settings;
use linnet_store::{Constraint, NewKey, Store, StoreError};

use crate::{AdminError, CreateKey};

/// Creates the key and prints only the key on standard output.
#[expect(clippy::print_stdout, reason = "the key is this command's output")]
pub(super) async fn run(
    settings: &Settings,
    store: &Store,
    arguments: &CreateKey,
) -> Result<(), AdminError> {
    let bad = |argument, message: String| AdminError::Argument { argument, message };
    let scopes = arguments
        .scopes
        .iter()
        .map(|word| {
            Scope::parse(word.trim())
                .ok_or_else(|| bad("scopes", format!("must have known scopes, not `{word}`")))
        })
        .collect::<Result<_, _>>()?;
    let name = bounded_text(&arguments.name, ApiKey::MAX_NAME)
        .map_err(|error| bad("name", error.to_string()))?;
    let username = bounded_text(&arguments.username, User::MAX_USERNAME)
        .map_err(|error| bad("username", error.to_string()))?;
    let email = Email::parse(&arguments.email).map_err(|error| bad("email", error.to_string()))?;
    let user = find_or_create(store, NewUser { username, email }).await?;
    let secret = IssuedKeys::new(&settings.service).generate()?;
    let new = NewKey {
        user_id: user.id,
        name: &name,
        scopes,
        expires_at: None,
        maker: None,
        most_living: None,
    };
    store.create_key(&secret, &new).await?.map_err(|refusal| bad("name", refusal.to_string()))?;
    println!("{}", secret.reveal());
    Ok(())
}

/// Finds the user with this e-mail address, or creates one.
pub(super) async fn find_or_create(store: &Store, new: NewUser) -> Result<User, AdminError> {
    if let Some(user) = store.find_user_by_email(new.email.as_str()).await? {
        return Ok(user);
    }
    match store.create_operator(&new).await {
        // Another process created the user after the lookup.
        Err(error @ StoreError::Conflict(Constraint::EmailTaken)) => {
            store.find_user_by_email(new.email.as_str()).await?.ok_or_else(|| error.into())
        }
        result => Ok(result?),
    }
}
