//! `admin erase-user`: the user, and everything that is left of it.

use linnet_domain::Visibility;
use linnet_store::{Erased, Store};

use super::{AdminError, EraseUser};

/// Deletes the user if it is there, then its traces; says what that was.
#[expect(clippy::print_stderr, reason = "the report is for the person at the terminal")]
pub(super) async fn run(store: &Store, arguments: &EraseUser) -> Result<(), AdminError> {
    if store.delete_user(arguments.id, Visibility::All, None).await? {
        eprintln!("user {}: name, address, keys and links deleted", arguments.id);
    } else {
        eprintln!("there is no user {}: looking for what it left", arguments.id);
    }
    let Erased { links, events, clicks, roll_ups } = store.erase_traces(arguments.id).await?;
    eprintln!(
        "{links} links: {clicks} clicks, {roll_ups} rows of roll-ups, {events} events erased"
    );
    Ok(())
}
